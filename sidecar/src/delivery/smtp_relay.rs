//! SMTP relay and Direct Send: hand over to the tenant's smart host on port 25.
//!
//! Owns the order certificate → smart host → connect → TLS. There is no log-in: the upstream attributes a connection by
//! the certificate it saw or the address it came from, and says what it thinks of that at RCPT.
//!
//! Invariants: a certificate is presented over TLS that was verified, or not at all; without a certificate in force
//! nothing is sent where the route has one.

use std::sync::Arc;

use async_trait::async_trait;
use mailroute_dns::resolver::Resolver;
use mailroute_route::condition::Reason;
use mailroute_route::file::{Chunking, DirectSend, SmartHost, SmtpRelay};

use super::client_certificate::{ClientCertificate, CurrentCertificate};
use super::connect::Target;
use super::connection::Connection;
use super::error::ConnectionError;
use super::smart_host::{Located, SmartHosts};
use super::transport::{Connect, connected, lost, noted};
use crate::net::certificate::{Certificate, CertificateObserver};
use crate::net::tls::{self, Trust};
use crate::outcome::{DeliveryOutcome, Observation, Verdict};

/// Makes connections to a smart host.
pub struct SmartHostConnector {
    smart_host: SmartHost,
    names: SmartHosts,
    client_certificate: Option<ClientCertificate>,
    ehlo_name: String,
}

impl SmartHostConnector {
    /// As `settings` of an SMTP relay say.
    pub fn relay(
        settings: SmtpRelay,
        ehlo_name: String,
        resolver: Resolver,
        observe: Arc<dyn CertificateObserver>,
    ) -> Self {
        let SmtpRelay { certificate, accepted_domains, smart_host } = settings;
        let client_certificate =
            certificate.map(|files| ClientCertificate::new(files, accepted_domains, observe));
        let names = SmartHosts::new(smart_host.host.clone(), resolver);
        Self { smart_host, names, client_certificate, ehlo_name }
    }

    /// As `settings` of Direct Send say.
    pub fn direct(settings: DirectSend, ehlo_name: String, resolver: Resolver) -> Self {
        let names = SmartHosts::new(settings.smart_host.host.clone(), resolver);
        Self { smart_host: settings.smart_host, names, client_certificate: None, ehlo_name }
    }

    /// The certificate to present, if the route has one.
    async fn certificate(&self, observations: &mut Vec<Observation>) -> Result<Option<Certificate>, Verdict> {
        let Some(client_certificate) = &self.client_certificate else { return Ok(None) };
        let CurrentCertificate { certificate, observation: judged } = client_certificate.current().await;
        let (reason, text) = (judged.reason, judged.text.clone());
        observations.push(judged);
        match certificate {
            // Exchange matches no connector by it, and each refusal counts against the address.
            Some(_) if reason == Reason::CertificateExpired => {}
            Some(certificate) => return Ok(Some(certificate)),
            None => {}
        }
        Err(Verdict::without_reply(DeliveryOutcome::RouteFault(reason), text))
    }

    async fn to_smart_host(
        &self,
        located: &Located,
        certificate: Option<&Certificate>,
    ) -> Result<Connection, ConnectionError> {
        let trust = Trust::from_file(self.smart_host.ca_file.as_ref());
        let target = Target {
            host: &located.name,
            addresses: &located.addresses,
            port: self.smart_host.port,
            ehlo_name: &self.ehlo_name,
            tls: self.smart_host.tls,
            config: tls::client_config_with(&trust, certificate.map(|own| Arc::clone(&own.signer))).await?,
        };
        let mut connection = target.connect().await?;
        connection.certificate = certificate.map(|own| Arc::new(own.leaf.clone()));
        Ok(connection)
    }
}

#[async_trait]
impl Connect for SmartHostConnector {
    async fn connect(&self, observations: &mut Vec<Observation>) -> Result<Connection, Verdict> {
        let certificate = self.certificate(observations).await?;
        let located = self.names.locate().await.map_err(|verdict| noted(verdict, observations))?;
        let connection = self.to_smart_host(&located, certificate.as_ref()).await;
        let connection = connection.map_err(|error| noted(lost(error), observations))?;
        observations.push(connected(&connection, "answered"));
        Ok(connection)
    }

    fn recognised(&self, connection: &Connection) -> Option<Observation> {
        let from = connection.egress.map_or_else(|| "here".to_owned(), |ip| ip.to_string());
        let by = connection.certificate.as_ref().map(|leaf| format!(" with the {leaf}")).unwrap_or_default();
        let text = format!("{} took a recipient from {from}{by}", connection.host);
        Some(Observation::new(Reason::ConnectorMatched, text))
    }

    fn chunking(&self) -> Chunking {
        self.smart_host.chunking
    }
}
