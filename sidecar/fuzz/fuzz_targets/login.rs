//! What a client logs in with, the users of a gateway, and tokens.

#![no_main]

use mailroute_sidecar_fuzz::checks;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| checks::login(octets));
