//! The certificates of one cluster: two authorities, and a leaf for everyone who speaks.
//!
//! Everything is made anew for each cluster and lives in its folder. The key that signs ServiceAccount tokens is RSA,
//! because Entra takes RS256 only; it is made elsewhere, as the crypto provider here cannot make one.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use std::io::Write;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::member::Member;
use super::network::Network;

/// Who has every right.
const MASTERS: Option<&str> = Some("system:masters");

/// A certificate and its key, both PEM.
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

/// A certificate authority.
pub struct Authority {
    /// Its own certificate and key.
    pub pair: Pair,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key)?.pem();
        let pair = Pair { certificate, key: key.serialize_pem() };
        Ok(Self { pair, issuer: Issuer::new(params, key) })
    }

    fn issue(
        &self,
        name: &str,
        organisation: Option<&str>,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<Pair> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(organisation) = organisation {
            params.distinguished_name.push(DnType::OrganizationName, organisation);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Pair { certificate, key: key.serialize_pem() })
    }
}

/// Everything that is signed for one cluster.
pub struct Certificates {
    /// Signs all but the aggregation layer's.
    pub authority: Authority,
    /// Signs the API server's identity towards extension servers.
    pub front_proxy_authority: Authority,
    /// The API server's own.
    pub server: Pair,
    /// The API server towards kubelets.
    pub server_to_kubelet: Pair,
    /// The API server towards extension servers.
    pub front_proxy: Pair,
    /// The kubelets, as servers and clients: of the first node, of the second.
    pub kubelets: [Pair; 2],
    /// The controller manager.
    pub controller_manager: Pair,
    /// The scheduler.
    pub scheduler: Pair,
    /// kube-proxy.
    pub proxy: Pair,
    /// The person or test at the keyboard.
    pub admin: Pair,
}

impl Certificates {
    /// Makes them all.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn make(network: Network) -> Result<Self> {
        let authority = Authority::new("kubernetes")?;
        let front_proxy_authority = Authority::new("front-proxy")?;
        let server_names = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let server_addresses = [network.node(), network.kubernetes_service(), network.loopback()];
        let client = |name: &str, organisation| authority.issue(name, organisation, &[], &[]);
        let kubelet = |member: Member| {
            let (name, addresses) = (member.name(), [network.node(), network.loopback()]);
            authority.issue(&format!("system:node:{name}"), Some("system:nodes"), &[name], &addresses)
        };
        Ok(Self {
            server: authority.issue("kube-apiserver", None, &server_names, &server_addresses)?,
            server_to_kubelet: client("kube-apiserver-kubelet-client", MASTERS)?,
            front_proxy: front_proxy_authority.issue("front-proxy-client", None, &[], &[])?,
            kubelets: [kubelet(Member::First)?, kubelet(Member::Second)?],
            controller_manager: client("system:kube-controller-manager", None)?,
            scheduler: client("system:kube-scheduler", None)?,
            proxy: client("system:kube-proxy", None)?,
            admin: client("admin", MASTERS)?,
            authority,
            front_proxy_authority,
        })
    }

    /// Writes what programs read as files: `NAME.crt` and `NAME.key`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        for (name, pair) in [
            ("ca", &self.authority.pair),
            ("front-proxy-ca", &self.front_proxy_authority.pair),
            ("server", &self.server),
            ("server-to-kubelet", &self.server_to_kubelet),
            ("front-proxy", &self.front_proxy),
            ("kubelet", &self.kubelets[0]),
            ("kubelet-2", &self.kubelets[1]),
        ] {
            fs::write(folder.join(format!("{name}.crt")), &pair.certificate)?;
            write_private(&folder.join(format!("{name}.key")), &pair.key)?;
        }
        Ok(())
    }
}

/// Writes a file that only its owner can read.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, content: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}
