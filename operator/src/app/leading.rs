//! What a replica does while it leads: the controller, and beside it the look-ups in the DNS.

use std::sync::Arc;
use std::time::Instant;

use jiff::SignedDuration;
use mailroute_dns::resolver::Resolver;
use mailroute_operator_core::rollout::history::EvictionHistory;

use super::parts::{Parts, spawn};
use super::{App, Known, warn_of};
use crate::cache::federation_capacity::FederationCapacity;
use crate::controller::applied::AppliedConfigMaps;
use crate::controller::backoff::Backoff;
use crate::controller::lost::LostMessageSums;
use crate::controller::orphans::OrphanedRoutes;
use crate::controller::{self, Context};
use crate::preflight::observations::DnsObservations;
use crate::preflight::rounds::DnsRounds;

impl App {
    /// Starts the part that writes, which works while this replica leads.
    pub(super) fn lead(&self, parts: &mut Parts, known: Known) {
        let flags = &self.flags;
        let dns = if flags.dns_preflight { DnsObservations::on() } else { DnsObservations::default() };
        let rounds = flags.dns_preflight.then(|| self.rounds(&dns, &known));
        let context = Arc::new(Context {
            client: self.client.clone(),
            settings: Arc::clone(&self.settings),
            sidecar: self.sidecar(),
            ca_bundle: known.pki.ca_bundle,
            identity_ca: known.pki.identity_ca,
            routes: known.routes,
            pods: known.pods,
            reports: Arc::clone(&self.reports),
            triggers: self.triggers.clone(),
            events: self.events.clone(),
            metrics: self.metrics.clone(),
            silent_after: SignedDuration::from_secs(flags.silent_after.into()),
            backoff: Backoff::default(),
            applied: AppliedConfigMaps::default(),
            rollouts: EvictionHistory::default(),
            federation: FederationCapacity::default(),
            dns,
            orphans: OrphanedRoutes::default(),
            lost: LostMessageSums::default(),
        });
        let (malformed, mut leadership) = (self.malformed.clone(), known.leadership);
        spawn(parts, "controller", async move {
            while leadership.wait_for(|leadership| leadership.leading).await.is_ok() {
                context.rollouts.begins(Instant::now());
                malformed.all().iter().for_each(|unreadable| warn_of(unreadable, &context.events));
                tokio::select! {
                    () = controller::run(Arc::clone(&context)) => return,
                    () = go_round(rounds.clone()) => return,
                    _ = leadership.wait_for(|leadership| !leadership.leading) => {}
                }
            }
            // The election is over because the process stops.
            std::future::pending().await
        });
    }

    /// The look-ups beside the controller, which no reconciliation waits for.
    fn rounds(&self, board: &DnsObservations, known: &Known) -> DnsRounds {
        DnsRounds {
            resolver: Resolver::new(self.flags.nameserver),
            board: board.clone(),
            routes: known.routes.clone(),
            changes: known.changes.clone(),
            reports: Arc::clone(&self.reports),
            triggers: self.triggers.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

async fn go_round(rounds: Option<DnsRounds>) {
    match rounds {
        Some(rounds) => rounds.run().await,
        None => std::future::pending().await,
    }
}
