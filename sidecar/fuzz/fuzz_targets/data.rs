//! The octets behind DATA.

#![no_main]

use mailroute_sidecar_fuzz::checks;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| checks::data(octets));
