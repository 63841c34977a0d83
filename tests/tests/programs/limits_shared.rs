//! Sidecars that share one mailbox, with the operator's real control service, against the simulator's strict counters: in this
//! process, where minutes are short, and on request as the programs that are shipped, in real minutes.

#[path = "limits_shared/operator.rs"]
mod operator;
#[path = "limits_shared/stage.rs"]
mod stage;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::replica::asking::until;
use stage::{Stage, Way};

/// Microsoft's minute, where it can be short.
const MINUTE: Duration = Duration::from_secs(6);

const SIDECARS: usize = 20;

/// A Deployment that is made larger at once.
const CROWD: usize = 100;

/// The program of the last scenario.
const PROGRAM: &str = "MAILROUTE_SIDECAR";

/// Everybody sends eight messages at once, which is more than five minutes' worth.
#[expect(clippy::print_stdout, reason = "what was measured, for people who change the ledger")]
async fn share(way: Way, mailboxes: usize) -> Result<()> {
    let stage = Stage::with_mailboxes(way, SIDECARS, mailboxes).await?;
    let each = 8 * mailboxes;
    stage.send(each).await?;
    stage.arrived(SIDECARS * each).await?;
    stage.ensure_within_limits()?;
    let ((used, minutes), records) = (stage.used()?, stage.operator.records());
    println!("{:.1} % of the limit in {minutes} minutes, {records} records written", 100.0 * used);
    ensure!(used >= 0.9, "{used} of the limit");
    ensure!(usize::try_from(records)? < SIDECARS * each, "{records} records: not one for each message");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_sidecars_share_a_mailbox_without_one_refusal_and_use_its_limit() -> Result<()> {
    share(Way::Here(MINUTE), 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_sidecars_send_three_times_as_much_by_three_mailboxes() -> Result<()> {
    share(Way::Here(MINUTE), 3).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes more than five minutes; MAILROUTE_SIDECAR names the program"]
async fn twenty_programs_share_a_mailbox_in_real_minutes() -> Result<()> {
    let program = std::env::var_os(PROGRAM).with_context(|| format!("{PROGRAM} names the program"))?;
    share(Way::Program(program.into()), 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_leader_is_a_pause_and_no_error() -> Result<()> {
    let mut stage = Stage::start(Way::Here(MINUTE), SIDECARS).await?;
    stage.send(4).await?;
    stage.microsoft.wait_for_messages(20, MINUTE * 5).await;
    stage.operator.replaced(MINUTE / 4).await?;
    stage.microsoft.wait_for_messages(50, MINUTE * 5).await;
    stage.operator.replaced(MINUTE / 4).await?;
    stage.arrived(SIDECARS * 4).await?;
    stage.ensure_within_limits()
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_that_start_together_all_look_at_the_way_and_hold_no_mail_up() -> Result<()> {
    let stage = Stage::start(Way::Here(MINUTE), CROWD).await?;
    stage.send_by(1, 1).await?;
    stage.arrived(1).await?;
    until(async || {
        let looked = stage.microsoft.statistics().tally.connections;
        ensure!(looked >= CROWD as u64, "{looked} have looked");
        Ok(())
    })
    .await?;
    stage.ensure_within_limits()
}
