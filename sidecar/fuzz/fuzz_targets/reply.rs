//! All that a server sends in answer to a command.

#![no_main]

use mailroute_sidecar_fuzz::checks;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| checks::reply(octets));
