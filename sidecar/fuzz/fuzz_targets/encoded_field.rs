//! One header field that may have raw UTF-8.

#![no_main]

use mailroute_sidecar_fuzz::checks;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| checks::encoded_field(octets));
