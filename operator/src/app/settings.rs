//! From flags to the settings of the parts: certificates, sidecars, and the operator's identity.

use std::sync::Arc;

use anyhow::Context as _;
use mailroute_operator_core::inject;
use mailroute_operator_core::resolve::PlatformSettings;
use mailroute_operator_core::resolve::mailbox_rules::MailboxRules;
use mailroute_operator_core::resolve::operator_identity::OperatorIdentity;

use super::App;
use crate::args::{Certificates, Run};
use crate::pki::{self, BundleWritten, CertificateSource};
use crate::webhook::configuration_check;

/// Port of the Service for the control service.
const CONTROL_SERVICE_PORT: u16 = 8444;

impl App {
    /// Whose certificates are served, and who hears of writes to the `caBundle`.
    pub(super) fn pki_settings(&self) -> pki::PkiSettings {
        let flags = &self.flags;
        let given =
            |publishes| CertificateSource::External { secret: flags.certificate_secret.clone(), publishes };
        let (metrics, events) = (self.metrics.clone(), self.events.clone());
        pki::PkiSettings {
            namespace: flags.namespace.clone(),
            source: match flags.certificates {
                Certificates::Own => CertificateSource::Own,
                Certificates::CertManager => given(false),
                Certificates::Secret => given(true),
            },
            ca_secret: flags.ca_secret.clone(),
            lifetimes: self.lifetimes,
            webhook_configuration: flags.webhook_configuration.clone(),
            names: pki::service_names(&flags.service, &flags.namespace, &flags.cluster_domain),
            tell: Arc::new(move |written| {
                metrics.ca_bundle(written);
                if let BundleWritten::Repair(configuration) = written {
                    configuration_check::tell_of_repair(configuration, &events);
                }
            }),
        }
    }

    /// What the installation chooses for every sidecar.
    pub(super) fn sidecar(&self) -> inject::SidecarSettings {
        self.flags.injection.platform(&self.flags.sidecar_image, &control_address(&self.flags))
    }
}

/// The control service, as pods reach it.
fn control_address(flags: &Run) -> String {
    format!("{}.{}.svc:{CONTROL_SERVICE_PORT}", flags.service, flags.namespace)
}

/// What routes are resolved with.
pub(super) fn platform(flags: &Run) -> anyhow::Result<PlatformSettings> {
    Ok(PlatformSettings {
        operator_identity: operator_identity(flags)?,
        mailbox_rules: mailbox_rules(flags)?,
        entra_audiences: flags.injection.entra_audiences.clone(),
        control_address: control_address(flags),
        cluster_domain: flags.cluster_domain.clone(),
    })
}

/// The applications of the operator's identity: none without settings.
fn operator_identity(flags: &Run) -> anyhow::Result<OperatorIdentity> {
    let Some(path) = &flags.broker_settings else { return Ok(OperatorIdentity::default()) };
    let unusable = || format!("cannot use the settings of the broker {}", path.display());
    let text = std::fs::read_to_string(path).with_context(unusable)?;
    OperatorIdentity::parse(&text).with_context(unusable)
}

/// Which namespaces may send as which mailbox. Without rules, every namespace may send as every mailbox.
fn mailbox_rules(flags: &Run) -> anyhow::Result<MailboxRules> {
    let Some(path) = &flags.mailbox_rules else { return Ok(MailboxRules::default()) };
    let unusable = || format!("cannot use the rules about mailboxes {}", path.display());
    let text = std::fs::read_to_string(path).with_context(unusable)?;
    MailboxRules::parse(&text).with_context(unusable)
}
