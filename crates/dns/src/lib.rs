//! Asks name servers for what the system's resolver does not know: MX, TXT and CNAME records, and addresses beside them.
//!
//! ```text
//!  Resolver::ask ──► message::Query ──UDP, TCP──► name server
//!   (sockets)            (pure)                       │
//!       ▲ message::Answer ◄── message::Reply ◄────────┘
//! ```
//! * [`message`]: DNS messages as values.
//! * [`resolver`]: one question, one answer, in bounded time.
//!
//! Both programs look names up: the sidecar its smart host, the operator what a domain publishes. Knows nothing of mail,
//! of Microsoft 365 or of Kubernetes; keeps nothing between questions.

pub mod message;
pub mod resolver;
