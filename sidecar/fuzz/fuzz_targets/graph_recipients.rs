//! The recipients in the header of a message that goes by Microsoft Graph.

#![no_main]

use mailroute_sidecar_fuzz::checks;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| checks::graph_recipients(octets));
