//! A mail address.

#![no_main]

use mailroute_sidecar_fuzz::checks;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| checks::address(octets));
