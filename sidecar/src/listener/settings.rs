//! What a route means for the local side: the rules on senders and recipients, and what is offered.
//!
//! [`of_route`] is a plain function; [`source`] keeps its result until the route changes.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};

use mailroute_route::RouteFile;
use mailroute_route::file::{
    DeliveryMode, Limits, ListenAuth, MAX_MAILBOXES, Method, OnViolation, SendingMailbox, SpreadFrom,
};
use tokio::sync::watch;

use crate::config::Config;
use crate::listener::{Settings, SettingsSource};
use crate::lock;
use crate::message::envelope::Address;
use crate::smtp::answer::Answer;
use crate::smtp::auth::Auth;
use crate::smtp::header::rules::FieldRules;
use crate::smtp::mailboxes::{Mailbox, Mailboxes, Paused};
use crate::smtp::recipients::Recipients;
use crate::smtp::senders::Senders;

/// Most recipients of one domain in one message that Exchange Online takes by submission.
const MAX_RECIPIENTS_OF_ONE_DOMAIN: u32 = 200;

/// The settings that a route asks for. A pool passes over the mailboxes that are `paused`.
pub fn of_route(route: &RouteFile, paused: Paused) -> Settings {
    Settings { mailboxes: mailboxes(route, paused).map(Arc::new), ..of_mailbox(route) }
}

/// The mailboxes among which the sender chooses.
fn mailboxes(route: &RouteFile, paused: Paused) -> Option<Mailboxes> {
    let Method::ClientSubmission(submission) = &route.method else { return None };
    let mailbox = |(named, lane): (&SendingMailbox, &RouteFile)| {
        let settings = of_mailbox(lane);
        let mut shared = settings.clone();
        if submission.spread == Some(SpreadFrom::ReplyTo) {
            // Every sender but the mailbox is replaced by it.
            (shared.senders.allow, shared.senders.on_violation) = (Some(vec![]), OnViolation::Rewrite);
        }
        Some(Mailbox {
            address: Address::parse(&named.address).ok()?,
            senders: boxed(&named.senders),
            settings: Arc::new(settings),
            shared: Arc::new(shared),
        })
    };
    let lanes = route.lanes();
    let mailboxes: Vec<_> = submission.mailboxes.iter().zip(&lanes).filter_map(mailbox).collect();
    // Sidecars that start together do not all begin with the same one.
    (!mailboxes.is_empty())
        .then(|| Mailboxes::new(mailboxes, submission.spread.is_some(), any_turn(), paused))
}

/// One of the mailboxes, by chance.
fn any_turn() -> usize {
    usize::try_from(RandomState::new().hash_one(()) % MAX_MAILBOXES as u64).unwrap_or_default()
}

/// The settings for mail that the route's one mailbox sends.
fn of_mailbox(route: &RouteFile) -> Settings {
    // What is kept is sent in as many messages as it takes; what is not has to fit into one.
    let of_one_domain =
        (route.delivery.mode == DeliveryMode::Deliver).then_some(MAX_RECIPIENTS_OF_ONE_DOMAIN);
    let Limits { max_message_bytes, max_recipients, .. } = route.limits;
    let archive = route.archive.as_ref().and_then(|archive| Address::parse(&archive.bcc).ok());
    // One transaction has to have room for the archive.
    let places = u32::from(archive.is_some());
    let max_recipients = max_recipients.saturating_sub(places).max(1);
    let settings = Settings::new(route.ehlo_name.as_str(), max_message_bytes, max_recipients);
    let of_method = match &route.method {
        Method::DirectSend(direct) => {
            Settings { recipient_domains: Some(boxed(&direct.accepted_domains)), ..settings }
        }
        Method::ClientSubmission(submission) if submission.is_internal() => Settings {
            recipient_domains: Some(boxed(&submission.accepted_domains)),
            other_domains: Answer::RecipientNotInternal,
            encode_header: true,
            ..settings
        },
        // The fallback takes what Graph does not.
        Method::Graph(graph) if graph.fallback.is_none() => Settings {
            max_message_bytes: max_message_bytes.min(graph.max_message_bytes),
            null_sender: false,
            encode_header: true,
            ..settings
        },
        Method::ClientSubmission(_) | Method::SmtpRelay(_) | Method::Graph(_) => {
            Settings { encode_header: true, ..settings }
        }
    };
    let of_one_domain = of_one_domain.filter(|_| !matches!(route.method, Method::Graph(_)));
    Settings {
        max_recipients_of_one_domain: of_one_domain.map(|most| most - places),
        archive,
        fields: Arc::new(FieldRules::of(route)),
        senders: Senders::of(route),
        recipients: Recipients::of(route),
        header_is_envelope: matches!(route.method, Method::Graph(_)),
        auth: if route.listen.auth == ListenAuth::Ignore { Auth::Ignored } else { Auth::Off },
        bare_line_ends: route.listen.bare_line_ends,
        ..of_method
    }
}

fn boxed(texts: &[String]) -> Vec<Box<str>> {
    texts.iter().map(|text| text.as_str().into()).collect()
}

/// Without a route: bounds that let a message in to be answered 451.
fn unrouted() -> Settings {
    Settings::new("localhost", 36_700_160, 500)
}

/// The settings of whatever route is in use. Asked for after every read from a client, so they are made only when the
/// route changes.
pub fn source(config: watch::Receiver<Config>, paused: Paused) -> SettingsSource {
    let of_config = move |config: &Config| {
        let route = config.route.as_deref();
        Arc::new(route.map_or_else(unrouted, |route| of_route(route, paused.clone())))
    };
    let current = of_config(&config.borrow());
    let cached = Mutex::new((config, current));
    Arc::new(move || {
        let mut cached = lock(&cached);
        if cached.0.has_changed().unwrap_or(false) {
            let settings = of_config(&cached.0.borrow_and_update());
            cached.1 = settings;
        }
        Arc::clone(&cached.1)
    })
}

#[cfg(test)]
mod tests {
    use mailroute_route::file::{
        BareLineEnds, Chunking, ClientSubmission, DirectSend, Graph, HostName, SmartHost, SmtpRelay,
        Submission, SubmissionService, TlsMode,
    };

    use super::*;
    use crate::config::tests::SAMPLE;
    use crate::message::envelope::ReversePath;
    use crate::smtp::senders::Judgement;

    fn of_route(route: &RouteFile) -> Settings {
        super::of_route(route, Paused::default())
    }

    fn sample() -> RouteFile {
        RouteFile::parse(SAMPLE.as_bytes()).unwrap()
    }

    fn smart_host() -> SmartHost {
        let host = HostName::MxOf("contoso.com".into());
        SmartHost {
            host,
            port: 25,
            tls: TlsMode::Opportunistic,
            ca_file: None,
            chunking: Chunking::default(),
        }
    }

    #[test]
    fn a_plain_submission_has_no_rules_of_its_own() {
        let settings = of_route(&sample());
        let senders = Senders { mailbox: Some("noreply@contoso.com".into()), ..Senders::default() };
        let expected = Settings {
            senders,
            max_recipients_of_one_domain: Some(200),
            encode_header: true,
            ..Settings::new("notifications.shop.svc.cluster.local", 1000, 10)
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn what_is_kept_may_go_to_any_number_in_one_domain() {
        for mode in [DeliveryMode::Queue, DeliveryMode::DeliverOrQueue] {
            let mut route = sample();
            route.delivery.mode = mode;
            assert_eq!(of_route(&route).max_recipients_of_one_domain, None);
        }
    }

    #[test]
    fn a_route_with_every_option_is_taken_at_its_word() {
        let mut route = sample();
        route.listen.auth = ListenAuth::Ignore;
        route.listen.bare_line_ends = BareLineEnds::Refuse;
        let allow = vec!["*@contoso.com".into()];
        route.senders = Some(mailroute_route::file::Senders { allow, on_violation: OnViolation::Rewrite });
        let settings = of_route(&route);
        assert_eq!((settings.auth, settings.bare_line_ends), (Auth::Ignored, BareLineEnds::Refuse));
        assert_eq!(settings.senders.allow, Some(vec!["*@contoso.com".into()]));
        assert_eq!(settings.senders.on_violation, OnViolation::Rewrite);
        assert_eq!((settings.recipients, settings.header_is_envelope), (None, false));
        let (allow, redirect_to) = (vec!["qa@x.example".into()], Some("staging@x.example".into()));
        route.recipients = Some(mailroute_route::file::Recipients { allow, redirect_to });
        let recipients = of_route(&route).recipients.unwrap();
        assert_eq!(recipients.allow, ["qa@x.example".into()]);
        assert_eq!(recipients.redirect_to.unwrap().as_str(), "staging@x.example");
    }

    #[test]
    fn each_mailbox_has_settings_of_its_own_and_rewrites_what_it_shares_where_the_route_says_so() {
        let mut route = sample();
        assert_eq!(of_route(&route).mailboxes, None);
        let Method::ClientSubmission(submission) = &mut route.method else { panic!("the sample's method") };
        let senders = || vec!["*@shop.contoso.com".to_owned()];
        submission.mailboxes = ["noreply@contoso.com", "orders@contoso.com"]
            .map(|address| SendingMailbox { address: address.into(), senders: senders() })
            .into();
        submission.spread = Some(SpreadFrom::ReplyTo);
        let mailboxes = of_route(&route).mailboxes.unwrap();
        let chosen = |sender: &str| {
            let sender = ReversePath::Address(Address::parse(sender).unwrap());
            let choice = mailboxes.choose(&sender).unwrap();
            let judgement = choice.settings.senders.judge_reverse_path(&sender);
            (choice.settings.senders.mailbox.clone().unwrap(), judgement)
        };
        assert_eq!(chosen("orders@contoso.com"), ("orders@contoso.com".into(), Judgement::Allowed));
        assert_eq!(chosen("else@contoso.com"), ("noreply@contoso.com".into(), Judgement::Allowed));
        let mut both = [chosen("ann@shop.contoso.com"), chosen("ann@shop.contoso.com")];
        both.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(both[0], ("noreply@contoso.com".into(), Judgement::Rewrite));
        assert_eq!(both[1], ("orders@contoso.com".into(), Judgement::Rewrite));
    }

    #[test]
    fn a_copy_for_the_archive_takes_one_of_the_places() {
        let mut route = sample();
        route.archive = Some(mailroute_route::file::Archive { bcc: "archive@contoso.com".into() });
        let settings = of_route(&route);
        assert_eq!(settings.archive.unwrap().as_str(), "archive@contoso.com");
        assert_eq!((settings.max_recipients, settings.max_recipients_of_one_domain), (9, Some(199)));
    }

    #[test]
    fn relay_binds_the_sender_and_direct_send_the_recipients() {
        let (mut route, accepted_domains) = (sample(), vec!["contoso.com".to_owned()]);
        let ours = Some(vec![Box::from("contoso.com")]);
        let relay = SmtpRelay {
            certificate: None,
            accepted_domains: accepted_domains.clone(),
            smart_host: smart_host(),
        };
        route.method = Method::SmtpRelay(relay);
        let settings = of_route(&route);
        assert_eq!((settings.senders.domains, settings.recipient_domains), (ours.clone(), None));
        assert!(settings.encode_header);
        route.method = Method::DirectSend(DirectSend { accepted_domains, smart_host: smart_host() });
        let settings = of_route(&route);
        assert_eq!((settings.senders.domains, settings.recipient_domains), (None, ours));
        assert!(!settings.encode_header);
    }

    #[test]
    fn graph_takes_no_null_sender_and_nothing_larger_than_it_carries_unless_there_is_a_second_way() {
        let mut route = sample();
        let Method::ClientSubmission(submission) = route.method else { panic!("the sample's method") };
        let ClientSubmission { mailbox, credential, authority, endpoint, .. } = submission;
        let fallback = Submission { scope: "s".into(), endpoint: endpoint.clone() };
        let graph =
            Graph { mailbox, credential, authority, endpoint, max_message_bytes: 900, fallback: None };
        route.method = Method::Graph(graph.clone());
        let settings = of_route(&route);
        assert_eq!((settings.max_message_bytes, settings.null_sender), (900, false));
        assert!(settings.encode_header && settings.max_recipients_of_one_domain.is_none());
        route.method = Method::Graph(Graph { fallback: Some(fallback), ..graph });
        let settings = of_route(&route);
        assert_eq!((settings.max_message_bytes, settings.null_sender), (1000, true));
    }

    #[test]
    fn high_volume_email_binds_the_recipients() {
        let mut route = sample();
        let Method::ClientSubmission(submission) = &mut route.method else { panic!("the sample's method") };
        submission.service = SubmissionService::HighVolumeEmail;
        assert_eq!(of_route(&route).recipient_domains, None, "the upstream says who is outside");
        let Method::ClientSubmission(submission) = &mut route.method else { panic!("the sample's method") };
        submission.accepted_domains = vec!["contoso.com".into()];
        let settings = of_route(&route);
        assert_eq!(settings.recipient_domains, Some(vec!["contoso.com".into()]));
        assert_eq!((settings.other_domains, settings.encode_header), (Answer::RecipientNotInternal, true));
    }

    #[test]
    fn a_change_of_the_route_shows_at_once() {
        let (sender, config) = watch::channel(Config::default());
        let settings = source(config, Paused::default());
        assert_eq!(&*settings().host_name, "localhost");
        sender.send_modify(|config| config.route = Some(Arc::new(sample())));
        assert_eq!(&*settings().host_name, "notifications.shop.svc.cluster.local");
        assert!(Arc::ptr_eq(&settings(), &settings()), "made once");
    }
}
