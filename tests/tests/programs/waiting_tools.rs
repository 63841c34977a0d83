//! What kstatus and Argo CD's health check make of each status that a route can have. That routes get these statuses is a matter of
//! the operator's tests.

use anyhow::{Result, ensure};
use e2e::kstatus::verdicts;
use serde_json::{Value, json};

/// A route of generation 2 with that status.
fn route(status: &Value) -> Value {
    json!({
        "apiVersion": "mailroute.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": {"name": "notifications", "namespace": "shop", "generation": 2},
        "status": status,
    })
}

fn observed(conditions: &[(&str, &str)]) -> Value {
    let condition = |(kind, status): &(&str, &str)| json!({"type": kind, "status": status, "reason": "R", "message": format!("of {kind}")});
    json!({"observedGeneration": 2, "conditions": conditions.iter().map(condition).collect::<Vec<_>>()})
}

#[test]
fn tools_that_wait_end_when_the_operator_has_done_its_part() -> Result<()> {
    let stale = {
        let mut status = observed(&[("Accepted", "True"), ("Ready", "True")]);
        status["observedGeneration"] = json!(1);
        status
    };
    let table = [
        // As the definition makes it of a new route.
        (json!({"observedGeneration": -1, "conditions": []}), "InProgress", "Progressing", "not looked at"),
        (stale, "InProgress", "Progressing", "not looked at"),
        (observed(&[("Accepted", "True"), ("Ready", "True")]), "Current", "Healthy", "of Ready"),
        (observed(&[("Authenticated", "False"), ("Ready", "False")]), "InProgress", "Degraded", "of Ready"),
        (observed(&[("Ready", "Unknown")]), "InProgress", "Degraded", "of Ready"),
        (observed(&[("Ready", "False"), ("Stalled", "True")]), "Failed", "Degraded", "of Stalled"),
        (
            observed(&[("Ready", "False"), ("Reconciling", "True")]),
            "InProgress",
            "Progressing",
            "of Reconciling",
        ),
    ];
    for (status, kstatus, argo_cd, because) in table {
        let found = verdicts(&route(&status))?;
        ensure!(found.words() == (kstatus, argo_cd), "{status}: {found:?}");
        ensure!(found.argo_cd.message.contains(because), "{status}: {found:?}");
    }
    Ok(())
}

/// Why the definition gives a new route a status.
#[test]
fn without_any_status_kstatus_would_take_a_route_for_done() -> Result<()> {
    let found = verdicts(&route(&Value::Null))?;
    ensure!(found.words() == ("Current", "Progressing"), "{found:?}");
    Ok(())
}
