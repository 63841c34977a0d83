//! What the rules of a route do to messages: a closed set, fit for a metric's label.

/// Something that a rule did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// A recipient was redirected (`spec.recipients`). Those that are refused are counted with the other refusals.
    RecipientRedirected,
    /// A message got the archive as one more recipient (`spec.archive`).
    ArchiveAdded,
    /// The upstream has refused the archive copy of a message, which went to others.
    ArchiveRefused,
    /// A header field was removed (`spec.headers`).
    HeaderRemoved,
    /// A header field was set.
    HeaderSet,
    /// Fields of a name were left as they are, since a signature of the message covers them.
    HeaderKept,
    /// Fields of a name were changed before a signature was met that covers them.
    SignatureBroken,
}

impl RuleAction {
    /// Every action, for the registration of metrics.
    pub const ALL: [Self; 7] = [
        Self::RecipientRedirected,
        Self::ArchiveAdded,
        Self::ArchiveRefused,
        Self::HeaderRemoved,
        Self::HeaderSet,
        Self::HeaderKept,
        Self::SignatureBroken,
    ];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RecipientRedirected => "recipient_redirected",
            Self::ArchiveAdded => "archive_added",
            Self::ArchiveRefused => "archive_refused",
            Self::HeaderRemoved => "header_removed",
            Self::HeaderSet => "header_set",
            Self::HeaderKept => "header_kept",
            Self::SignatureBroken => "signature_broken",
        }
    }
}
