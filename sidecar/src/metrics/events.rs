//! What is counted when: one method for each thing that happens, called where it happens.

use std::sync::MutexGuard;
use std::time::Duration;

use mailroute_route::condition::Reason;

use super::{Metrics, ReportResult};
use crate::clock;
use crate::config::Config;
use crate::delivery::connection::Protection;
use crate::delivery::transport;
use crate::listener::{self, LoginResult, Refusal};
use crate::lock;
use crate::logging::faults::{self, FaultLog};
use crate::net::certificate;
use crate::outcome::{AttemptResult, DeliveryOutcome};
use crate::smtp::reply::Reply;
use crate::smtp::rule_action::RuleAction;
use crate::token::{Failure, store};

impl Metrics {
    /// One attempt to deliver a message of `bytes` octets to `recipients`.
    pub fn attempted(&self, attempt: &AttemptResult, recipients: u64, bytes: u64, took: Duration) {
        let outcome = attempt.verdict.outcome;
        self.sent.deliveries.with_label_values(&[outcome.as_str(), reason_label(outcome)]).inc();
        self.sent.delivery_seconds.observe(took.as_secs_f64());
        if outcome == DeliveryOutcome::Delivered {
            self.sent.recipients.inc_by(recipients);
            self.sent.bytes.inc_by(bytes);
        }
    }

    /// A rule of the route did something, so many times.
    pub fn rule_applied(&self, action: RuleAction, times: u64) {
        self.received.rule_actions.with_label_values(&[action.as_str()]).inc_by(times);
    }

    /// A message was answered without an attempt.
    pub fn failed_fast(&self) {
        self.sent.fast_failures.inc();
    }

    /// A message was turned away as it could not be kept.
    pub fn turned_away(&self) {
        self.received.refusals.with_label_values(&[Refusal::Storage.as_str()]).inc();
    }

    /// A probe ended.
    pub fn probed(&self, well: bool) {
        self.sent.probes.with_label_values(&[if well { "well" } else { "trouble" }]).inc();
    }

    /// The configuration in use.
    pub fn configured(&self, config: &Config) {
        self.state.config_generation.set(config.route.as_ref().map_or(0, |route| route.generation));
        self.state.config_valid.set(i64::from(config.objection().is_none() && config.route.is_some()));
        if config.route.as_ref().is_some_and(|route| route.gateway.is_some()) {
            self.show_hand_overs();
        }
        if config.route.as_ref().is_some_and(|it| it.has_rules()) {
            self.show_rules();
        }
        if config.error.is_some() {
            self.state.config_errors.inc();
        }
    }

    /// The route has rules for messages: what they do needs a start.
    fn show_rules(&self) {
        for action in RuleAction::ALL {
            self.received.rule_actions.with_label_values(&[action.as_str()]);
        }
        for refusal in Refusal::OF_RULES {
            self.received.refusals.with_label_values(&[refusal.as_str()]);
        }
    }

    /// A report ended.
    pub fn reported(&self, result: ReportResult) {
        self.state.reports.with_label_values(&[result.as_str()]).inc();
    }
}

impl Metrics {
    fn token_faults(&self) -> MutexGuard<'_, FaultLog> {
        lock(&self.token_faults)
    }
}

fn reason_label(outcome: DeliveryOutcome) -> &'static str {
    outcome.reason().map_or("none", Reason::as_str)
}

impl listener::Observer for Metrics {
    fn session_opened(&self) {
        self.received.sessions.inc();
        self.received.sessions_total.inc();
    }

    fn session_closed(&self, _lasted: Duration) {
        self.received.sessions.dec();
    }

    fn refused(&self, reason: Refusal) {
        self.received.refusals.with_label_values(&[reason.as_str()]).inc();
    }

    fn header_encoded(&self, fields: u32) {
        self.received.encoded_fields.inc_by(fields.into());
    }

    fn rule_applied(&self, action: RuleAction, times: u64) {
        Self::rule_applied(self, action, times);
    }

    fn answered(&self, reply: &Reply, bytes: u64, elapsed: Duration) {
        let result = match reply.code {
            ..400 => "accepted",
            400..500 => "deferred",
            _ => "refused",
        };
        self.received.messages.with_label_values(&[result]).inc();
        self.received.bytes.inc_by(bytes);
        self.received.accept_seconds.observe(elapsed.as_secs_f64());
    }

    fn serves_network(&self) {
        for refusal in Refusal::OF_NETWORK {
            self.received.refusals.with_label_values(&[refusal.as_str()]);
        }
        for result in LoginResult::ALL {
            self.received.logins.with_label_values(&[result.as_str()]);
        }
        self.tls_certificate(0);
    }

    fn login(&self, result: LoginResult) {
        self.received.logins.with_label_values(&[result.as_str()]).inc();
    }

    fn tls_certificate(&self, not_after: i64) {
        self.received.certificate_expiry.with_label_values::<&str>(&[]).set(not_after);
    }
}

impl store::Observe for Metrics {
    fn issued(&self, life: Duration) {
        self.sent.token_exchanges.with_label_values(&[Reason::TokenAcquired.as_str()]).inc();
        let life = i64::try_from(life.as_secs()).unwrap_or(i64::MAX);
        self.sent.token_expiry.set(clock::unix_seconds().saturating_add(life));
        faults::write(self.token_faults().works(clock::now()));
        tracing::info!(life_seconds = life, "access token issued");
    }

    fn refused(&self, failure: &Failure) {
        self.sent.token_exchanges.with_label_values(&[failure.reason.as_str()]).inc();
        if self.token_faults().met(failure.reason, clock::now()).is_some() {
            tracing::warn!(reason = failure.reason.as_str(), met = failure.message, "no access token issued");
        }
    }
}

impl transport::TransportObserver for Metrics {
    fn connected(&self, protection: Protection) {
        self.sent.connections.with_label_values(&[protection.as_str()]).inc();
    }
}

impl certificate::CertificateObserver for Metrics {
    fn certificate(&self, not_after: i64) {
        self.sent.certificate_expiry.set(not_after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::Observer;
    use crate::outcome::Verdict;
    use crate::outcome::health::Health;

    fn rendered(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render(&Health::default())).unwrap()
    }

    #[test]
    fn a_delivery_is_counted_with_outcome_and_reason() {
        let metrics = Metrics::new().unwrap();
        let verdict = Verdict::without_reply(DeliveryOutcome::RouteFault(Reason::LoginFailed), "");
        let attempt = AttemptResult { verdict, refused: vec![], observations: vec![], host: None };
        metrics.attempted(&attempt, 1, 10, Duration::from_secs(1));
        let text = rendered(&metrics);
        assert!(
            text.contains(r#"mailroute_deliveries_total{outcome="route_fault",reason="LoginFailed"} 1"#),
            "{text}"
        );
        assert!(text.contains("mailroute_delivered_bytes_total 0"));
    }

    #[test]
    fn answers_are_counted_by_class() {
        let metrics = Metrics::new().unwrap();
        let reply = Reply { code: 451, enhanced: None, lines: vec![] };
        metrics.answered(&reply, 5, Duration::from_millis(3));
        let text = rendered(&metrics);
        assert!(text.contains(r#"mailroute_messages_total{result="deferred"} 1"#));
    }

    #[test]
    fn what_rules_do_is_counted() {
        let metrics = Metrics::new().unwrap();
        Observer::rule_applied(&metrics, RuleAction::RecipientRedirected, 2);
        assert!(
            rendered(&metrics).contains("mailroute_rule_actions_total{action=\"recipient_redirected\"} 2")
        );
    }

    #[test]
    fn encoded_fields_are_counted() {
        let metrics = Metrics::new().unwrap();
        Observer::header_encoded(&metrics, 2);
        assert!(rendered(&metrics).contains("mailroute_encoded_header_fields_total 2"));
    }
}
