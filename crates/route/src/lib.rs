//! The contract between the two programs: what the operator writes and the sidecar reads.
//!
//! * [`address`]: the grammar of an address that a `MailRoute` may name.
//! * [`mod@file`]: `route.json`, one rendered [`RouteFile`] per `MailRoute`, mounted into every sidecar of that route.
//! * [`control`]: the messages of the control service, which sidecars call and the operator answers.
//! * [`condition`]: every condition and reason that either program may report, each with its sentence and remedy.
//! * [`exchange_online`]: names in DNS that both programs recognise as Microsoft's.
//! * [`identity`]: the names in the certificates of sidecars and gateways.
//! * [`jwt`]: what a token says of itself.
//! * [`paths`]: where the injected pod mounts things; the operator's patch and the sidecar's defaults must agree.
//! * [`quantity`]: sizes and other amounts, as Kubernetes writes them.
//! * [`text`]: texts that have to be short.
//!
//! Plain data: no I/O, no clock, no Kubernetes and no SMTP. Never a secret: a credential is named by the path of the
//! file it is mounted at.

pub mod address;
pub mod condition;
pub mod control;
pub mod exchange_online;
pub mod file;
pub mod header;
pub mod identity;
pub mod jwt;
pub mod paths;
pub mod quantity;
pub mod text;

pub use file::{ParseError, RouteFile};
