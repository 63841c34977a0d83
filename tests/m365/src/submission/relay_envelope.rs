//! MAIL and RCPT on port 25.
//!
//! MAIL is taken from anybody; what is wrong with the connection shows at RCPT, as it does at Exchange Online.

use std::net::IpAddr;

use super::{
    command::Path,
    session::{Session, Turn},
    transaction::Transaction,
};
use crate::{
    relay::attribution::{Origin, admit, attribute},
    replies::Line,
    violations::Kind,
};

/// Host names of Microsoft's that a client must not greet with.
const THEIRS: [&str; 3] = [".protection.outlook.com", ".mx.microsoft", ".outlook.com"];

impl Session {
    pub(super) fn relay_mail(&mut self, turn: &mut Turn<'_>, path: Path) {
        let attribution = attribute(&turn.office.config.directory, self.origin(), path.domain());
        let foreign = attribution.as_ref().is_some_and(|attribution| {
            let tenant = turn.office.config.directory.tenant(&attribution.tenant);
            !path.address.is_empty() && tenant.is_some_and(|tenant| !tenant.accepts_domain(path.domain()))
        });
        if foreign {
            let detail = format!("MAIL FROM of {}, which is no accepted domain, is rewritten", path.domain());
            turn.violation(self, Kind::SenderNotAccepted, detail);
        }
        self.transaction = Some(Transaction { sender: path, attribution, ..Transaction::default() });
        self.say(turn, Line::SenderOk);
    }

    /// Whether the recipient may be noted; the refusal is said here.
    pub(super) fn relay_admits(&mut self, turn: &mut Turn<'_>, path: &Path) -> bool {
        let Some(transaction) = &self.transaction else { return false };
        if THEIRS.iter().any(|theirs| self.peer.facts.ehlo.to_ascii_lowercase().ends_with(theirs)) {
            let detail = format!("EHLO {} is a name of Microsoft's", self.peer.facts.ehlo);
            turn.violation(self, Kind::InvalidEhloName, detail);
            self.say(turn, Line::BadHelo);
            return false;
        }
        let (attribution, sender) = (transaction.attribution.as_ref(), transaction.sender.domain());
        let verdict = admit(&turn.office.config, attribution, self.origin(), sender, &path.address);
        let Err(line) = verdict else { return true };
        self.say_with(turn, line.text(), &[("recipient", &path.address)]);
        false
    }

    fn origin(&self) -> Origin<'_> {
        let facts = &self.peer.facts;
        Origin {
            address: facts.client.parse::<IpAddr>().ok(),
            certificate: facts.certificate.as_ref(),
            is_secure: self.is_secure(),
        }
    }
}
