//! The real sidecar against the Microsoft 365 simulator, over real sockets and TLS: what an application sends, what
//! arrives, and what both sides and the operator are told.

#![cfg(test)]

mod canary;
mod check;
mod client;
mod control;
mod credentials;
mod delivery;
mod drain;
mod dsn;
mod first_mail;
mod first_mail_elsewhere;
mod floods;
mod graph;
mod graph_fallback;
mod handover;
mod hostile;
mod identity_binding;
mod kept;
mod limits;
mod mailboxes;
mod modes;
mod outages;
mod queue;
mod queue_cli;
mod queue_program;
mod redaction;
mod reload;
mod reports;
mod route;
mod rules;
mod scene;
mod send;
mod senders;
mod services;
mod setups;
mod smart_host;
mod token_service;
mod web_proxy;
mod wire;
