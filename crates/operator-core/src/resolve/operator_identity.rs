//! Which applications the operator can prove itself as, and which routes may use them. Pure.
//!
//! Closed by default: what is not listed is not allowed. A token is good for every mailbox that its application may send
//! as, so the application is the boundary that Exchange keeps; the list of mailboxes is kept by MailRoute.

use mailroute_route::address::is_address;
use mailroute_route::file;
use serde::Deserialize;

use crate::crd::MailRoute;
use crate::crd::cloud::Cloud;
use crate::crd::method::{ClientSubmission, Subject};

/// Where the chart mounts the operator's service-account token for Entra.
pub const TOKEN_FILE: &str = "/var/run/secrets/mailroute/identity/token";

/// Port of client submission where the settings do not say.
const SUBMISSION_PORT: u16 = 587;

/// Which applications there are: the settings file, YAML or JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OperatorIdentity {
    /// What the operator can prove itself as.
    #[serde(default)]
    pub applications: Vec<Application>,
}

/// An application whose federated credential names the operator's ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Application {
    /// Tenant: a GUID or a verified domain, as the routes write it in `spec.tenant.id`.
    pub tenant_id: String,
    /// Application (client) id.
    pub client_id: String,
    /// The cloud that the tenant lives in.
    #[serde(default)]
    pub cloud: Cloud,
    /// Who may use it.
    pub allow: Vec<MailboxRule>,
    /// Where tokens come from, over the cloud's preset.
    #[serde(default)]
    pub authority: Authority,
    /// Where mail is submitted, over the cloud's preset.
    #[serde(default)]
    pub endpoint: Endpoint,
}

/// Routes of these namespaces may send as these mailboxes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MailboxRule {
    /// Names of namespaces, or `*` for all.
    pub namespaces: Vec<String>,
    /// Addresses, or `*@domain` for all of a domain.
    pub mailboxes: Vec<String>,
}

/// Where tokens come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Authority {
    /// `host` or `host:port`.
    pub host: Option<String>,
    /// Scope to ask for.
    pub scope: Option<String>,
    /// PEM bundle to trust in place of the public roots.
    pub ca_pem: Option<String>,
}

/// Where mail is submitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// DNS name.
    pub host: Option<String>,
    /// TCP port.
    pub port: Option<u16>,
    /// PEM bundle to trust in place of the public roots.
    pub ca_pem: Option<String>,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OperatorIdentityError {
    /// Not YAML, or not of this shape.
    #[error("the broker settings are not valid: {0}")]
    Shape(#[from] serde_saphyr::Error),
    /// A value that cannot be.
    #[error("applications[{index}].{field}: {wrong}")]
    Value {
        /// Which application, from 0.
        index: usize,
        /// Which field of it.
        field: &'static str,
        /// What is wrong with it, and what to put there.
        wrong: String,
    },
}

/// Why a route may not use the operator's identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityNotAllowed {
    /// Nothing is set up.
    #[error("this installation allows no route to use the operator's identity")]
    Closed,
    /// Another application, tenant or cloud.
    #[error(
        "this installation has no identity for the application {client_id} in the tenant {tenant} ({cloud:?})"
    )]
    Application {
        /// What the route names.
        client_id: String,
        /// What the route names.
        tenant: String,
        /// What the route names.
        cloud: Cloud,
    },
    /// The namespace is not listed.
    #[error("the namespace {namespace} may not use the application {client_id}")]
    Namespace {
        /// Where the route is.
        namespace: String,
        /// What the route names.
        client_id: String,
    },
    /// The namespace is listed, and the mailbox is not.
    #[error("the namespace {namespace} may not send as {mailbox} with the application {client_id}")]
    Mailbox {
        /// Where the route is.
        namespace: String,
        /// What the route names.
        mailbox: String,
        /// What the route names.
        client_id: String,
    },
}

impl OperatorIdentity {
    /// Parses the settings file.
    ///
    /// # Errors
    /// With the field that is wrong.
    pub fn parse(text: &str) -> Result<Self, OperatorIdentityError> {
        let settings: Self = serde_saphyr::from_str(text)?;
        for (index, application) in settings.applications.iter().enumerate() {
            let wrong = application.wrong().or_else(|| {
                let is_same = |other: &Application| other.is(&application.tenant_id, &application.client_id);
                let twice = settings.applications[..index].iter().any(is_same);
                twice.then(|| ("clientId", "is listed before; put all its rules under one entry".to_owned()))
            });
            if let Some((field, wrong)) = wrong {
                return Err(OperatorIdentityError::Value { index, field, wrong });
            }
        }
        Ok(settings)
    }

    /// The application that `route` uses with the operator's identity; none when it uses its pods' own.
    ///
    /// # Errors
    /// When it may not.
    pub fn application_for(&self, route: &MailRoute) -> Result<Option<&Application>, IdentityNotAllowed> {
        match route.spec.client_submission.as_ref().filter(|it| it.credential.subject == Subject::Operator) {
            None => Ok(None),
            Some(submission) => self.lend(route, submission).map(Some),
        }
    }

    fn lend(
        &self,
        route: &MailRoute,
        submission: &ClientSubmission,
    ) -> Result<&Application, IdentityNotAllowed> {
        if self.applications.is_empty() {
            return Err(IdentityNotAllowed::Closed);
        }
        let (tenant, namespace) = (&route.spec.tenant, route.metadata.namespace.clone().unwrap_or_default());
        let client_id = submission.credential.client_id.clone().unwrap_or_default();
        let found =
            self.applications.iter().find(|it| it.is(&tenant.id, &client_id) && it.cloud == tenant.cloud);
        let Some(application) = found else {
            let (tenant, cloud) = (tenant.id.clone(), tenant.cloud);
            return Err(IdentityNotAllowed::Application { client_id, tenant, cloud });
        };
        let mut rules = application.allow.iter().filter(|rule| rule.is_for(&namespace)).peekable();
        if rules.peek().is_none() {
            return Err(IdentityNotAllowed::Namespace { namespace, client_id });
        }
        let rules: Vec<_> = rules.collect();
        if let Some(mailbox) = submission.addresses().find(|it| !rules.iter().any(|rule| rule.has(it))) {
            let mailbox = mailbox.to_owned();
            return Err(IdentityNotAllowed::Mailbox { namespace, mailbox, client_id });
        }
        Ok(application)
    }
}

impl Application {
    fn is(&self, tenant: &str, client_id: &str) -> bool {
        self.tenant_id.eq_ignore_ascii_case(tenant) && self.client_id.eq_ignore_ascii_case(client_id)
    }

    /// Where its tokens come from.
    pub fn token_authority(&self) -> file::Authority {
        let (preset, own) = (self.cloud.preset(), self.authority.clone());
        file::Authority {
            host: own.host.unwrap_or_else(|| preset.authority_host.to_owned()),
            tenant: self.tenant_id.clone(),
            scope: own.scope.unwrap_or_else(|| preset.scope.to_owned()),
            ca_file: None,
            proxy: None,
        }
    }

    /// Where mail is submitted with them; none where Microsoft publishes no host and the settings name none.
    pub fn submission_endpoint(&self) -> Option<file::Endpoint> {
        let own = self.endpoint.clone();
        Some(file::Endpoint {
            host: own.host.or_else(|| self.cloud.preset().submission_host.map(str::to_owned))?,
            port: own.port.unwrap_or(SUBMISSION_PORT),
            ca_file: None,
            ca_pem: own.ca_pem,
        })
    }

    /// The first field that cannot be as it is, and why.
    fn wrong(&self) -> Option<(&'static str, String)> {
        let said = |field, is_wrong: bool, what: &str| is_wrong.then(|| (field, what.to_owned()));
        let hosts = [self.authority.host.as_deref(), self.endpoint.host.as_deref()];
        let is_url = |host: &&str| host.is_empty() || host.contains(['/', '@', ' ']);
        said("tenantId", !is_name(&self.tenant_id), "must be the tenant's GUID or a verified domain")
            .or_else(|| {
                said("clientId", !is_guid(&self.client_id), "must be the application (client) id, a GUID")
            })
            .or_else(|| said("authority.host", hosts[0].iter().any(is_url), "must be a host or host:port"))
            .or_else(|| said("endpoint.host", hosts[1].iter().any(is_url), "must be a DNS name"))
            .or_else(|| {
                said(
                    "endpoint.host",
                    self.submission_endpoint().is_none(),
                    "the cloud has no published SMTP host; set it",
                )
            })
            .or_else(|| said("allow", self.allow.is_empty(), "is empty; list namespaces and mailboxes"))
            .or_else(|| {
                let (field, wrong) = self.allow.iter().find_map(MailboxRule::wrong)?;
                let field = if field == "namespaces" { "allow[].namespaces" } else { "allow[].mailboxes" };
                Some((field, wrong))
            })
    }
}

impl MailboxRule {
    /// Whether it is about this namespace.
    pub fn is_for(&self, namespace: &str) -> bool {
        self.namespaces.iter().any(|listed| listed == "*" || listed == namespace)
    }

    /// Whether it lists this mailbox.
    pub fn has(&self, mailbox: &str) -> bool {
        self.mailboxes.iter().any(|listed| match listed.strip_prefix('*') {
            // `@domain`, so that nothing but the local part is open.
            Some(domain) => {
                let at = mailbox.find('@').unwrap_or(mailbox.len());
                mailbox[at..].eq_ignore_ascii_case(domain)
            }
            None => listed.eq_ignore_ascii_case(mailbox),
        })
    }

    /// The first field that cannot be as it is, and what to put there.
    pub fn wrong(&self) -> Option<(&'static str, String)> {
        let is_namespace = |name: &String| {
            name == "*"
                || !name.is_empty()
                    && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let is_mailbox = |address: &String| {
            let local = address.split('@').next().unwrap_or_default();
            is_address(address) && (local == "*" || !local.contains('*'))
        };
        if self.namespaces.is_empty() || !self.namespaces.iter().all(is_namespace) {
            return Some(("namespaces", "list names of namespaces, or \"*\" for all of them".into()));
        }
        let listed = !self.mailboxes.is_empty() && self.mailboxes.iter().all(is_mailbox);
        (!listed).then(|| ("mailboxes", "list addresses, or *@contoso.com for all of a domain".into()))
    }
}

/// A GUID or a domain name, as far as it can do no harm in the path of a URL.
fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(plain)
        && !text.starts_with('.')
        && !text.contains("..")
}

fn is_guid(text: &str) -> bool {
    let groups: Vec<_> = text.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12] && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

#[cfg(test)]
#[path = "operator_identity_tests.rs"]
mod tests;
