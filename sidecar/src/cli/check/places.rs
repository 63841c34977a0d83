//! The places on the way to Microsoft 365, by each method, and where a walk ended. Pure.

use mailroute_route::condition::{ConditionType, Reason};
use mailroute_route::file::{Credential, Method};
use serde::Serialize;

use crate::delivery::DryRun;
use crate::outcome::Verdict;
use crate::outcome::classify::Stage;

/// A place on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Place {
    /// The rendered route.
    Route,
    /// The certificate that is presented, to Entra or to the upstream.
    Certificate,
    /// The access token.
    Token,
    /// The mailbox's password.
    Password,
    /// The upstream's name and addresses.
    Name,
    /// TCP.
    Connection,
    /// Greeting and EHLO.
    Greeting,
    /// STARTTLS and the handshake.
    Tls,
    /// What Microsoft Graph lets the application do with the mailbox.
    Permission,
    /// AUTH.
    LogIn,
    /// MAIL.
    Sender,
    /// RCPT.
    Recipient,
    /// What the sidecar that runs beside it makes of mail now.
    Sidecar,
}

impl Place {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route file",
            Self::Certificate => "certificate",
            Self::Token => "token",
            Self::Password => "password",
            Self::Name => "name",
            Self::Connection => "connection",
            Self::Greeting => "greeting",
            Self::Tls => "TLS",
            Self::Permission => "permission",
            Self::LogIn => "log-in",
            Self::Sender => "sender",
            Self::Recipient => "recipient",
            Self::Sidecar => "sidecar",
        }
    }
}

/// The places on the way by this method, in order.
pub fn places(method: &Method) -> Vec<Place> {
    let mut places = vec![Place::Route];
    match method.log_in().map(|log_in| log_in.credential) {
        Some(Credential::ClientCertificate { .. }) => places.extend([Place::Certificate, Place::Token]),
        Some(Credential::Password { .. }) => places.push(Place::Password),
        Some(
            Credential::WorkloadIdentity { .. }
            | Credential::ClientSecret { .. }
            | Credential::Operator { .. },
        ) => places.push(Place::Token),
        None => {}
    }
    match method {
        Method::SmtpRelay(relay) if relay.certificate.is_some() => places.push(Place::Certificate),
        Method::Graph(_) => {
            places.extend([Place::Name, Place::Connection, Place::Tls, Place::Permission]);
            return places;
        }
        Method::ClientSubmission(_) | Method::SmtpRelay(_) | Method::DirectSend(_) => {}
    }
    places.extend([Place::Name, Place::Connection, Place::Greeting, Place::Tls]);
    if matches!(method, Method::ClientSubmission(_)) {
        places.push(Place::LogIn);
    }
    places.extend([Place::Sender, Place::Recipient]);
    places
}

/// Whether a place comes after where the way ended.
pub fn follows(place: Place, end: Place, places: &[Place]) -> bool {
    let at = |wanted| places.iter().position(|&place| place == wanted);
    at(place) > at(end)
}

/// Where the way ended: where the reason belongs, or else at the first place without evidence.
pub fn end(stopped: &Verdict, dry_run: &DryRun, places: &[Place]) -> Place {
    let answered = |stage| dry_run.answers.iter().any(|(of, _)| *of == stage);
    let met =
        |condition| dry_run.observations.iter().any(|met| met.condition() == condition && met.reason.holds());
    let credential = || places.iter().copied().find(|place| matches!(place, Place::Token | Place::Password));
    let reason = stopped.outcome.reason();
    match reason.map(Reason::condition) {
        Some(ConditionType::CertificateValid) if places.contains(&Place::Certificate) => {
            return Place::Certificate;
        }
        Some(ConditionType::CredentialReady) => return credential().unwrap_or(Place::Route),
        _ => {}
    }
    if met(ConditionType::UpstreamReachable) {
        if places.contains(&Place::Permission) {
            return Place::Permission;
        }
        let logs_in = places.contains(&Place::LogIn);
        return match (logs_in && !met(ConditionType::Authenticated), answered(Stage::Mail)) {
            (true, _) => Place::LogIn,
            (false, false) => Place::Sender,
            (false, true) => Place::Recipient,
        };
    }
    match (reason, credential()) {
        (Some(Reason::NameNotResolved | Reason::SmartHostNotFound | Reason::SmartHostForeign), _) => {
            Place::Name
        }
        (Some(Reason::ConnectFailed), _) => Place::Connection,
        (Some(Reason::StartTlsMissing | Reason::TlsFailed | Reason::CaBundleMissing), _) => Place::Tls,
        (_, Some(credential)) if !met(ConditionType::CredentialReady) => credential,
        _ if places.contains(&Place::Permission) => Place::Permission,
        _ => Place::Greeting,
    }
}
