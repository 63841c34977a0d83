//! Which files a route may name: those that the webhook mounts for it.
//!
//! Whoever writes ConfigMaps in a namespace can write `route.json` by hand. The sidecar reads the files that it names and
//! shows their content to the servers that it names, so no other file may be among them: not the ServiceAccount token for
//! the API server, not the one for the control service where Entra's is asked for, nothing of the spool.
//!
//! A route file that lies elsewhere was named on the command line by whoever runs this program outside a cluster, and may name
//! any file that he can read.

use std::io;
use std::path::{Component, Path, PathBuf};

use mailroute_route::RouteFile;
use mailroute_route::file::{CertificateFiles, Credential, LogInSettings, Method, SmartHost};
use mailroute_route::paths;

/// A file that a route names and may not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {}, but must be {}, where the operator mounts it", file.display(), place.display())]
pub struct Misplaced {
    /// Name in the route file.
    pub field: &'static str,
    /// What it names.
    pub file: PathBuf,
    /// The file or the directory that it may name.
    pub place: PathBuf,
}

/// A file that a route names.
struct Named<'a> {
    field: &'static str,
    file: &'a Path,
    directory: &'static str,
    /// The one name that it may have there; none where several are mounted.
    name: Option<&'static str>,
}

/// Whether a route file is the one that the webhook mounts.
pub fn is_mounted(route: &Path) -> bool {
    route.starts_with(paths::ROUTE_DIR)
}

/// Looks at every path that the route names, as it is written.
///
/// # Errors
/// The first that it may not name.
pub fn check(route: &RouteFile) -> Result<(), Misplaced> {
    files(route).iter().find(|named| !named.is_allowed()).map_or(Ok(()), |named| Err(named.misplaced()))
}

/// Follows the links on the way to every file that is there.
///
/// # Errors
/// The first file that lies elsewhere than its path says.
pub async fn follow(route: &RouteFile) -> Result<(), Misplaced> {
    for named in files(route) {
        if !lies_in(named.file, Path::new(named.directory)).await {
            return Err(named.misplaced());
        }
    }
    Ok(())
}

/// Whether the file is in the directory when all links are followed. One that is not there leads nowhere else: a Secret that
/// is missing is a condition of its own.
async fn lies_in(file: &Path, directory: &Path) -> bool {
    match tokio::fs::canonicalize(file).await {
        Ok(found) => {
            tokio::fs::canonicalize(directory).await.is_ok_and(|directory| found.starts_with(directory))
        }
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

impl Named<'_> {
    fn is_allowed(&self) -> bool {
        let directory = Path::new(self.directory);
        let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        self.file.components().all(is_plain)
            && match self.name {
                Some(name) => self.file == directory.join(name),
                None => self.file.starts_with(directory) && self.file != directory,
            }
    }

    fn misplaced(&self) -> Misplaced {
        let place =
            self.name.map_or_else(|| self.directory.into(), |name| Path::new(self.directory).join(name));
        Misplaced { field: self.field, file: self.file.to_owned(), place }
    }
}

/// Every file that a route names.
fn files(route: &RouteFile) -> Vec<Named<'_>> {
    let (mut files, mut ca_files) = (vec![], vec![]);
    if let Some(LogInSettings { credential, authority, endpoint, .. }) = route.method.log_in() {
        files = of_credential(credential);
        ca_files = vec![
            ("authority.caFile", authority.ca_file.as_deref(), paths::AUTHORITY_CA_DIR),
            ("endpoint.caFile", endpoint.ca_file.as_deref(), paths::ENDPOINT_CA_DIR),
        ];
    }
    match &route.method {
        Method::ClientSubmission(_) => {}
        Method::Graph(graph) => {
            let fallback = graph.fallback.as_ref().and_then(|it| it.endpoint.ca_file.as_deref());
            ca_files.push(("fallback.endpoint.caFile", fallback, paths::FALLBACK_CA_DIR));
        }
        Method::SmtpRelay(relay) => {
            files = relay.certificate.as_ref().map(of_certificate).unwrap_or_default();
            ca_files.push(of_smart_host(&relay.smart_host));
        }
        Method::DirectSend(direct) => ca_files.push(of_smart_host(&direct.smart_host)),
    }
    for (field, file, directory) in ca_files {
        files.extend(file.map(|file| Named { field, file, directory, name: Some(paths::CA_FILE) }));
    }
    files.extend(
        route
            .control
            .as_ref()
            .map(|control| token("control.tokenFile", &control.token_file, paths::CONTROL_TOKEN_FILE)),
    );
    files
}

fn of_smart_host(host: &SmartHost) -> (&'static str, Option<&Path>, &'static str) {
    ("smartHost.caFile", host.ca_file.as_deref(), paths::ENDPOINT_CA_DIR)
}

fn of_credential(credential: &Credential) -> Vec<Named<'_>> {
    match credential {
        Credential::WorkloadIdentity { token_file, .. } => {
            vec![token("credential.tokenFile", token_file, paths::ENTRA_TOKEN_FILE)]
        }
        Credential::ClientSecret { secret_file, .. } => vec![secret("credential.secretFile", secret_file)],
        Credential::Password { password_file } => vec![secret("credential.passwordFile", password_file)],
        Credential::ClientCertificate { files, .. } => of_certificate(files),
        Credential::Operator { .. } => vec![],
    }
}

fn of_certificate(files: &CertificateFiles) -> Vec<Named<'_>> {
    vec![secret("certificateFile", &files.certificate_file), secret("keyFile", &files.key_file)]
}

/// The one token that is projected for a purpose.
const fn token<'a>(field: &'static str, file: &'a Path, name: &'static str) -> Named<'a> {
    Named { field, file, directory: paths::TOKENS_DIR, name: Some(name) }
}

/// Any file of the Secret that is mounted.
const fn secret<'a>(field: &'static str, file: &'a Path) -> Named<'a> {
    Named { field, file, directory: paths::CREDENTIAL_DIR, name: None }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use mailroute_route::file::{
        Authority, Chunking, ClientSubmission, Endpoint, HostName, SmtpRelay, TlsMode,
    };

    use super::*;
    use crate::config::tests::SAMPLE;

    fn route() -> RouteFile {
        RouteFile::parse(SAMPLE.as_bytes()).unwrap()
    }

    fn submission(change: impl FnOnce(&mut ClientSubmission)) -> RouteFile {
        let mut route = route();
        let Method::ClientSubmission(submission) = &mut route.method else { panic!("another method") };
        change(submission);
        route
    }

    fn with(credential: Credential) -> RouteFile {
        submission(|submission| submission.credential = credential)
    }

    /// A route with this file in each place where it can name one.
    fn everywhere(file: &str) -> Vec<(&'static str, RouteFile)> {
        let (file, client_id) = (PathBuf::from(file), String::new);
        let fits = PathBuf::from("/var/run/secrets/mailroute/credential/tls.crt");
        let files = |certificate: &Path, key: &Path| CertificateFiles {
            certificate_file: certificate.to_owned(),
            key_file: key.to_owned(),
        };
        let certificate = |files| Credential::ClientCertificate { client_id: client_id(), files };
        let mut control = route();
        control.control = Some(mailroute_route::file::ControlService {
            address: "mailroute.svc:8444".into(),
            ca_pem: String::new(),
            token_file: file.clone(),
            leases: false,
        });
        let mut relay = route();
        relay.method = Method::SmtpRelay(SmtpRelay {
            certificate: None,
            accepted_domains: vec!["contoso.com".into()],
            smart_host: SmartHost {
                host: HostName::MxOf("contoso.com".into()),
                port: 25,
                tls: TlsMode::Required,
                ca_file: Some(file.clone()),
                chunking: Chunking::Never,
            },
        });
        let authority = |authority: &mut Authority| authority.ca_file = Some(file.clone());
        let endpoint = |endpoint: &mut Endpoint| endpoint.ca_file = Some(file.clone());
        vec![
            (
                "credential.tokenFile",
                with(Credential::WorkloadIdentity { client_id: client_id(), token_file: file.clone() }),
            ),
            (
                "credential.secretFile",
                with(Credential::ClientSecret { client_id: client_id(), secret_file: file.clone() }),
            ),
            ("credential.passwordFile", with(Credential::Password { password_file: file.clone() })),
            ("certificateFile", with(certificate(files(&file, &fits)))),
            ("keyFile", with(certificate(files(&fits, &file)))),
            ("authority.caFile", submission(|submission| authority(&mut submission.authority))),
            ("endpoint.caFile", submission(|submission| endpoint(&mut submission.endpoint))),
            ("smartHost.caFile", relay),
            ("control.tokenFile", control),
        ]
    }

    #[test]
    fn no_file_of_the_pod_but_what_is_mounted_for_it_can_be_named() {
        for file in [
            "/var/run/secrets/kubernetes.io/serviceaccount/token",
            "/var/run/secrets/mailroute/credential/../../kubernetes.io/serviceaccount/token",
            "/var/run/secrets/mailroute/tokens/../tokens/../../kubernetes.io/serviceaccount/token",
            "/var/run/secrets/mailroute/credential",
            "/var/run/secrets/mailroute/credential-of-another/secret",
            "/var/spool/mailroute/queue/1",
            "/etc/mailroute/route/route.json",
            "/proc/self/environ",
            "var/run/secrets/mailroute/credential/secret",
            "",
        ] {
            for (field, route) in everywhere(file) {
                let told = check(&route).unwrap_err();
                assert_eq!((told.field, told.file.as_path()), (field, Path::new(file)));
            }
        }
    }

    #[test]
    fn the_token_for_the_control_service_is_not_shown_to_an_authority() {
        let control = "/var/run/secrets/mailroute/tokens/control";
        for (field, route) in everywhere(control) {
            let told = check(&route);
            assert_eq!(told.is_ok(), field == "control.tokenFile", "{field}");
        }
    }

    #[test]
    fn what_the_operator_mounts_can_be_named() {
        assert_eq!(check(&route()), Ok(()));
        let allowed = |file: &str| {
            let fields = everywhere(file).into_iter();
            let is_allowed = |route: &RouteFile| check(route).is_ok();
            fields.filter(|(_, route)| is_allowed(route)).map(|(field, _)| field).collect::<Vec<_>>()
        };
        assert_eq!(allowed("/var/run/secrets/mailroute/tokens/entra"), ["credential.tokenFile"]);
        let secrets = ["credential.secretFile", "credential.passwordFile", "certificateFile", "keyFile"];
        assert_eq!(allowed("/var/run/secrets/mailroute/credential/secret"), secrets);
        assert_eq!(allowed("/etc/mailroute/authority-ca/ca.crt"), ["authority.caFile"]);
        assert_eq!(allowed("/etc/mailroute/endpoint-ca/ca.crt"), ["endpoint.caFile", "smartHost.caFile"]);
    }

    #[test]
    fn only_the_mounted_route_file_is_bound_to_what_is_mounted() {
        assert!(is_mounted(Path::new("/etc/mailroute/route/route.json")));
        assert!(!is_mounted(Path::new("/home/me/route.json")));
    }

    #[tokio::test]
    async fn a_link_does_not_lead_out_of_where_it_is_mounted() {
        let (mounted, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let token = other.path().join("token");
        std::fs::write(&token, "token").unwrap();
        // As the kubelet lays a volume out.
        std::fs::create_dir(mounted.path().join("..2026_11_30")).unwrap();
        std::fs::write(mounted.path().join("..2026_11_30/secret"), "secret").unwrap();
        symlink("..2026_11_30", mounted.path().join("..data")).unwrap();
        symlink("..data/secret", mounted.path().join("secret")).unwrap();
        symlink(&token, mounted.path().join("out")).unwrap();
        symlink(other.path(), mounted.path().join("folder")).unwrap();
        for (name, is_inside) in
            [("secret", true), ("missing", true), ("out", false), ("folder/token", false)]
        {
            assert_eq!(lies_in(&mounted.path().join(name), mounted.path()).await, is_inside, "{name}");
        }
    }
}
