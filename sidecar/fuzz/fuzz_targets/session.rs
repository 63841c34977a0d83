//! All that a client sends.

#![no_main]

use mailroute_sidecar_fuzz::checks;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| checks::session(octets));
