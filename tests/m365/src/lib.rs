//! A strict, faithful simulator of Microsoft 365 for mail, for tests and for laptops.
//!
//! ```text
//!            POST /<tenant>/oauth2/v2.0/token            EHLO · STARTTLS · AUTH · MAIL · RCPT · DATA
//!  client ───────────────────────────────────► entra     ───────────────────────────────► submission (587), relay (25)
//!    │ │                                         │                                                    │
//!    │ │ POST /v1.0/users/<mailbox>/sendMail     ├──────────► office (config, usage, record) ◄────────┘
//!    │ └──────────────────────────────────► graph┘                      ▲
//!    │ MX contoso.com?                                                  │
//!    └─────────────────► dns ──────────────────────────────────────────►▲
//!  test or person ── GET /messages, PUT /faults, … ──► control ─────────┘
//! ```
//! * [`Simulator`]: start it on free ports, ask it what happened, drop it.
//! * [`Config`] and [`Directory`]: tenants, applications, mailboxes, limits.
//! * [`Faults`]: what to switch on; [`Line`]: every reply by name.
//! * [`Message`], [`Violation`], [`TokenExchange`]: what happened.
//! * [`inbox`]: the page that shows it to a person.
//!
//! The protocol is pure: bytes, state and time in, steps out. Only `simulator`, `faces`, `listener`,
//! `submission::connection`, `name_server`, `token_endpoint`, `graph::server`, `control`, `inbox`, `authority`, `state`, `state_secret`,
//! `random` and `web_proxy` touch the world. Sources of the rules are named beside them; what Microsoft does not publish is a setting in [`Config`].

pub mod app;
pub mod args;
pub mod authority;
pub mod config;
pub mod control;
pub mod dialogue;
pub mod directory;
pub mod dns;
pub mod entra;
mod faces;
pub mod faults;
pub mod files;
pub mod graph;
pub mod inbox;
pub mod keys;
pub mod limits;
pub mod listener;
pub mod mailbox;
pub mod name_server;
pub mod office;
pub mod options;
pub mod random;
pub mod records;
pub mod relay;
pub mod replies;
pub mod simulator;
pub mod stand_in;
pub mod state;
pub mod state_secret;
pub mod submission;
pub mod tally;
pub mod tenant_limits;
pub mod tls;
pub mod token_endpoint;
pub mod violations;
pub mod web_proxy;
pub mod window;

pub use authority::ClientIdentity;
pub use config::Config;
pub use directory::Directory;
pub use dns::Lookup;
pub use entra::{Credential, Resource, TokenExchange};
pub use faults::{
    DnsAction, DnsFaults, Faults, GraphAction, GraphAnswer, GraphFaults, LoginAction, LoginFaults, Rule,
    SmtpAction, SmtpFaults, Stage, SubmissionFaults, Token,
};
pub use files::write_atomically;
pub use limits::Peak;
pub use mailbox::{Face, Message, TokenClaims};
pub use options::{Options, StartError};
pub use records::{GraphRequest, NonDeliveryReport};
pub use replies::Line;
pub use simulator::Simulator;
pub use tally::{Statistics, Tally};
pub use violations::{Kind, Violation};
pub use web_proxy::WebProxy;
