//! What the sidecar says by itself, and what to do about it.

/// What the sidecar says by itself, where there is something to do, and what. The texts are those of the source.
pub const OWN: &[(&str, &str)] = &[
    (
        "This pod has no valid mail route yet; see the log of its container mailroute",
        "The ConfigMap `mailroute-<route>` is missing or cannot be used by this version: `kubectl describe mailroute` (condition \
         Accepted), then `kubectl logs <pod> -c mailroute`. No restart is needed.",
    ),
    (
        "The mail queue of this pod is full; try again later",
        "Mail has been held for long, see `kubectl describe mailroute`, or dead letters fill the disk: \
         [queue drop or retry](guides/queue.md). Room: `spec.sidecar.spool.sizeLimit`.",
    ),
    (
        "The mail queue of this pod cannot be written; see the log of its container mailroute",
        "The log names the file and the error of the disk. On a volume of `storageClassName` the pod needs an `fsGroup`.",
    ),
    (
        "Too many recipients for one message without a queue; send to fewer at a time",
        "Send to fewer at a time, or use `spec.delivery.mode: DeliverOrQueue`, which sends in parts.",
    ),
    (
        "Not now: ",
        "What follows is Microsoft's own temporary reply; find it under [Replies of Microsoft 365](#replies-of-microsoft-365). Mode \
         `Deliver` only: the other modes keep the message.",
    ),
    (
        "The MailRoute does not allow this sender:",
        "Send as an address that the reply lists, or add this one to `spec.senders.allow`; \
         [who may be named](reference/smtp.md#who-may-be-named-as-the-sender).",
    ),
    (
        "Direct Send reaches recipients of the tenant's own domains only; the MailRoute needs method ClientSubmission or SmtpRelay for \
         others. Allowed:",
        "Another [method](methods/README.md); or add the domain to `spec.tenant.acceptedDomains`, if it is one.",
    ),
    (
        "Message larger than the limit that EHLO announces (limits.maxMessageBytes of the MailRoute)",
        "Send less, or raise `spec.limits.maxMessageBytes`, and the mailbox's own limit with it: \
         `Set-Mailbox -Identity <mailbox> -MaxSendSize 150MB -MaxReceiveSize 150MB`.",
    ),
    (
        "Too many recipients; send the rest in another message",
        "Most libraries do so by themselves. The bound is `spec.limits.maxRecipients`; Exchange's own: `Set-Mailbox -RecipientLimits`.",
    ),
    (
        "Too many recipients of one domain; send the rest in another message",
        "Microsoft takes 200 of one domain at once. In the modes that queue, the sidecar sends in parts.",
    ),
    (
        "Message contains a CR or LF alone; end lines in CR LF (listen.bareLineEnds of the MailRoute is Refuse)",
        "Mend the library, or set `spec.listen.bareLineEnds: Normalize`.",
    ),
    (
        "Message contains a NUL character; encode binary content as base64",
        "An attachment was put into the message as it is. Use the mail library's own function for attachments.",
    ),
    (
        "Message has more than one From field",
        "Readers would disagree on who sent it. Send one `From`; several authors go into one field, with a `Sender`.",
    ),
    (
        "Too many Received lines: the message goes round in a circle",
        "Something forwards mail to the application that sends it again.",
    ),
    (
        "No room to take the message in; try again later",
        "The spool's volume or the node's disk is full; large messages pass through it. `spec.sidecar.spool.sizeLimit`.",
    ),
    (
        "STARTTLS is not offered; connect without TLS, the connection does not leave this pod",
        "Switch TLS off in the application's SMTP settings (`EnableSsl`, `starttls`, `secure`).",
    ),
    (
        "AUTH is not offered; send without user name and password",
        "Leave user name and password empty; where the application insists on them, set `spec.listen.auth: Ignore`.",
    ),
    (
        "Too many sessions at once; try again later",
        "The application has held more than 100 connections for half a minute: use a pool, and close what is not used.",
    ),
    (
        "Nothing received for too long. Closing",
        "A pool kept a connection for more than five minutes; [pools](reference/smtp.md#pools-of-connections).",
    ),
];
