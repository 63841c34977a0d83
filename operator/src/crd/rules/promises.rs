//! What is promised to applications and asked of them: delivery, limits, senders, the spool.

use serde_json::json;

use super::*;

#[test]
fn what_is_promised_can_be_kept() {
    all_broken([
        (submission as Make, "/spec/delivery/maxAge", json!("2d"), "1m to 336h"),
        (submission, "/spec/delivery/maxAge", json!("0s"), "1m to 336h"),
        (submission, "/spec/delivery/maxAge", json!("337h"), "1m to 336h"),
        (submission, "/spec/delivery/maxAge", json!("-48h"), "1m to 336h"),
        (submission, "/spec/delivery/wait", json!("0s"), "1s to 2m"),
        (submission, "/spec/delivery/wait", json!("500ms"), "1s to 2m"),
        (submission, "/spec/delivery/wait", json!("3m"), "1s to 2m"),
        (
            submission,
            "/spec/delivery",
            json!({"mode": "Deliver", "maxAge": "48h", "wait": "10s",
                   "deadLetter": {"keep": 0, "notifySender": true}}),
            "keeps no message",
        ),
        (submission, "/spec/sidecar/spool/sizeLimit", json!("64Mi"), "at least two messages"),
        (submission, "/spec/sidecar/spool/sizeLimit", json!("1024"), "at least two messages"),
        (submission, "/spec/sidecar/spool/storageClassName", json!("Fast SSD"), "name of a StorageClass"),
        (submission, "/spec/listen/port", json!(9025), "another port"),
    ]);
    none_broken([
        (submission as Make, "/spec/delivery/maxAge", json!("1h30m")),
        (submission, "/spec/delivery/maxAge", json!("336h")),
        (submission, "/spec/delivery/wait", json!("1m30s")),
        (submission, "/spec/delivery/mode", json!("Deliver")),
        (submission, "/spec/delivery/mode", json!("Queue")),
        (submission, "/spec/sidecar/spool/sizeLimit", json!("70Mi")),
        (submission, "/spec/sidecar/spool/sizeLimit", json!("1073741824")),
        (submission, "/spec/sidecar/spool/storageClassName", json!("managed-csi")),
        (submission, "/metadata/name", json!("n".repeat(63))),
    ]);
}

#[test]
fn one_message_does_not_need_more_than_a_day_has() {
    all_broken([
        (submission as Make, "/spec/limits/recipientsPerDay", json!(499), "could never be sent"),
        (submission, "/spec/limits/recipientsPerDay", json!(1), "could never be sent"),
    ]);
    none_broken([
        (submission as Make, "/spec/limits/recipientsPerDay", json!(500)),
        (submission, "/spec/limits/maxRecipients", json!(1)),
        (relay, "/spec/limits/recipientsPerDay", json!(1)),
        (direct, "/spec/limits/recipientsPerDay", json!(1)),
    ]);
}

#[test]
fn senders_are_addresses_or_whole_domains() {
    all_broken([
        (
            submission as Make,
            "/spec/senders",
            json!({"allow": ["noreply"], "onViolation": "Reject"}),
            "*@contoso.com",
        ),
        (submission, "/spec/senders", json!({"allow": ["*"], "onViolation": "Reject"}), "*@contoso.com"),
        (
            relay,
            "/spec/senders",
            json!({"allow": ["*@contoso.com"], "onViolation": "Rewrite"}),
            "needs a mailbox",
        ),
        (
            direct,
            "/spec/senders",
            json!({"allow": ["*@contoso.com"], "onViolation": "Rewrite"}),
            "needs a mailbox",
        ),
        (relay, "/spec/senders", json!({"allow": [], "onViolation": "Reject"}), "name at least one"),
    ]);
    none_broken([
        (submission as Make, "/spec/senders", json!({"allow": [], "onViolation": "Rewrite"})),
        (
            submission,
            "/spec/senders",
            json!({"allow": ["orders@contoso.com", "*@alerts.contoso.com"], "onViolation": "Reject"}),
        ),
        (direct, "/spec/senders", json!({"allow": ["*@contoso.com"], "onViolation": "Reject"})),
    ]);
}
