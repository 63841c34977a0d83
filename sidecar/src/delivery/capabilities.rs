//! What an upstream says in its answer to EHLO (RFC 5321 §4.1.1.1): its name, what it can do and, as Exchange does, from
//! which address it sees us. Pure; keywords have no case.

use std::net::IpAddr;

use crate::smtp::reply::Reply;

/// What the upstream can do, from its EHLO over TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Several commands may be sent before the first is answered (RFC 2920).
    pub pipelining: bool,
    /// Content may have octets above 127 (RFC 6152).
    pub eight_bit_mime: bool,
    /// Addresses may have characters beyond ASCII (RFC 6531).
    pub smtp_utf8: bool,
    /// Content may come in chunks (RFC 3030).
    pub chunking: bool,
    /// MAIL may announce the size (RFC 1870).
    pub size: bool,
    /// The largest message, octets, when announced.
    pub max_size: Option<u64>,
    /// `AUTH … XOAUTH2`.
    pub xoauth2: bool,
    /// `AUTH … LOGIN`.
    pub login: bool,
    /// `STARTTLS`.
    pub starttls: bool,
}

impl Capabilities {
    /// What the answer to EHLO announces.
    pub fn of(ehlo: &Reply) -> Self {
        let mut all = Self::default();
        for line in ehlo.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace().map(str::to_ascii_uppercase);
            match words.next().as_deref() {
                Some("PIPELINING") => all.pipelining = true,
                Some("CHUNKING") => all.chunking = true,
                Some("8BITMIME") => all.eight_bit_mime = true,
                Some("SMTPUTF8") => all.smtp_utf8 = true,
                Some("STARTTLS") => all.starttls = true,
                Some("AUTH") => words.for_each(|mechanism| match mechanism.as_str() {
                    "XOAUTH2" => all.xoauth2 = true,
                    "LOGIN" => all.login = true,
                    _ => {}
                }),
                Some("SIZE") => {
                    all.size = true;
                    // Zero means no fixed limit (RFC 1870 §4).
                    all.max_size = words.next().and_then(|n| n.parse().ok()).filter(|&n| n > 0);
                }
                _ => {}
            }
        }
        all
    }
}

/// The upstream's own name.
pub fn host(ehlo: &Reply) -> &str {
    first_line(ehlo).split(' ').next().unwrap_or_default()
}

/// The address we come from, as in `HOST Hello [203.0.113.7]`. Where a connector goes by address, it is the credential.
pub fn egress(ehlo: &Reply) -> Option<IpAddr> {
    let (_, rest) = first_line(ehlo).split_once('[')?;
    rest.split_once(']')?.0.parse().ok()
}

fn first_line(ehlo: &Reply) -> &str {
    ehlo.lines.first().map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Reply {
        Reply::parse(text.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn the_first_line_tells_both_ends() {
        let ends = |text| {
            let ehlo = reply(text);
            (host(&ehlo).to_owned(), egress(&ehlo).map(|ip| ip.to_string()))
        };
        let name = "BL2NAM06FT004.mail.protection.outlook.com";
        assert_eq!(
            ends("250 BL2NAM06FT004.mail.protection.outlook.com Hello [203.0.113.7]\r\n"),
            (name.into(), Some("203.0.113.7".into()))
        );
        assert_eq!(
            ends("250 BL2NAM06FT004.mail.protection.outlook.com Hello [2001:db8::f897]\r\n"),
            (name.into(), Some("2001:db8::f897".into()))
        );
        assert_eq!(ends("250 mx Hello [x\r\n"), ("mx".into(), None));
        assert_eq!(ends("250\r\n"), (String::new(), None));
    }

    fn ehlo(text: &str) -> Capabilities {
        Capabilities::of(&Reply::parse(text.as_bytes()).unwrap().unwrap().0)
    }

    #[test]
    fn exchange_after_tls_is_understood() {
        let capabilities = ehlo(
            "250-PN4P287CA0064.outlook.office365.com Hello [203.0.113.7]\r\n250-SIZE 157286400\r\n250-PIPELINING\r\n250-DSN\r\n250-ENHANCEDSTATUSCODES\r\n250-AUTH LOGIN XOAUTH2\r\n250-8BITMIME\r\n250-BINARYMIME\r\n250-CHUNKING\r\n250 SMTPUTF8\r\n",
        );
        let expected = Capabilities {
            pipelining: true,
            chunking: true,
            eight_bit_mime: true,
            smtp_utf8: true,
            size: true,
            max_size: Some(157_286_400),
            xoauth2: true,
            login: true,
            starttls: false,
        };
        assert_eq!(capabilities, expected);
    }

    #[test]
    fn keywords_have_no_case_and_the_first_line_is_no_keyword() {
        let capabilities = ehlo("250-starttls Hello\r\n250-\r\n250- \r\n250-Size 0\r\n250 pipelining\r\n");
        let expected = Capabilities { pipelining: true, size: true, ..Capabilities::default() };
        assert_eq!(capabilities, expected);
    }
}
