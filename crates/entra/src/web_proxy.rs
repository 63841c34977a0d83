//! The proxy between here and the Internet, as the variables `HTTPS_PROXY` and `NO_PROXY` of a container or a MailRoute name
//! it, and a tunnel through it (RFC 9110 §9.3.6).
//!
//! There is no standard for the variables; this is what curl and Go's `net/http` have in common. Only `http://` proxies:
//! what goes through the tunnel has TLS of its own. Refuses to know what is said through it.

use std::io::{Error, ErrorKind, Result};
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::secret::Secret;

/// Longest answer to CONNECT, octets.
const MAX_ANSWER: usize = 8 * 1024;

/// A proxy to go through.
#[derive(Clone, Debug)]
pub struct WebProxy {
    /// Host to connect to: a name or an address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    authorization: Option<Secret>,
    no_proxy: NoProxy,
}

/// What is named is no proxy that can be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the proxy that HTTPS_PROXY or tenant.authority.proxy names {why}")]
pub struct WrongProxy {
    /// What is wrong, without what may be a password.
    why: String,
    no_proxy: NoProxy,
}

impl WrongProxy {
    /// Whether `host` was to be reached through it, see [`WebProxy::is_for`].
    pub fn is_for(&self, host: &str, port: u16) -> bool {
        !self.no_proxy.has(host, port)
    }
}

impl WebProxy {
    /// The proxy of the URL `https_proxy`, apart from what `no_proxy` lists; none when there is no URL.
    ///
    /// # Errors
    /// When it is no `http://` URL with a host.
    pub fn of(
        https_proxy: Option<&str>,
        no_proxy: Option<&str>,
    ) -> std::result::Result<Option<Self>, WrongProxy> {
        let Some(url) = https_proxy.map(str::trim).filter(|url| !url.is_empty()) else { return Ok(None) };
        let no_proxy = NoProxy::of(no_proxy.unwrap_or_default());
        match place(url) {
            Ok((user, host, port)) => Ok(Some(Self {
                host: host.to_owned(),
                port: port.unwrap_or(80),
                authorization: user.map(|user| Secret::new(STANDARD.encode(decoded(user)))),
                no_proxy,
            })),
            Err(why) => Err(WrongProxy { why: why.into(), no_proxy }),
        }
    }

    /// Whether `host` is to be reached through it: unless it is this machine, or `NO_PROXY` has the host, a domain above
    /// it, its network, or `*`.
    pub fn is_for(&self, host: &str, port: u16) -> bool {
        !self.no_proxy.has(host, port)
    }

    /// Host and port, for people and in URLs.
    pub fn place(&self) -> String {
        place_of(&self.host, self.port)
    }

    /// Asks for a tunnel to `host` through `stream`, which is connected to the proxy.
    ///
    /// # Errors
    /// When the proxy does not give one.
    pub async fn tunnel<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        host: &str,
        port: u16,
    ) -> Result<()> {
        let target = place_of(host, port);
        let credentials = self
            .authorization
            .as_ref()
            .map_or_else(String::new, |basic| format!("Proxy-Authorization: Basic {}\r\n", basic.expose()));
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{credentials}\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        // Octet by octet: what follows belongs to the tunnel.
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() == MAX_ANSWER {
                return Err(Error::new(ErrorKind::InvalidData, "its answer to CONNECT does not end"));
            }
            answer.push(stream.read_u8().await?);
        }
        let line = String::from_utf8_lossy(answer.split(|&octet| octet == b'\r').next().unwrap_or_default());
        match line.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok()) {
            Some(200..300) => Ok(()),
            Some(code) => Err(Error::other(format!("it answered CONNECT with {code}"))),
            None => Err(Error::new(ErrorKind::InvalidData, "its answer to CONNECT is not HTTP")),
        }
    }
}

/// The entries of `NO_PROXY`, in lower case.
#[derive(Clone, Debug)]
struct NoProxy(Vec<String>);

impl NoProxy {
    fn of(text: &str) -> Self {
        let entries = text.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty());
        Self(entries.map(str::to_ascii_lowercase).collect())
    }

    /// Whether `host` is reached without a proxy.
    fn has(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let is_local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        is_local || self.0.iter().any(|entry| excludes(entry, &host, port))
    }
}

/// An address of IPv6 is set in brackets.
fn place_of(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// User with password, host and port of the URL of a proxy.
fn place(url: &str) -> std::result::Result<(Option<&str>, &str, Option<u16>), &'static str> {
    let rest = match url.split_once("://") {
        None => url,
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some(_) => return Err("is not an http:// URL"),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, authority),
    };
    let is_host = |host: &str| host.chars().all(|c| c.is_alphanumeric() || "-._:%".contains(c));
    let (host, port) = split(place).filter(|(host, _)| is_host(host)).ok_or("has no valid host and port")?;
    Ok((user, host, port))
}

/// Host and port of `host`, `host:port` or `[address]:port`.
fn split(place: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let port = port.filter(|port| !port.is_empty()).map(str::parse).transpose().ok()?;
    (!host.is_empty()).then_some((host, port))
}

/// Whether an entry of `NO_PROXY`, in lower case, holds for this host.
fn excludes(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some((network, length)) = entry.split_once('/') {
        return is_within(host, network, length);
    }
    let Some((name, only)) = split(entry).filter(|_| entry.parse::<IpAddr>().is_err()) else {
        return entry == host;
    };
    let name = name.trim_start_matches("*.").trim_start_matches('.');
    let below = host.strip_suffix(name).is_some_and(|front| front.is_empty() || front.ends_with('.'));
    below && only.is_none_or(|only| only == port)
}

/// Whether `host` is an address in `network/length`.
fn is_within(host: &str, network: &str, length: &str) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let (Ok(host), Ok(network), Ok(length)) =
        (host.parse::<IpAddr>(), network.parse::<IpAddr>(), length.parse::<u32>())
    else {
        return false;
    };
    let ((host, family), (network, other)) = (bits(host), bits(network));
    let mask = u128::MAX.checked_shl(128_u32.saturating_sub(length)).unwrap_or(0);
    family == other && length <= family && host & mask == network & mask
}

/// Percent-encoding taken off, as passwords in URLs have it.
fn decoded(text: &str) -> Vec<u8> {
    let (mut octets, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, behind @ ..] = rest {
        let hex = behind.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *first == b'%') {
            Some(octet) => {
                octets.push(octet);
                rest = &behind[2..];
            }
            None => {
                octets.push(*first);
                rest = behind;
            }
        }
    }
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(no_proxy: &str) -> WebProxy {
        WebProxy::of(Some("http://proxy.corp:3128"), Some(no_proxy)).unwrap().unwrap()
    }

    #[test]
    fn the_usual_forms_of_the_variable_are_read() {
        for (url, host, port) in [
            ("http://proxy.corp:3128/", "proxy.corp", 3128),
            ("HTTP://10.0.0.1", "10.0.0.1", 80),
            ("proxy.corp:8080", "proxy.corp", 8080),
            ("http://user:p%40ss@[fd00::1]:3128", "fd00::1", 3128),
        ] {
            let proxy = WebProxy::of(Some(url), None).unwrap().unwrap();
            assert_eq!((proxy.host.as_str(), proxy.port), (host, port), "{url}");
        }
        assert!(
            WebProxy::of(None, None).unwrap().is_none() && WebProxy::of(Some(" "), None).unwrap().is_none()
        );
        for wrong in
            ["garbage value", "https://proxy.corp", "socks5://x", "http://", "http://user:canary@x:port"]
        {
            let error = WebProxy::of(Some(wrong), Some(".svc")).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
            assert!(error.is_for("login.example", 443) && !error.is_for("login.svc", 443), "{error}");
        }
    }

    #[test]
    fn a_password_is_decoded_and_never_shown() {
        let proxy = WebProxy::of(Some("http://user:p%40ss@x"), None).unwrap().unwrap();
        assert_eq!(proxy.authorization.as_ref().unwrap().expose(), STANDARD.encode("user:p@ss"));
        assert!(!format!("{proxy:?}").contains(&STANDARD.encode("user:p@ss")));
    }

    #[test]
    fn no_proxy_excludes_names_domains_networks_and_ports() {
        let login = "login.microsoftonline.com";
        for (no_proxy, host, goes_through) in [
            ("", login, true),
            ("*", login, false),
            ("localhost,127.0.0.1", login, true),
            ("", "localhost", false),
            ("", "::1", false),
            ("microsoftonline.com", login, false),
            (".MicrosoftOnline.com", login, false),
            ("*.microsoftonline.com", login, false),
            ("online.com", login, true),
            ("login.microsoftonline.com:443", login, false),
            ("login.microsoftonline.com:8443", login, true),
            ("10.0.0.0/8, 192.168.0.0/16", "10.1.2.3", false),
            ("10.0.0.0/8", "11.1.2.3", true),
            ("10.0.0.0/0", "11.1.2.3", false),
            ("fd00::/8", "fd12::1", false),
            ("fd12::1", "fd12::1", false),
            ("10.0.0.0/99,fd00::/129,/,x/y", "10.0.0.0", true),
        ] {
            assert_eq!(proxy(no_proxy).is_for(host, 443), goes_through, "{no_proxy} {host}");
        }
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_and_what_follows_is_left_in_it() {
        let (mut ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\ninside").await.unwrap();
        let proxy = WebProxy::of(Some("http://u:p@x"), None).unwrap().unwrap();
        proxy.tunnel(&mut ours, "login.example", 443).await.unwrap();
        let mut inside = [0; 6];
        ours.read_exact(&mut inside).await.unwrap();
        assert_eq!(&inside, b"inside");
        let mut asked = vec![0; 1024];
        let read = theirs.read(&mut asked).await.unwrap();
        let expected = "CONNECT login.example:443 HTTP/1.1\r\nHost: login.example:443\r\nProxy-Authorization: Basic dTpw\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&asked[..read]), expected);
    }

    #[tokio::test]
    async fn a_refusal_and_an_endless_answer_are_errors() {
        for said in ["HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "hello\r\n\r\n", &"x".repeat(9000)]
        {
            let (mut ours, mut theirs) = tokio::io::duplex(16 * 1024);
            theirs.write_all(said.as_bytes()).await.unwrap();
            assert!(proxy("").tunnel(&mut ours, "x", 443).await.is_err(), "{said:.40}");
        }
    }
}
