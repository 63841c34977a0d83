//! Names that Exchange Online goes by in DNS. Both programs have to know them: the sidecar before it hands mail over, the
//! operator when it says what a domain should publish.

/// Where the MX records of domains at Exchange Online lead: new ones, then by cloud. Sources: Microsoft Learn, "External
/// Domain Name System records for Microsoft 365" and its pages for the government clouds and for 21Vianet; message center
/// MC1048624 for `mx.microsoft`.
const MAIL_EXCHANGERS: [&str; 4] = [
    ".mx.microsoft",
    ".mail.protection.outlook.com",
    ".mail.protection.office365.us",
    ".mail.protection.partner.outlook.cn",
];

/// Whether a mail exchanger of this name, without the final dot, is Exchange Online's.
pub fn is_mail_exchanger(name: &str) -> bool {
    is_below(name, &MAIL_EXCHANGERS)
}

/// Where the DKIM selectors of domains at Exchange Online lead: new ones, then by cloud the older ones, which are
/// below the tenant's first domain. Source: Microsoft Learn, "Set up DKIM to sign mail from your cloud
/// domain".
const DKIM_KEYS: [&str; 4] =
    [".dkim.mail.microsoft", ".onmicrosoft.com", ".onmicrosoft.us", ".partner.onmschina.cn"];

/// Whether a DKIM key of this name, without the final dot, is kept by Exchange Online.
pub fn is_dkim_key(name: &str) -> bool {
    is_below(name, &DKIM_KEYS)
}

/// Whether Microsoft gave the tenant this domain, and publishes its records.
pub fn is_microsofts_own(domain: &str) -> bool {
    is_below(domain, &DKIM_KEYS[1..])
}

fn is_below(name: &str, suffixes: &[&str]) -> bool {
    let name = name.to_ascii_lowercase();
    suffixes.iter().any(|suffix| name.strip_suffix(suffix).is_some_and(|rest| !rest.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_exchangers_of_every_cloud_are_known() {
        for name in [
            "contoso-com.mail.protection.outlook.com",
            "Contoso-COM.Mail.Protection.Outlook.com",
            "contosotest-com.o-v1.mx.microsoft",
            "contoso-us.mail.protection.office365.us",
            "contoso-cn.mail.protection.partner.outlook.cn",
        ] {
            assert!(is_mail_exchanger(name), "{name}");
        }
    }

    #[test]
    fn names_that_only_look_like_it_are_foreign() {
        for name in [
            "mx.example.net",
            "contoso-com.mail.protection.outlook.com.example.net",
            "evilmail.protection.outlook.com",
            "mail.protection.outlook.com",
            "notmx.microsoft",
            "",
        ] {
            assert!(!is_mail_exchanger(name), "{name}");
        }
    }

    #[test]
    fn keys_of_old_and_new_domains_are_known() {
        for name in [
            "selector1-contoso-com._domainkey.contoso.onmicrosoft.com",
            "selector1-contoso-com._domainkey.contoso.n-v1.dkim.mail.microsoft",
            "selector2-contoso-us._domainkey.contoso.onmicrosoft.us",
            "selector1-contoso-cn._domainkey.contoso.partner.onmschina.cn",
        ] {
            assert!(is_dkim_key(name), "{name}");
        }
        assert!(!is_dkim_key("k1.domainkey.u1.wl.sendgrid.net"));
        assert!(is_microsofts_own("contoso.onmicrosoft.com") && !is_microsofts_own("contoso.com"));
    }
}
