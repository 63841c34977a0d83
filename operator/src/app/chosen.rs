//! What the flags choose for the parts: certificates, sidecars, and the identity that is lent.

use std::sync::Arc;

use anyhow::Context as _;
use mailroute_operator_core::inject;
use mailroute_operator_core::resolve::accept::MailboxRules;
use mailroute_operator_core::resolve::operator_identity::Settings;

use super::App;
use crate::args::{Certificates, Run};
use crate::metrics::Metrics;
use crate::pki::{self, Source, Written};
use crate::service::token_cache::Vault;
use crate::webhook::configuration_check;

impl App {
    /// Whose certificates are served, and who is told what is written of them.
    pub(super) fn pki_settings(&self) -> pki::Settings {
        let flags = &self.flags;
        let given = |publishes| Source::Given { secret: flags.certificate_secret.clone(), publishes };
        let (metrics, events) = (self.metrics.clone(), self.events.clone());
        pki::Settings {
            namespace: flags.namespace.clone(),
            source: match flags.certificates {
                Certificates::Own => {
                    Source::Own { secret: flags.ca_secret.clone(), lifetimes: self.lifetimes }
                }
                Certificates::CertManager => given(false),
                Certificates::Secret => given(true),
            },
            webhook_configuration: flags.webhook_configuration.clone(),
            names: pki::service_names(&flags.service, &flags.namespace, &flags.cluster_domain),
            tell: Arc::new(move |written| {
                metrics.ca_bundle(written);
                if let Written::Repair(configuration) = written {
                    configuration_check::tell_of_repair(configuration, &events);
                }
            }),
        }
    }

    /// What the installation chooses for every sidecar.
    pub(super) fn sidecar(&self) -> inject::Platform {
        self.flags.injection.platform(&self.flags.sidecar_image)
    }
}

/// The tokens of the operator's identity: none without settings.
pub(super) fn vault(flags: &Run, metrics: &Metrics) -> anyhow::Result<Vault> {
    let mut settings = match &flags.broker_settings {
        None => Settings::default(),
        Some(path) => {
            let unusable = || format!("cannot use the settings of the broker {}", path.display());
            let text = std::fs::read_to_string(path).with_context(unusable)?;
            Settings::parse(&text).with_context(unusable)?
        }
    };
    settings.entra_audiences.clone_from(&flags.injection.entra_audiences);
    Vault::new(Arc::new(settings), &flags.identity_token, metrics).context("cannot set the broker up")
}

/// Which namespaces may send as which mailbox: without rules every one as every one.
pub(super) fn mailbox_rules(flags: &Run) -> anyhow::Result<MailboxRules> {
    let Some(path) = &flags.mailbox_rules else { return Ok(MailboxRules::default()) };
    let unusable = || format!("cannot use the rules about mailboxes {}", path.display());
    let text = std::fs::read_to_string(path).with_context(unusable)?;
    MailboxRules::parse(&text).with_context(unusable)
}
