//! Microsoft Graph, as far as mail is sent with it: `POST /v1.0/users/{mailbox}/sendMail` with a whole message (MIME).
//!
//! ```text
//!  request ─► server ─► admission (path, token, mailbox, limits) ─► body ─► submission (base64, size, From, recipients) ─► 202
//!             (HTTP)                 (pure)                                   (pure)           └─► what Exchange does later
//! ```
//! Sources: Microsoft Graph, `user: sendMail`, "Outlook service limits" of "Microsoft Graph service-specific throttling limits",
//! and error bodies as clients have logged them.

mod admission;
mod answer;
mod mime;
pub mod server;
mod submission;
