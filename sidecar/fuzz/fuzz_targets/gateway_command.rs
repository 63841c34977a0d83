//! A command line to a gateway.

#![no_main]

use mailroute_sidecar_fuzz::checks;

libfuzzer_sys::fuzz_target!(|line: &[u8]| checks::gateway_command(line));
