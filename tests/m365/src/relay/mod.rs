//! The other Exchange Online half: the MX endpoint on port 25, for SMTP relay and Direct Send.
//!
//! ```text
//!  TLS, address ─► certificate ─┐
//!  MAIL FROM ───────────────────┴► attribution (whose mail is it?) ─► RCPT
//! ```
//! The conversation is that of [`crate::submission`], without AUTH. What decides is here, as plain functions of the
//! directory and the connection: nobody logs in; a connector, or the recipient, decides.

pub mod attribution;
pub mod certificate;

pub use certificate::PresentedCertificate;
