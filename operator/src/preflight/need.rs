//! What a route needs its domains to publish. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use mailroute_operator_core::crd::MailRouteSpec;
use mailroute_operator_core::crd::method::Method;
use mailroute_route::exchange_online::is_microsofts_own;
use mailroute_route::file::SubmissionService;

/// Most egress addresses that are looked at; a cluster has a few.
const MAX_ADDRESSES: usize = 8;

/// What one domain has to publish. Routes that need the same of a domain share one look at it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsNeed {
    /// The domain, in lower case.
    pub domain: String,
    /// The name that SPF records include for the cloud's Exchange Online.
    pub service: &'static str,
    /// Whether Exchange Online signs the mail on its way out.
    pub is_signed: bool,
    /// Whether the MX record names the smart host.
    pub names_smart_host: bool,
    /// The addresses from which the mail reaches Exchange Online.
    pub addresses: BTreeSet<IpAddr>,
}

impl DnsNeed {
    /// Whether the two differ in the addresses at most, which sidecars report and may make up.
    pub fn is_like(&self, other: &Self) -> bool {
        (&self.domain, self.service, self.is_signed, self.names_smart_host)
            == (&other.domain, other.service, other.is_signed, other.names_smart_host)
    }
}

/// The needs of a route whose sidecars are seen to come from `egress`. None for a domain that Microsoft gave the tenant:
/// its records are Microsoft's. None for Communication Services, which sends from linked domains alone and verifies their records
/// itself.
pub fn needs(spec: &MailRouteSpec, egress: impl IntoIterator<Item = IpAddr>) -> BTreeSet<DnsNeed> {
    let submission = spec.client_submission.as_ref();
    if submission.is_some_and(|it| it.service == SubmissionService::CommunicationServices) {
        return BTreeSet::new();
    }
    let by_address = spec.mailbox().is_none();
    let addresses: BTreeSet<_> =
        egress.into_iter().filter(|ip| by_address && is_public(*ip)).collect::<BTreeSet<_>>();
    let addresses: BTreeSet<_> = addresses.into_iter().take(MAX_ADDRESSES).collect();
    let takes_mx = by_address && spec.endpoint.as_ref().is_none_or(|endpoint| endpoint.host.is_none());
    let of = |(at, domain): (usize, String)| DnsNeed {
        domain,
        service: spec.tenant.cloud.preset().spf_include,
        is_signed: spec.method != Method::DirectSend,
        names_smart_host: takes_mx && at == 0,
        addresses: addresses.clone(),
    };
    let needs = domains(spec).into_iter().enumerate().map(of);
    needs.filter(|need| !is_microsofts_own(&need.domain)).collect()
}

/// The accepted domains; without them the mailbox's, which is one.
fn domains(spec: &MailRouteSpec) -> Vec<String> {
    let listed: Vec<_> =
        spec.tenant.accepted_domains.iter().map(|domain| domain.to_ascii_lowercase()).collect();
    let mailbox = spec.mailbox().and_then(|mailbox| mailbox.rsplit_once('@'));
    let of_mailbox = mailbox.map(|(_, domain)| domain.to_ascii_lowercase());
    if listed.is_empty() { of_mailbox.into_iter().collect() } else { listed }
}

/// Whether an SPF record can name the address. A private one, which a server on the same network sees, means nothing elsewhere.
const fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && b & 0xc0 == 64;
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || is_shared)
        }
        IpAddr::V6(ip) => {
            !(ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_unicast_link_local())
        }
    }
}

#[cfg(test)]
mod tests {
    use mailroute_operator_core::crd::cloud::Cloud;
    use mailroute_operator_core::crd::method::Endpoint;
    use mailroute_operator_core::samples;

    use super::*;

    fn addresses(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn domains_of(needs: &BTreeSet<DnsNeed>) -> Vec<&str> {
        needs.iter().map(|need| need.domain.as_str()).collect()
    }

    #[test]
    fn a_mailbox_without_accepted_domains_stands_for_its_own() {
        for route in [samples::route(), samples::graph()] {
            let needs = needs(&route.spec, addresses(&["203.0.113.7"]));
            let need = needs.first().unwrap();
            assert_eq!((needs.len(), need.domain.as_str()), (1, "contoso.com"));
            assert!(need.is_signed && !need.names_smart_host);
            assert!(need.addresses.is_empty(), "Exchange Online's own addresses count, not the cluster's");
        }
    }

    #[test]
    fn the_records_of_linked_domains_are_looked_after_by_communication_services() {
        let needs = |service| needs(&samples::submitted_to(service).spec, []);
        assert!(needs(SubmissionService::CommunicationServices).is_empty());
        assert_eq!(domains_of(&needs(SubmissionService::HighVolumeEmail)), ["contoso.com"]);
    }

    #[test]
    fn direct_send_is_not_signed_and_comes_from_the_clusters_addresses() {
        let egress =
            addresses(&["203.0.113.7", "10.0.0.1", "127.0.0.1", "100.64.3.2", "fd00::1", "2001:db8::1"]);
        let needs = needs(&samples::direct().spec, egress);
        assert_eq!(domains_of(&needs), ["contoso.com", "fabrikam.com"]);
        for need in &needs {
            assert!(!need.is_signed);
            assert_eq!(need.names_smart_host, need.domain == "contoso.com");
            assert_eq!(need.addresses, BTreeSet::from_iter(addresses(&["203.0.113.7", "2001:db8::1"])));
        }
    }

    #[test]
    fn an_explicit_host_needs_no_mx_record_and_each_cloud_has_its_include() {
        let mut route = samples::relay(true);
        route.spec.endpoint = Some(Endpoint {
            host: Some("contoso-com.mail.protection.office365.us".into()),
            ..Endpoint::default()
        });
        route.spec.tenant.cloud = Cloud::USGovernment;
        let needs = needs(&route.spec, []);
        assert!(needs.iter().all(|need| need.is_signed && !need.names_smart_host));
        assert!(needs.iter().all(|need| need.service == "spf.protection.office365.us"));
    }

    #[test]
    fn domains_of_microsoft_need_nothing() {
        let mut route = samples::direct();
        route.spec.tenant.accepted_domains = vec!["Contoso.OnMicrosoft.com".into(), "CONTOSO.com".into()];
        assert_eq!(domains_of(&needs(&route.spec, [])), ["contoso.com"]);
    }

    #[test]
    fn a_multitude_of_addresses_is_cut() {
        let many = (0..200).map(|last| IpAddr::from([203, 0, 113, last]));
        assert_eq!(needs(&samples::direct().spec, many).first().unwrap().addresses.len(), MAX_ADDRESSES);
    }
}
