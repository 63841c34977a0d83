//! The other Exchange Online half: the MX endpoint on port 25, for SMTP relay and Direct Send.
//!
//! ```text
//!  TLS, address ─► certificate ─┐
//!  MAIL FROM ───────────────────┴► attribution (whose mail is it?) ─► envelope (RCPT) ─► acceptance (end of data)
//! ```
//! The conversation is that of [`crate::submission`], without AUTH. What differs is here, as plain functions of the
//! directory and the connection: nobody logs in; a connector, or the recipient, decides.

mod acceptance;
pub mod attribution;
pub mod certificate;
mod envelope;

pub use certificate::PresentedCertificate;
