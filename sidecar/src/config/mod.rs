//! The route file: read, watched, and never lost once it was good.
//!
//! [`Config::next`] decides, a pure function of what was there and what was read; [`watch_file`] reads. The kubelet
//! replaces a mounted ConfigMap by swapping a symbolic link, so the path is read anew each time rather than held open.
//!
//! Invariant: a route that was published stays in use until a valid one replaces it.

pub mod mounted;
mod values;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mailroute_route::RouteFile;
use mailroute_route::text::shortened;
use tokio::sync::watch;

use self::mounted::Misplaced;
use crate::logging;

/// Longest part of a name that is quoted, bytes. The names of hosts have 253.
const MAX_NAME_BYTES: usize = 256;

/// Largest route file, bytes: what a ConfigMap can hold.
const MAX_BYTES: u64 = 1024 * 1024;

/// The configuration in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The last valid route; none before the first.
    pub route: Option<Arc<RouteFile>>,
    /// Why the newest content is not in use, when it is not.
    pub error: Option<String>,
    /// What of the route is not followed, and why.
    pub ignored: Option<String>,
}

/// A route file that was read, as far as it is followed.
#[derive(Debug)]
pub struct Followed {
    /// The route, with the control service that this sidecar talks to.
    pub route: RouteFile,
    /// What of the file is not followed, and why.
    pub ignored: Option<String>,
}

/// Why content cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not there, or not readable.
    #[error("cannot read the route file {path}: {source}")]
    Read {
        /// Where it should be.
        path: PathBuf,
        /// What came back.
        source: std::io::Error,
    },
    /// Larger than a ConfigMap can be.
    #[error("the route file is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// Not a route file.
    #[error(transparent)]
    Parse(#[from] mailroute_route::ParseError),
    /// A file that the route may not name.
    #[error(transparent)]
    Misplaced(#[from] Misplaced),
    /// A value that would break the protocol it goes into.
    #[error("{field} is not usable: {value:?}")]
    Value {
        /// Name in the route file.
        field: &'static str,
        /// What it holds.
        value: String,
    },
}

impl Config {
    /// What follows from reading the file. A route that is the same as before changes nothing but the error.
    pub fn next(&self, read: Result<Followed, ConfigError>) -> Self {
        match read {
            Ok(Followed { route, ignored }) => {
                let current = self.route.as_ref().filter(|current| ***current == route).map(Arc::clone);
                Self { route: current.or_else(|| Some(Arc::new(route))), error: None, ignored }
            }
            Err(error) => Self { error: Some(error.to_string()), ..self.clone() },
        }
    }

    /// What is told of it to those who can change the route: why it is not used, or else what of it is not followed.
    pub fn objection(&self) -> Option<&str> {
        self.error.as_deref().or(self.ignored.as_deref())
    }
}

/// What the pod's command line says, whatever the route does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSettings {
    /// `host:port` of the only control service to talk to. Whoever writes ConfigMaps writes the route, and the pod's token goes to the
    /// address in it.
    pub control: Option<String>,
    /// Most octets of kept messages.
    pub max_spool_bytes: Option<u64>,
}

impl Followed {
    /// The route as it is followed by a pod with these settings.
    pub fn of(mut route: RouteFile, pod: &PodSettings) -> Self {
        if let Some(bytes) = pod.max_spool_bytes {
            route.delivery.max_spool_bytes = bytes;
        }
        let named = route.control.as_mut().map(|service| &mut service.address);
        let ignored = named.zip(pod.control.as_deref()).filter(|(named, ours)| named.as_str() != *ours).map(
            |(named, ours)| {
                let theirs = std::mem::replace(named, ours.to_owned());
                let theirs = shortened(&theirs, MAX_NAME_BYTES);
                format!("control.address {theirs:?} is not used: this pod talks to {ours} alone")
            },
        );
        Self { route, ignored }
    }
}

/// Parses content, and refuses values that could not be written into a command or a URL, or contradict each other, and
/// files that the webhook does not mount.
///
/// # Errors
/// When it is not a usable route.
pub fn parse(content: &[u8]) -> Result<RouteFile, ConfigError> {
    let route = parse_values(content)?;
    mounted::check(&route)?;
    Ok(route)
}

fn parse_values(content: &[u8]) -> Result<RouteFile, ConfigError> {
    let route = RouteFile::parse(content)?;
    values::check(&route)?;
    Ok(route)
}

async fn read(path: &Path, pod: &PodSettings) -> Result<Followed, ConfigError> {
    Ok(Followed::of(read_file(path).await?, pod))
}

async fn read_file(path: &Path) -> Result<RouteFile, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    if tokio::fs::metadata(path).await.map_err(failed)?.len() > MAX_BYTES {
        return Err(ConfigError::TooLarge);
    }
    let content = tokio::fs::read(path).await.map_err(failed)?;
    if !mounted::is_mounted(path) {
        return parse_values(&content);
    }
    let route = parse(&content)?;
    mounted::follow(&route).await?;
    Ok(route)
}

/// The configuration at start, of a pod with these settings.
pub async fn load(path: &Path, pod: &PodSettings) -> Config {
    Config::default().next(read(path, pod).await)
}

/// Reads the file every `period` until `stop`, and publishes what changed. The file is small, so its content itself is
/// compared; that also finds changes that times and inodes do not show.
pub async fn watch_file(
    path: PathBuf,
    pod: PodSettings,
    period: Duration,
    config: watch::Sender<Config>,
    mut stop: watch::Receiver<bool>,
) {
    let mut rounds = tokio::time::interval(period);
    loop {
        tokio::select! {
            _ = rounds.tick() => {}
            _ = stop.wait_for(|&stop| stop) => return,
        }
        let content = read(&path, &pod).await;
        config.send_if_modified(|current| {
            let next = current.next(content);
            let changed = next != *current;
            if changed {
                log(current, &next);
                *current = next;
            }
            changed
        });
    }
}

/// Says what changed, once, and in every line from now on no more of an address than the route wants.
pub fn log(before: &Config, now: &Config) {
    if let Some(route) = &now.route {
        logging::show_addresses(route.log_addresses);
    }
    match (&now.error, &now.route) {
        (Some(error), Some(route)) => {
            tracing::error!(
                error,
                in_use = route.generation,
                "the new route file is not valid; the last good one stays in use"
            );
        }
        (Some(error), None) => {
            tracing::error!(error, "no valid route yet: mail is answered with 451 until there is one");
        }
        (None, Some(route)) if before.route != now.route => {
            tracing::info!(route = route.name, generation = route.generation, "route in use");
        }
        (None, _) if before.error.is_some() => {
            tracing::info!("the route file is valid again and unchanged");
        }
        (None, _) => {}
    }
    match &now.ignored {
        Some(ignored) if before.ignored.as_ref() != Some(ignored) => {
            tracing::error!(ignored, "parts of the route file are ignored");
        }
        _ => {}
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use mailroute_route::file::ControlService;

    use super::*;

    pub(crate) const SAMPLE: &str = r#"{
        "version": 1, "name": "notifications", "namespace": "shop", "generation": 3,
        "ehloName": "notifications.shop.svc.cluster.local",
        "method": {"clientSubmission": {
            "mailbox": "noreply@contoso.com",
            "credential": {"type": "WorkloadIdentity", "clientId": "1b2c", "tokenFile": "/var/run/secrets/mailroute/tokens/entra"},
            "authority": {"host": "login.microsoftonline.com", "tenant": "contoso.com", "scope": "https://outlook.office365.com/.default"},
            "endpoint": {"host": "smtp.office365.com", "port": 587}}},
        "delivery": {"mode": "Deliver"},
        "limits": {"maxMessageBytes": 1000, "maxRecipients": 10},
        "listen": {"port": 25}
    }"#;

    fn followed(content: &str) -> Result<Followed, ConfigError> {
        parse(content.as_bytes()).map(|route| Followed::of(route, &PodSettings::default()))
    }

    #[test]
    fn no_route_sends_the_pods_token_to_another_control_service() {
        const OURS: &str = "mailroute.mailroute-system.svc:8444";
        let ours_alone = || PodSettings { control: Some(OURS.into()), ..PodSettings::default() };
        let route = |address: &str| {
            let mut route = parse(SAMPLE.as_bytes()).unwrap();
            route.control = Some(ControlService {
                address: address.into(),
                ca_pem: "PEM".into(),
                token_file: "/var/run/secrets/mailroute/tokens/control".into(),
                leases: true,
            });
            route
        };
        let ours = Followed::of(route(OURS), &ours_alone());
        assert_eq!((ours.route, ours.ignored), (route(OURS), None));
        let good = Config::default().next(Ok(Followed::of(route("evil.example:443"), &ours_alone())));
        assert_eq!(good.route.as_deref(), Some(&route(OURS)), "all else is followed");
        let told = good.objection().unwrap();
        assert!(told.contains("\"evil.example:443\"") && told.contains(OURS), "{told}");
        assert_eq!(good.next(Ok(Followed::of(route(OURS), &ours_alone()))).objection(), None);
        // Without one, as outside a cluster, the route says it.
        let alone = Followed::of(route("127.0.0.1:8444"), &PodSettings::default());
        assert_eq!((alone.route, alone.ignored), (route("127.0.0.1:8444"), None));
        assert_eq!(Followed::of(parse(SAMPLE.as_bytes()).unwrap(), &ours_alone()).route.control, None);
    }

    #[test]
    fn the_volume_of_the_pod_bounds_its_spool_and_not_the_route() {
        let pod = PodSettings { max_spool_bytes: Some(9 << 30), ..PodSettings::default() };
        let followed = Followed::of(parse(SAMPLE.as_bytes()).unwrap(), &pod);
        assert_eq!(followed.route.delivery.max_spool_bytes, 9 << 30);
    }

    #[test]
    fn a_bad_file_keeps_the_last_good_route_and_shows() {
        let good = Config::default().next(followed(SAMPLE));
        let bad = good.next(followed("{"));
        assert_eq!(bad.route, good.route);
        assert!(bad.error.as_deref().unwrap().starts_with("route file is not valid"));
        assert_eq!(bad.next(followed(SAMPLE)), good);
    }

    #[test]
    fn nothing_valid_yet_is_a_state_of_its_own() {
        let config = Config::default().next(followed(""));
        assert!(config.route.is_none() && config.error.is_some());
    }

    #[test]
    fn a_name_that_would_add_a_command_is_refused() {
        for (good, bad) in [
            ("notifications.shop.svc.cluster.local", "x\\r\\nQUIT"),
            ("noreply@contoso.com", "a@b> SIZE=1"),
            ("login.microsoftonline.com", "login.microsoftonline.com/x"),
        ] {
            let error = parse(SAMPLE.replacen(good, bad, 1).as_bytes()).unwrap_err();
            assert!(matches!(error, ConfigError::Value { .. }), "{bad}: {error}");
        }
    }

    #[test]
    fn any_mailbox_that_a_route_may_name_is_taken() {
        for mailbox in ["sean.o'brien@contoso.com", "a/b`c{d}@contoso.com"] {
            assert!(
                parse(SAMPLE.replacen("noreply@contoso.com", mailbox, 1).as_bytes()).is_ok(),
                "{mailbox}"
            );
        }
        assert!(parse(SAMPLE.replacen("noreply@contoso.com", "noreply", 1).as_bytes()).is_err());
    }

    fn with_method(method: &str) -> Result<RouteFile, ConfigError> {
        let mut route: serde_json::Value = serde_json::from_str(SAMPLE).unwrap();
        route["method"] = serde_json::from_str(method).unwrap();
        parse(route.to_string().as_bytes())
    }

    #[test]
    fn every_method_is_taken() {
        for method in [
            r#"{"directSend": {"acceptedDomains": ["contoso.com"], "smartHost": {"host": {"mxOf": "contoso.com"}, "port": 25, "tls": "Opportunistic"}}}"#,
            r#"{"smtpRelay": {"acceptedDomains": ["contoso.com"], "smartHost": {"host": {"fixed": "mx.example"}, "port": 25}}}"#,
            r#"{"smtpRelay": {"acceptedDomains": ["contoso.com"], "certificate": {"certificateFile": "/var/run/secrets/mailroute/credential/tls.crt", "keyFile": "/var/run/secrets/mailroute/credential/tls.key"}, "smartHost": {"host": {"mxOf": "contoso.com"}, "port": 25}}}"#,
        ] {
            assert!(with_method(method).is_ok(), "{method}");
        }
    }

    #[test]
    fn a_smart_host_without_name_or_trust_is_refused() {
        for (field, method) in [
            (
                "smartHost.host",
                r#"{"directSend": {"acceptedDomains": ["contoso.com"], "smartHost": {"host": {"fixed": "203.0.113.7"}, "port": 25}}}"#,
            ),
            (
                "acceptedDomains",
                r#"{"directSend": {"acceptedDomains": [], "smartHost": {"host": {"mxOf": "contoso.com"}, "port": 25}}}"#,
            ),
            (
                "smartHost.tls",
                r#"{"smtpRelay": {"acceptedDomains": ["contoso.com"], "certificate": {"certificateFile": "/var/run/secrets/mailroute/credential/tls.crt", "keyFile": "/var/run/secrets/mailroute/credential/tls.key"}, "smartHost": {"host": {"fixed": "mx.example"}, "port": 25, "tls": "Opportunistic"}}}"#,
            ),
        ] {
            let error = with_method(method).unwrap_err();
            assert!(matches!(error, ConfigError::Value { field: met, .. } if met == field), "{error}");
        }
    }

    #[tokio::test]
    async fn a_swapped_link_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second, path) =
            (directory.path().join("1"), directory.path().join("2"), directory.path().join("route.json"));
        std::fs::write(&first, SAMPLE).unwrap();
        std::fs::write(&second, SAMPLE.replace("\"generation\": 3", "\"generation\": 4")).unwrap();
        std::os::unix::fs::symlink(&first, &path).unwrap();
        let (sender, mut configs) = watch::channel(load(&path, &PodSettings::default()).await);
        let (_keep, stop) = watch::channel(false);
        let task = tokio::spawn(watch_file(
            path.clone(),
            PodSettings::default(),
            Duration::from_millis(5),
            sender,
            stop,
        ));
        let next = directory.path().join("next");
        std::os::unix::fs::symlink(&second, &next).unwrap();
        std::fs::rename(&next, &path).unwrap();
        let generation = |config: &Config| config.route.as_ref().map(|route| route.generation);
        configs.wait_for(|config| generation(config) == Some(4)).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let config = configs.wait_for(|config| config.error.is_some()).await.unwrap().clone();
        assert_eq!(generation(&config), Some(4));
        task.abort();
    }
}
