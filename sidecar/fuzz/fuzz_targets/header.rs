//! A message, its header above all.

#![no_main]

use mailroute_sidecar_fuzz::{checks, second_reader};

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    checks::header(octets);
    second_reader::same_authors(octets);
});
