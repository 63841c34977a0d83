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
        "Mail has been held for a long time (see `kubectl describe mailroute`), or dead letters fill the disk: [retry or \
         drop them](guides/queue.md). For more space, raise `spec.sidecar.spool.sizeLimit`.",
    ),
    (
        "The mail queue of this pod cannot be written; see the log of its container mailroute",
        "The log names the file and the disk error. With `storageClassName` the pod needs an `fsGroup`.",
    ),
    (
        "Too many recipients for one message without a queue; send to fewer at a time",
        "Send to fewer recipients at once, or use `spec.delivery.mode: DeliverOrQueue`, which sends in parts.",
    ),
    (
        "Not now: ",
        "Microsoft's own temporary reply follows; look it up under [Replies of Microsoft 365](#replies-of-microsoft-365). \
         Only in mode `Deliver`: the other modes queue the message.",
    ),
    (
        "The MailRoute does not allow this sender:",
        "Send from an address that the reply lists, or add this one to `spec.senders.allow` ([sender \
         rules](reference/smtp.md#who-may-be-named-as-the-sender)).",
    ),
    (
        "The MailRoute does not allow this recipient; add it to recipients.allow of the MailRoute, or send to one that is \
         allowed:",
        "The route lets messages go to certain recipients only, as a staging system should: add the address or `*@domain` to \
         `spec.recipients.allow`, or let `redirectTo` get such messages ([rules](guides/rules.md#recipients)).",
    ),
    (
        "Direct Send reaches only recipients of the tenant's own domains; for others the MailRoute needs the method \
         ClientSubmission or SmtpRelay. Allowed:",
        "Use another [method](methods/README.md); or add the domain to `spec.tenant.acceptedDomains` if it belongs to the \
         tenant.",
    ),
    (
        "Message larger than the limit that EHLO announces (limits.maxMessageBytes of the MailRoute, or graph.maxMessageBytes)",
        "Send smaller messages, or raise `spec.limits.maxMessageBytes` and the mailbox's own limit: \
         `Set-Mailbox -Identity <mailbox> -MaxSendSize 150MB -MaxReceiveSize 150MB`.",
    ),
    (
        "Too many recipients; send the rest in another message",
        "Most libraries do this automatically. The limit is `spec.limits.maxRecipients`; Exchange's own is `Set-Mailbox \
         -RecipientLimits`.",
    ),
    (
        "Too many recipients of one domain; send the rest in another message",
        "Microsoft accepts 200 of one domain at once. In the modes that queue, the sidecar sends in parts.",
    ),
    (
        "Message contains a bare CR or LF; end lines in CR LF (listen.bareLineEnds of the MailRoute is Refuse)",
        "Fix the library, or set `spec.listen.bareLineEnds: Normalize`.",
    ),
    (
        "Message contains a NUL character; encode binary content as base64",
        "An attachment was not encoded. Use the mail library's own function for attachments.",
    ),
    (
        "Message has more than one From field",
        "Mail programs would show different senders. Send one `From`; put several authors into one field, with a `Sender`.",
    ),
    (
        "Too many Received lines: the message is in a mail loop",
        "Something forwards mail back to the application that sends it.",
    ),
    (
        "No room to receive the message; try again later",
        "The spool's volume or the node's disk is full; large messages pass through it. Raise \
         `spec.sidecar.spool.sizeLimit`, or free space on the disk.",
    ),
    (
        "STARTTLS is not offered; connect without TLS, the connection does not leave this pod",
        "Switch TLS off in the application's SMTP settings (`EnableSsl`, `starttls`, `secure`).",
    ),
    (
        "AUTH is not offered; send without user name and password",
        "Leave user name and password empty; if the application insists on them, set `spec.listen.auth: Ignore`.",
    ),
    (
        "Too many sessions at once; try again later",
        "For half a minute the application has held as many connections as the sidecar serves at once \
         ([limits](reference/smtp.md#limits)): use a pool, and close unused connections.",
    ),
    (
        "Nothing received for too long. Closing",
        "A connection pool left a connection idle for more than five minutes ([connection \
         pools](reference/smtp.md#connection-pools)).",
    ),
];
