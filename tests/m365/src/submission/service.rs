//! What the services that speak SMTP with a login allow a message: client submission, High Volume Email, Communication
//! Services; and the MX endpoint, which has no login.
//!
//! Pure.

use crate::{config::Config, mailbox::Face};

/// What one message may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    /// The number behind `SIZE` in EHLO.
    pub size: usize,
    /// Recipients.
    pub recipients: usize,
    /// Recipients of one domain.
    pub recipients_of_domain: usize,
}

impl Allowance {
    /// Those of a face.
    pub fn of(face: Face, config: &Config) -> Self {
        let limits = &config.limits;
        let (size, recipients) = match face {
            Face::Submission | Face::Relay | Face::Graph => {
                (limits.advertised_size, limits.recipients_per_message)
            }
            Face::HighVolumeEmail => {
                (config.high_volume_email.message_bytes, config.high_volume_email.recipients_per_message)
            }
            Face::CommunicationServices => (
                config.communication_services.message_bytes,
                config.communication_services.recipients_per_message,
            ),
        };
        Self { size, recipients, recipients_of_domain: limits.recipients_per_domain }
    }
}
