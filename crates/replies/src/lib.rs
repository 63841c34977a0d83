//! What the replies that a person or a program meets mean, as values: of Exchange, of Graph, of Entra and of the sidecar.
//!
//! * [`reply`]: an SMTP reply, read and printed. [`outcome`]: what a reply means for a message.
//! * [`classify`]: the one table from replies to outcomes; [`graph`]: the same for answers of Microsoft Graph.
//! * [`hint`]: what to know about a refusal of one message or recipient. [`own`]: what to do about the sidecar's own replies.
//! * [`one_of_several`]: a text that names one mailbox of several.
//! * [`known_replies`], [`known_errors`]: Microsoft's literal lines, with which the tables are tested and which the documentation
//!   lists.
//!
//! Pure: no I/O, no clock. Refuses to know how a reply was got and who reads it.

pub mod classify;
pub mod graph;
pub mod hint;
pub mod known_errors;
pub mod known_replies;
pub mod one_of_several;
pub mod outcome;
pub mod own;
pub mod reply;
