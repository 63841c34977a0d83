//! A message whose header fields are removed and set by rules.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| mailroute_sidecar_fuzz::checks::field_rules(octets));
