//! One message: from whom to whom ([`envelope`]), its octets in bounded memory ([`body`]), and its addresses where others
//! must not read them ([`redact`]).

pub mod body;
pub mod envelope;
pub mod redact;
