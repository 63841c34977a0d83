//! The applications whose requests at a time Microsoft limits, and the mailboxes that each sends as. What is granted is decided in
//! [`mailroute_quota::server::application`].

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use mailroute_quota::Timing;
use mailroute_quota::server::application::{Application, Holders};
use mailroute_quota::server::limits::Namespace;

use super::ids::{ApplicationKey, MailboxKey};

/// Requests of one application at a time that Microsoft Graph takes for mail, whichever mailboxes they are for. Source: Microsoft Graph
/// throttling limits; other copies of the page say "for each mailbox".
pub const CONNECTIONS: u32 = 4;

/// One application.
#[derive(Debug)]
struct Known {
    connections: Application,
    /// The mailboxes that its sidecars send as.
    mailboxes: HashSet<MailboxKey>,
}

/// The applications that sidecars use.
#[derive(Debug)]
pub struct Applications {
    limit: u32,
    timing: Timing,
    known: HashMap<ApplicationKey, Known>,
}

impl Applications {
    /// None yet, each with at most so many connections.
    pub fn new(limit: u32, timing: Timing) -> Self {
        Self { limit, timing, known: HashMap::new() }
    }

    /// The mailboxes of an application, this one among them.
    pub fn mailboxes(
        &mut self,
        application: &ApplicationKey,
        mailbox: &MailboxKey,
        now: Duration,
    ) -> &HashSet<MailboxKey> {
        let known = self.known(application, now);
        known.mailboxes.insert(mailbox.clone());
        &known.mailboxes
    }

    /// The connections of an application, as they are held now.
    pub fn connections(
        &mut self,
        application: &ApplicationKey,
        holders: Holders,
        now: Duration,
    ) -> &mut Application {
        let known = self.known(application, now);
        known.connections.set_holders(holders);
        &mut known.connections
    }

    /// Notes that Microsoft found that sidecars of this namespace send too much at a time.
    pub fn throttled(&mut self, application: &ApplicationKey, namespace: &Namespace, now: Duration) {
        self.known(application, now).connections.throttled(namespace, now);
    }

    /// Notes the mailboxes of each application, and forgets those that no sidecar uses. Returns the mailboxes of applications that are
    /// new here: an earlier leader may have granted leases of them.
    pub fn sweep(
        &mut self,
        running: HashMap<ApplicationKey, HashSet<MailboxKey>>,
        now: Duration,
    ) -> Vec<MailboxKey> {
        self.known.retain(|application, _| running.contains_key(application));
        let mut new = Vec::new();
        for (application, mailboxes) in running {
            if !self.known.contains_key(&application) {
                new.extend(mailboxes.iter().cloned());
            }
            self.known(&application, now).mailboxes = mailboxes;
        }
        new
    }

    fn known(&mut self, application: &ApplicationKey, now: Duration) -> &mut Known {
        let (limit, timing) = (self.limit, self.timing);
        self.known.entry(application.clone()).or_insert_with(|| Known {
            connections: Application::new(limit, timing, now),
            mailboxes: HashSet::new(),
        })
    }
}
