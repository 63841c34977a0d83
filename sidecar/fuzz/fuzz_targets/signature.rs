//! The value of a signature field.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| mailroute_sidecar_fuzz::checks::signature(octets));
