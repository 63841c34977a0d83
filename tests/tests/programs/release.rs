//! `make release`, for the platform of this machine: built, signed and pushed to Debian's registry, then verified and rendered from
//! there as a user would.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::scene::release::repository;
use e2e::tools::Tools;
use serde_json::Value;
use tempfile::TempDir;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const USER: &str = "maintainer";
const PASSWORD: &str = "registry-password";
/// Of [`PASSWORD`], as htpasswd has it.
const HASH: &str = "$2b$04$B1OCTKWY0ZQzoqmRhBSAuunEhwVmII06GHqNF2MWrKunIqfFiYoUy";
const KEY_PASSWORD: &str = "key-password";
const SOURCE: &str = "https://git.example.com/mailroute.git";
const CHARTS: [&str; 3] = ["mailroute-crds", "mailroute", "mailroute-gateway"];

/// Debian's registry on loopback, which nobody may use without a login.
struct Registry {
    address: SocketAddr,
    process: Child,
}

impl Registry {
    fn start(work: &Path) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let (users, settings) = (work.join("users"), work.join("registry.yml"));
        fs::write(&users, format!("{USER}:{HASH}\n"))?;
        let text = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n\
             auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            work.join("stored").display(),
            users.display()
        );
        fs::write(&settings, text)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&settings).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().context("docker-registry: `tests/cluster/setup cluster`")?;
        let registry = Self { address, process };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            ensure!(started.elapsed() < Duration::from_secs(20), "the registry does not listen at {address}");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A folder for keys, logins and the release, and the tools to work on them.
struct Place {
    work: TempDir,
    path: String,
}

impl Place {
    fn new() -> Result<Self> {
        let helm = Tools::find()?.helm();
        let folders = [Tools::signing()?, helm.parent().context("Helm is in a folder")?.to_owned()];
        let folders = folders.map(|folder| folder.display().to_string()).join(":");
        let path = format!("{folders}:{}:/usr/sbin:/sbin", env::var("PATH")?);
        Ok(Self { work: tempfile::tempdir()?, path })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// A command without what the test runner's Cargo sets for this program.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_") && text != "CARGO_HOME" || text.starts_with("NEXTEST") {
                command.env_remove(&name);
            }
        }
        command.args(arguments).current_dir(self.work.path()).env("PATH", &self.path);
        command.env("COSIGN_PASSWORD", KEY_PASSWORD).env("DOCKER_CONFIG", self.at("login"));
        command.env("HELM_REGISTRY_CONFIG", self.at("login/config.json"));
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        succeed(&mut self.command(program, arguments)).map(|(printed, _)| printed)
    }

    fn json(&self, program: &str, arguments: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.run(program, arguments)?)?)
    }

    fn refused(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let output = self.command(program, arguments).output()?;
        ensure!(!output.status.success(), "{program} {arguments:?} has succeeded");
        Ok(())
    }

    fn key(&self, name: &str) -> Result<()> {
        self.run("cosign", &["generate-key-pair", "--output-key-prefix", name]).map(drop)
    }

    /// `release/make`, without a registry or a key.
    fn release(&self, platforms: &str) -> Command {
        let mut command = self.command(&repository().join("release/make").display().to_string(), &[]);
        for secret in ["REGISTRY", "SIGNING_KEY", "REGISTRY_USERNAME", "REGISTRY_PASSWORD"] {
            command.env_remove(secret);
        }
        command
            .env("PLATFORMS", platforms)
            .env("OUT", self.at("out"))
            .env("SOURCE", SOURCE)
            .env("MODIFIED", "allow");
        command
    }

    /// The statement of that kind about what was pushed, with its signature verified.
    fn verified(&self, kind: &str, reference: &str) -> Result<Value> {
        let trust = ["verify-attestation", "--key", "key.pub", "--insecure-ignore-tlog=true"];
        let printed = self.run("cosign", &[&trust[..], &["--type", kind, reference]].concat())?;
        let envelope: Value = serde_json::from_str(printed.lines().next().unwrap_or_default())?;
        let payload = STANDARD.decode(envelope["payload"].as_str().context("no payload")?)?;
        Ok(serde_json::from_slice(&payload)?)
    }
}

/// What a command prints: its output, and its errors.
fn succeed(command: &mut Command) -> Result<(String, String)> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        bail!("{:?} {:?}: {errors}", command.get_program(), command.get_args().collect::<Vec<_>>());
    }
    Ok((String::from_utf8(output.stdout)?, errors))
}

fn architecture() -> &'static str {
    if env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" }
}

#[test]
fn a_release_is_pushed_verified_and_rendered_from_a_registry() -> Result<()> {
    let place = Place::new()?;
    let registry = Registry::start(place.work.path())?;
    let (host, architecture) = (registry.address.to_string(), architecture());
    let at = format!("{host}/mailroute");
    place.key("key")?;
    place.key("other")?;

    let mut release = place.release(&format!("linux/{architecture}"));
    release.env("REGISTRY", &at).env("SIGNING_KEY", place.at("key.key"));
    release.env("REGISTRY_USERNAME", USER).env("REGISTRY_PASSWORD", PASSWORD);
    let (printed, errors) = succeed(&mut release)?;
    for secret in [PASSWORD, KEY_PASSWORD] {
        ensure!(!printed.contains(secret) && !errors.contains(secret), "{secret} was printed");
    }
    ensure!(!place.at("login").exists(), "the release has left its login behind");
    place.refused("crane", &["digest", &format!("{at}/operator:{VERSION}")])?;
    place.run("crane", &["auth", "login", &host, "--username", USER, "--password", PASSWORD])?;

    let digests = images(&place, &at, architecture)?;
    charts(&place, &at, &digests)?;
    files(&place, architecture)
}

/// Verifies both images, and returns the digests of their indexes.
fn images(place: &Place, at: &str, architecture: &str) -> Result<Vec<String>> {
    let mut digests = Vec::new();
    for program in ["operator", "sidecar"] {
        let tagged = format!("{at}/{program}:{VERSION}");
        let index = place.json("crane", &["manifest", &tagged])?;
        let [manifest] = index["manifests"].as_array().context("no index")?.as_slice() else {
            bail!("{index}")
        };
        ensure!(manifest["platform"]["architecture"] == architecture, "{index}");
        let config = place.json("crane", &["config", &tagged])?;
        ensure!(config["architecture"] == architecture, "{config}");

        let verify = ["verify", "--insecure-ignore-tlog=true", "--key"];
        let own = format!("{at}/{program}@{}", manifest["digest"].as_str().unwrap_or_default());
        for signed in [&tagged, &own] {
            place.run("cosign", &[&verify[..], &["key.pub", signed]].concat())?;
            place.refused("cosign", &[&verify[..], &["other.pub", signed]].concat())?;
        }
        described(place, &own)?;
        digests.push(place.run("crane", &["digest", &tagged])?.trim().to_owned());
    }
    Ok(digests)
}

/// What was signed about the image of one platform: its parts, and from which source it was made.
fn described(place: &Place, image: &str) -> Result<()> {
    let sbom = place.verified("cyclonedx", image)?;
    let parts = sbom["predicate"]["components"].as_array().context("no components")?;
    let names: BTreeSet<_> = parts.iter().filter_map(|part| part["name"].as_str()).collect();
    ensure!(["rustls", "tokio", "rust-std"].iter().all(|name| names.contains(name)), "{names:?}");

    let made = place.verified("slsaprovenance1", image)?;
    let subject = format!("sha256:{}", made["subject"][0]["digest"]["sha256"].as_str().unwrap_or_default());
    ensure!(image.ends_with(&subject), "{made}");
    let from = &made["predicate"]["buildDefinition"]["resolvedDependencies"][0];
    ensure!(from["uri"] == format!("git+{SOURCE}"), "{made}");
    let (head, _) = succeed(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(repository()))?;
    ensure!(from["digest"]["gitCommit"] == head.trim(), "{made}");
    Ok(())
}

/// Verifies the charts, and renders the operator's from the registry: with the images that were pushed, by digest.
fn charts(place: &Place, at: &str, digests: &[String]) -> Result<()> {
    for chart in CHARTS {
        let reference = format!("{at}/charts/{chart}");
        let digest = place.run("crane", &["digest", &format!("{reference}:{VERSION}")])?;
        let pushed = format!("{reference}@{}", digest.trim());
        place.run("cosign", &["verify", "--insecure-ignore-tlog=true", "--key", "key.pub", &pushed])?;
        place.verified("cyclonedx", &pushed)?;
        place.verified("slsaprovenance1", &pushed)?;
        let owners = place.json("crane", &["manifest", &format!("{reference}:artifacthub.io")])?;
        ensure!(
            owners["config"]["mediaType"] == "application/vnd.cncf.artifacthub.config.v1+yaml",
            "{owners}"
        );
    }
    let chart = format!("oci://{at}/charts/mailroute");
    let from = [chart.as_str(), "--version", VERSION, "--plain-http"];
    let rendered =
        place.run("helm", &[&["template", "mailroute", "--kube-version", "1.36.3"], &from[..]].concat())?;
    for (program, digest) in ["operator", "sidecar"].iter().zip(digests) {
        let image = format!("{at}/{program}:{VERSION}@{digest}");
        ensure!(rendered.contains(&image), "no {image} in {rendered}");
    }
    let chart = place.run("helm", &[&["show", "chart"], &from[..]].concat())?;
    for image in ["operator", "sidecar"] {
        ensure!(chart.contains(&format!("image: {at}/{image}:{VERSION}")), "{chart}");
    }
    Ok(())
}

/// Verifies the files of the release, and that the plugin in its archive starts.
fn files(place: &Place, architecture: &str) -> Result<()> {
    succeed(place.command("sha256sum", &["--check", "--strict", "SHA256SUMS"]).current_dir(place.at("out")))?;
    let bare = format!("out/kubectl-mailroute-linux-{architecture}");
    let archive = format!("{bare}.tar.gz");
    let trust = ["--key", "key.pub", "--insecure-ignore-tlog=true", "--bundle"];
    let signature = |file: &str| format!("{file}.sigstore.json");
    for file in ["out/SHA256SUMS", &archive] {
        place.run("cosign", &[&["verify-blob"], &trust[..], &[&signature(file), file]].concat())?;
    }
    for (kind, name) in [("cyclonedx", "sbom"), ("slsaprovenance1", "provenance")] {
        let bundle = format!("{bare}.{name}.sigstore.json");
        let verify = [&["verify-blob-attestation", "--type", kind], &trust[..], &[&bundle]].concat();
        place.run("cosign", &[&verify[..], &[&archive]].concat())?;
        place.refused("cosign", &[&verify[..], &["out/SHA256SUMS"]].concat())?;
    }

    let manifest: Value = serde_saphyr::from_str(&fs::read_to_string(place.at("out/mailroute.yaml"))?)?;
    let platforms = manifest["spec"]["platforms"].as_array().context("no platforms")?;
    let [platform] = platforms.as_slice() else { bail!("{manifest}") };
    ensure!(
        platform["sha256"].as_str() == place.run("sha256sum", &[&archive])?.split(' ').next(),
        "{manifest}"
    );
    ensure!(manifest["spec"]["version"] == format!("v{VERSION}"), "{manifest}");
    place.run("tar", &["-xf", &archive])?;
    ensure!(place.run("./kubectl-mailroute", &["--version"])?.contains(VERSION), "the plugin's version");
    ensure!(place.at("LICENSE").exists() && place.at("licenses/crates.txt").exists(), "licences");

    // A file that was changed after it was signed.
    let changed = [fs::read(place.at(&archive))?, vec![0]].concat();
    fs::write(place.at(&archive), changed)?;
    place.refused("cosign", &[&["verify-blob"], &trust[..], &[&signature(&archive), &archive]].concat())
}

#[test]
fn a_release_says_what_it_lacks_before_it_builds_anything() -> Result<()> {
    let place = Place::new()?;
    let says = |command: &mut Command, problem: &str, remedy: &str| -> Result<()> {
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && text.contains(problem) && text.contains(remedy), "{text}");
        ensure!(!place.at("out").exists(), "something was built");
        Ok(())
    };
    says(&mut place.release("linux/riscv64"), "linux/riscv64 is no platform", "windows/amd64")?;
    says(
        place.release("linux/amd64").env("REGISTRY", "127.0.0.1:1/x"),
        "without a signature",
        "SIGNING_KEY",
    )?;
    // A compiler without that standard library, and nothing that could get it.
    let compilers = place.at("compilers");
    fs::create_dir(&compilers)?;
    let compiler = compilers.join("rustc");
    fs::write(&compiler, "#!/bin/sh\n[ \"$1\" = -vV ] && echo 'host: none' || echo /nowhere\n")?;
    fs::set_permissions(&compiler, PermissionsExt::from_mode(0o755))?;
    let mut without = place.release("windows/amd64");
    without.env("PATH", format!("{}:{}", compilers.display(), place.path)).env("RUSTUP", "false");
    says(
        &mut without,
        "no standard library of Rust for windows/amd64",
        "rustup target add x86_64-pc-windows-gnu",
    )
}
