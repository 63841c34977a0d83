//! The advice on DNS, which is beside everything else.

use super::*;
use crate::status::{DnsNotice, DnsVerdict};

fn said(holds: Option<bool>, reason: Reason) -> DnsNotice {
    DnsNotice::Known(DnsVerdict { holds, reason, message: format!("about {reason}") })
}

fn running(dns: DnsNotice) -> Situation {
    Situation { dns, ..Situation::new().pod("a").report("a", well()) }
}

fn dns(status: &MailRouteStatus) -> Option<(&str, &str)> {
    let condition = find(&status.conditions, ConditionType::DnsPublished)?;
    Some((condition.status.as_str(), condition.reason.as_str()))
}

fn ready(status: &MailRouteStatus) -> &str {
    &find(&status.conditions, ConditionType::Ready).unwrap().status
}

#[test]
fn missing_records_are_told_and_the_route_is_ready_all_the_same() {
    let status = running(said(Some(false), Reason::SpfMissing)).status(at(1));
    assert_eq!(dns(&status), Some(("False", "SpfMissing")));
    assert_eq!(ready(&status), "True");
}

#[test]
fn name_servers_that_cannot_tell_make_it_unknown() {
    let status = running(said(None, Reason::DnsUnavailable)).status(at(1));
    assert_eq!(dns(&status), Some(("Unknown", "DnsUnavailable")));
    assert_eq!(ready(&status), "True");
}

#[test]
fn where_nobody_looks_there_is_no_condition() {
    let mut situation = running(said(Some(true), Reason::DnsPublished));
    situation.route.status = Some(situation.status(at(1)));
    assert_eq!(dns(situation.route.status.as_ref().unwrap()), Some(("True", "DnsPublished")));
    situation.dns = DnsNotice::None;
    assert_eq!(dns(&situation.status(at(2))), None);
}

#[test]
fn what_was_said_stands_until_it_is_known_anew() {
    let mut situation = running(DnsNotice::Pending);
    assert_eq!(dns(&situation.status(at(1))), None, "nothing was said yet");
    situation.dns = said(Some(false), Reason::DmarcMissing);
    situation.route.status = Some(situation.status(at(2)));
    situation.dns = DnsNotice::Pending;
    assert_eq!(
        situation.status(at(3)),
        situation.route.status.clone().unwrap(),
        "as after a change of leader"
    );
}
