//! Where the programs are that a cluster is made of.
//!
//! `tests/cluster/setup` built or installed them; this module only finds them, by the versions that the `go.mod` files
//! in `tests/cluster/` pin. Nothing is downloaded or built from here.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

const KUBERNETES: &str = include_str!("../cluster/kubernetes/go.mod");
/// The oldest version that is supported.
const KUBERNETES_OLDEST: &str = include_str!("../cluster/kubernetes-1.33/go.mod");
const COREDNS: &str = include_str!("../cluster/coredns/go.mod");
const HELM: &str = include_str!("../cluster/helm/go.mod");
const MONITORING: &str = include_str!("../cluster/monitoring/go.mod");
const CHROMIUM: &str = include_str!("../cluster/chromium/pin");
const HELM3: &str = include_str!("../cluster/helm3/go.mod");
const SETUP: &str = include_str!("../cluster/lib.sh");
const KSTATUS: &str = include_str!("../cluster/kstatus/go.mod");
const COSIGN: &str = include_str!("../cluster/cosign/go.mod");

/// The programs of one cache.
#[derive(Debug, Clone)]
pub struct Tools {
    kubernetes: PathBuf,
    coredns: PathBuf,
    helm: PathBuf,
    helm3: PathBuf,
    monitoring: PathBuf,
    pause: PathBuf,
    clients: PathBuf,
    links: PathBuf,
}

impl Tools {
    /// Finds what `setup demo` left in the cache: what every cluster needs. What only some tests need is looked for when
    /// they ask.
    ///
    /// # Errors
    /// When something is missing, with the command that makes it.
    pub fn find() -> Result<Self> {
        let cache = cache()?;
        let tools = Self {
            kubernetes: cache.join(format!("kubernetes-{}", kubernetes_version()?)),
            coredns: cache.join(format!("coredns-{}", pinned(COREDNS, "github.com/coredns/coredns")?)),
            helm: cache.join(format!("helm-{}", pinned(HELM, "helm.sh/helm/v4")?)),
            helm3: cache.join(format!("helm3-{}", pinned(HELM3, "helm.sh/helm/v3")?)),
            monitoring: cache.join(format!(
                "monitoring-{}",
                pinned(MONITORING, "github.com/prometheus-operator/prometheus-operator")?
            )),
            pause: cache.join("pause-1"),
            clients: cache.join(format!("clients-{}", env!("CARGO_PKG_VERSION"))),
            links: cache.join("bin"),
        };
        let Self { kubernetes, coredns, helm, pause, clients, .. } = &tools;
        for entry in [kubernetes, coredns, helm, pause, clients] {
            complete(entry)?;
        }
        Ok(tools)
    }

    /// One of the Kubernetes programs: `kube-apiserver`, `kubelet`, `kubectl` and so on.
    pub fn kubernetes(&self, program: &str) -> PathBuf {
        self.kubernetes.join(program)
    }

    /// CoreDNS with the plug-ins that a test cluster needs.
    pub fn coredns(&self) -> PathBuf {
        self.coredns.join("coredns")
    }

    /// The folder with a link to each program, for a person's `PATH`.
    pub fn links(&self) -> &Path {
        &self.links
    }

    /// Helm.
    pub fn helm(&self) -> PathBuf {
        self.helm.join("helm")
    }

    /// Helm of the major version before, which many still use.
    ///
    /// # Errors
    /// When it is missing.
    pub fn helm3(&self) -> Result<PathBuf> {
        Ok(complete(&self.helm3)?.join("helm3"))
    }

    /// The program that says what kstatus and Argo CD make of an object.
    ///
    /// # Errors
    /// When it is missing.
    pub(crate) fn kstatus() -> Result<PathBuf> {
        let entry = cache()?.join(format!("kstatus-{}", pinned(KSTATUS, "sigs.k8s.io/cli-utils")?));
        Ok(complete(&entry)?.join("kstatus"))
    }

    /// The folder with `cosign` and `crane`, which sign, push and verify a release.
    ///
    /// # Errors
    /// When it is missing.
    pub fn signing() -> Result<PathBuf> {
        let entry = cache()?.join(format!("cosign-{}", pinned(COSIGN, "github.com/sigstore/cosign/v3")?));
        Ok(complete(&entry)?.to_owned())
    }

    /// The folder with the Prometheus operator's resource definitions.
    ///
    /// # Errors
    /// When it is missing.
    pub fn monitoring(&self) -> Result<&Path> {
        complete(&self.monitoring)
    }

    /// The archive of the image that holds a pod's namespaces open.
    pub fn pause_archive(&self) -> PathBuf {
        self.pause.join("pause.tar")
    }

    /// The archive of the image with SMTP clients.
    pub fn clients_archive(&self) -> PathBuf {
        self.clients.join("clients.tar")
    }
}

/// The folder with Chromium, its libraries and its fonts.
///
/// # Errors
/// When it is missing.
pub(crate) fn browser() -> Result<PathBuf> {
    let version = CHROMIUM.lines().find_map(|line| line.strip_prefix("chromium_version="));
    let entry =
        cache()?.join(format!("chromium-{}", version.context("tests/cluster/chromium/pin has no version")?));
    Ok(complete(&entry)?.to_owned())
}

/// mdBook, which makes the documentation a site.
///
/// # Errors
/// When it is missing.
pub fn mdbook() -> Result<PathBuf> {
    let version = SETUP.lines().find_map(|line| line.strip_prefix("mdbook_version="));
    let entry = cache()?.join(format!("mdbook-{}", version.context("tests/cluster/lib.sh has no version")?));
    Ok(complete(&entry)?.join("bin/mdbook"))
}

/// The folder with DejaVu Sans Mono, in which pictures show a terminal.
///
/// # Errors
/// When it is missing.
pub fn terminal_font() -> Result<PathBuf> {
    let version = SETUP.lines().find_map(|line| line.strip_prefix("dejavu_version="));
    let entry = cache()?.join(format!("dejavu-{}", version.context("tests/cluster/lib.sh has no version")?));
    Ok(complete(&entry).context("`tests/cluster/setup pictures` gets it")?.to_owned())
}

/// An entry of the cache that is there and whole.
pub(crate) fn complete(entry: &Path) -> Result<&Path> {
    if !entry.join(".complete").exists() {
        bail!("{} is missing: run `tests/cluster/setup cluster`", entry.display());
    }
    Ok(entry)
}

/// The folder that outlives checkouts: `MAILROUTE_CACHE`, or `mailroute` in the user's cache folder.
pub(crate) fn cache() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("MAILROUTE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|path| path.join("mailroute")))
        .or_else(|| set("HOME").map(|path| path.join(".cache/mailroute")))
        .context("neither MAILROUTE_CACHE nor HOME is set, so the built programs cannot be found")
}

/// The version of Kubernetes that `MAILROUTE_KUBERNETES` names by its minor version; by default the newest.
fn kubernetes_version() -> Result<&'static str> {
    let wanted = env::var("MAILROUTE_KUBERNETES").unwrap_or_default();
    let newest = pinned(KUBERNETES, "k8s.io/kubernetes")?;
    let all = [newest, pinned(KUBERNETES_OLDEST, "k8s.io/kubernetes")?];
    let is_wanted = |version: &&str| wanted.is_empty() || version.starts_with(&format!("{wanted}."));
    all.into_iter()
        .find(is_wanted)
        .with_context(|| format!("MAILROUTE_KUBERNETES={wanted}: the tests know {all:?}"))
}

/// The version, without its `v`, that a `go.mod` requires of a module.
fn pinned<'a>(go_mod: &'a str, module: &str) -> Result<&'a str> {
    go_mod
        .lines()
        .filter_map(|line| line.trim().trim_start_matches("require ").strip_prefix(module))
        .find_map(|rest| rest.trim().strip_prefix('v'))
        .and_then(|version| version.split_whitespace().next())
        .with_context(|| format!("tests/cluster: no go.mod pins {module}"))
}

/// Programs from Debian packages may be in places that are only on root's `PATH`.
pub(crate) fn search_path() -> String {
    const SYSTEM: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    match env::var("PATH") {
        Ok(path) if !path.is_empty() => format!("{path}:{SYSTEM}"),
        _ => SYSTEM.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_module_files() {
        assert!(pinned(KUBERNETES, "k8s.io/kubernetes").unwrap().starts_with("1.36."));
        assert!(pinned(KUBERNETES_OLDEST, "k8s.io/kubernetes").unwrap().starts_with("1.33."));
        assert!(pinned(HELM, "helm.sh/helm/v4").unwrap().starts_with("4."));
        assert!(pinned(HELM3, "helm.sh/helm/v3").unwrap().starts_with("3."));
        assert!(pinned(KSTATUS, "sigs.k8s.io/cli-utils").unwrap().starts_with("0."));
        assert!(pinned(COSIGN, "github.com/sigstore/cosign/v3").unwrap().starts_with("3."));
        assert!(pinned(COREDNS, "github.com/coredns/coredns").unwrap().starts_with("1."));
    }

    #[test]
    fn a_module_that_is_only_replaced_is_not_taken_for_a_pin() {
        let go_mod = "require (\n\tk8s.io/a v1.2.3\n)\nreplace (\n\tk8s.io/b => k8s.io/b v9.9.9\n)\n";
        assert_eq!(pinned(go_mod, "k8s.io/a").unwrap(), "1.2.3");
        assert!(pinned(go_mod, "k8s.io/b").is_err());
    }
}
