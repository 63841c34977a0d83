//! The smart host's name: the one that the route gives, or the best MX record of an accepted domain.
//!
//! Owns which MX record decides, and how long what was found is good. Refuses to know how records are got. A name is
//! never derived from a domain (new tenants' names cannot be), and no address is kept: whoever connects looks it up.
//!
//! Invariants: a record is used no longer than its time to live while name servers answer; while they do not, what was
//! found last is used for [`STALE`] at most.

use std::net::IpAddr;
use std::time::Duration;

use mailroute_dns::message::{Exchanger, Records};
use mailroute_dns::resolver::{ResolveError, Resolver};
use mailroute_route::condition::Reason;
use mailroute_route::exchange_online::is_mail_exchanger;
use mailroute_route::file::HostName;
use tokio::sync::Mutex;

use crate::clock::{self, Instant};
use crate::outcome::{DeliveryOutcome, Verdict};

/// Longest time that a record is used without asking again, whatever it says.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// For so long what was found is used while name servers do not answer.
pub const STALE: Duration = Duration::from_secs(24 * 3600);

/// For so long nobody is asked again after a failure, or an answer that leads nowhere.
const PAUSE: Duration = Duration::from_secs(5);

/// Finds the smart host.
pub struct SmartHosts {
    host: HostName,
    resolver: Resolver,
    memory: Mutex<Option<Memory>>,
}

/// A smart host that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its name.
    pub name: String,
    /// Its addresses; none when the system is to resolve the name.
    pub addresses: Vec<IpAddr>,
}

/// What was found, and how long it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Memory {
    found: Result<String, Nowhere>,
    /// When a name server said so.
    answered: Instant,
    /// When to ask again.
    until: Instant,
}

/// Why MX records lead to no smart host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Nowhere {
    reason: Reason,
    text: String,
}

impl SmartHosts {
    /// Finds what `host` says, asking `resolver` where records are needed.
    pub fn new(host: HostName, resolver: Resolver) -> Self {
        Self { host, resolver, memory: Mutex::default() }
    }

    /// The smart host of now.
    ///
    /// # Errors
    /// The verdict on every message, when there is none.
    pub async fn locate(&self) -> Result<Located, Verdict> {
        let domain = match &self.host {
            HostName::Fixed(name) => return Ok(Located { name: name.clone(), addresses: vec![] }),
            HostName::MxOf(domain) => domain,
        };
        let name = self.exchanger(domain).await?;
        match self.resolver.addresses(&name).await {
            Ok(addresses) if addresses.is_empty() => Err(unresolved(&format!("{name} has no address"))),
            Ok(addresses) => Ok(Located { name, addresses }),
            Err(error) => Err(unresolved(&error)),
        }
    }

    async fn exchanger(&self, domain: &str) -> Result<String, Verdict> {
        // Held while asking, so that one question is asked for all who wait.
        let mut memory = self.memory.lock().await;
        if memory.as_ref().is_none_or(|known| known.until <= clock::now()) {
            let looked_up = self.resolver.exchangers(domain).await;
            *memory =
                Some(after(memory.take(), domain, looked_up, clock::now()).map_err(|e| unresolved(&e))?);
        }
        match memory.as_ref().map(|known| &known.found) {
            Some(Ok(name)) => Ok(name.clone()),
            Some(Err(Nowhere { reason, text })) => {
                Err(Verdict::without_reply(DeliveryOutcome::RouteFault(*reason), text.clone()))
            }
            None => Err(unresolved(&"nothing was found")),
        }
    }
}

fn unresolved(why: &impl ToString) -> Verdict {
    Verdict::without_reply(DeliveryOutcome::Transient(Some(Reason::NameNotResolved)), why.to_string())
}

/// What to remember after a look-up.
fn after(
    before: Option<Memory>,
    domain: &str,
    looked_up: Result<Records<Exchanger>, ResolveError>,
    now: Instant,
) -> Result<Memory, ResolveError> {
    match (looked_up, before) {
        (Ok(records), _) => {
            let found = best(domain, records.found);
            let good = records.ttl.filter(|_| found.is_ok()).unwrap_or(PAUSE).min(LONGEST);
            Ok(Memory { found, answered: now, until: now + good })
        }
        (Err(error), Some(before)) if now < before.answered + STALE => {
            tracing::warn!(%error, "the MX record cannot be looked up; the last result is used");
            Ok(Memory { until: now + PAUSE, ..before })
        }
        (Err(error), _) => Err(error),
    }
}

/// The smart host among the records: the preferred one, if it is Exchange Online's.
fn best(domain: &str, records: Vec<Exchanger>) -> Result<String, Nowhere> {
    let not_found = |text| Err(Nowhere { reason: Reason::SmartHostNotFound, text });
    let Some(preference) = records.iter().map(|record| record.preference).min() else {
        return not_found(format!("{domain} has no MX record"));
    };
    if records.iter().all(|record| record.name.is_empty()) {
        return not_found(format!("the MX record of {domain} says that it takes no mail"));
    }
    let preferred = || records.iter().filter(|record| record.preference == preference);
    match preferred().find(|record| is_mail_exchanger(&record.name)) {
        Some(record) => Ok(record.name.clone()),
        None => {
            let names: Vec<&str> = preferred().map(|record| record.name.as_str()).collect();
            let text = format!("the MX record of {domain} leads to {}", names.join(", "));
            Err(Nowhere { reason: Reason::SmartHostForeign, text })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTOSO: &str = "contoso-com.mail.protection.outlook.com";

    fn records(records: &[(u16, &str)]) -> Vec<Exchanger> {
        records.iter().map(|&(preference, name)| Exchanger { preference, name: name.into() }).collect()
    }

    fn answer(seconds: u64, found: &[(u16, &str)]) -> Result<Records<Exchanger>, ResolveError> {
        Ok(Records { found: records(found), ttl: Some(Duration::from_secs(seconds)) })
    }

    fn failure() -> Result<Records<Exchanger>, ResolveError> {
        Err(ResolveError::NoRandomness)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_record_that_leads_elsewhere_is_named() {
        let nowhere = best("contoso.com", records(&[(0, "mx.example.net")])).unwrap_err();
        assert_eq!(nowhere.reason, Reason::SmartHostForeign);
        assert!(nowhere.text.contains("mx.example.net"), "{}", nowhere.text);
    }

    #[test]
    fn the_preferred_record_decides() {
        let ours_second = [(20, CONTOSO), (10, "mx.example.net")];
        assert_eq!(best("contoso.com", records(&ours_second)).unwrap_err().reason, Reason::SmartHostForeign);
        let ours_first = [(20, "mx.example.net"), (10, CONTOSO)];
        assert_eq!(best("contoso.com", records(&ours_first)).as_deref(), Ok(CONTOSO));
    }

    #[test]
    fn no_record_and_a_null_record_are_no_smart_host() {
        for none in [records(&[]), records(&[(0, "")])] {
            assert_eq!(best("contoso.com", none).unwrap_err().reason, Reason::SmartHostNotFound);
        }
    }

    #[test]
    fn a_record_is_good_for_its_time_to_live_and_a_day_at_most() {
        let now = clock::now();
        let good = |ttl| after(None, "contoso.com", answer(ttl, &[(0, CONTOSO)]), now).unwrap().until - now;
        assert_eq!((good(0), good(300), good(u64::from(u32::MAX))), (seconds(0), seconds(300), LONGEST));
    }

    #[test]
    fn what_was_found_is_used_while_name_servers_fail_and_not_for_ever() {
        let now = clock::now();
        let known = after(None, "contoso.com", answer(60, &[(0, CONTOSO)]), now).unwrap();
        let later = now + seconds(3600);
        let kept = after(Some(known.clone()), "contoso.com", failure(), later).unwrap();
        assert_eq!((kept.found.as_deref(), kept.until), (Ok(CONTOSO), later + PAUSE));
        assert_eq!(kept.answered, now, "a failure does not make it younger");
        assert!(after(Some(kept), "contoso.com", failure(), now + STALE).is_err());
        assert!(after(None, "contoso.com", failure(), now).is_err());
    }

    #[test]
    fn an_answer_replaces_what_was_found_even_when_it_leads_nowhere() {
        let now = clock::now();
        let known = after(None, "contoso.com", answer(60, &[(0, CONTOSO)]), now).unwrap();
        let moved = after(Some(known), "contoso.com", answer(3600, &[(0, "mx.example.net")]), now).unwrap();
        assert!(moved.found.is_err());
        assert_eq!(moved.until, now + PAUSE, "a correction is noticed soon");
    }

    #[tokio::test]
    async fn a_name_that_the_route_gives_is_not_looked_up() {
        let host = HostName::Fixed("smtp.example.net".into());
        let located = SmartHosts::new(host, Resolver::default()).locate().await.unwrap();
        assert_eq!(located, Located { name: "smtp.example.net".into(), addresses: vec![] });
    }
}
