//! The end of data on port 25: what is looked at in the message, and the reply with what message trace searches for.

use super::attribution::{Attribution, By};
use crate::{
    mailbox::TokenClaims,
    replies::Line,
    submission::{
        acceptance::{
            Refused, careless, check_bytes, check_fields, read_headers, record, within_tenant_limits,
        },
        data::Content,
        session::{Session, Turn},
    },
};

impl Session {
    pub(crate) fn relay_accept(&mut self, turn: &mut Turn<'_>, content: Content) {
        let Some(mut transaction) = self.transaction.take() else { return };
        let fields = read_headers(turn, &content);
        for (kind, detail) in careless(turn, &transaction, &content, &fields) {
            turn.violation(self, kind, detail);
        }
        let largest = turn.office.config.limits.advertised_size;
        let checked =
            check_bytes(&transaction, &content, largest).and_then(|()| check_fields(&content, &fields));
        let checked = checked.and_then(|()| {
            let tenant = transaction.attribution.as_ref().map(|found| found.tenant.as_str());
            let office = &mut *turn.office;
            match office.config.directory.tenants.iter().find(|known| Some(known.id.as_str()) == tenant) {
                Some(tenant) => {
                    let limits = &office.config.limits;
                    within_tenant_limits(&mut office.usage, limits, tenant, &transaction, &fields, turn.now)
                }
                // Direct Send has no external recipients.
                None => Ok(()),
            }
        });
        if let Err(Refused { line, breach, .. }) = checked {
            if let Some((kind, detail)) = breach {
                turn.violation(self, kind, detail);
            }
            self.say(turn, line);
            return;
        }
        let octets = content.length;
        let attribution = transaction.attribution.take().unwrap_or_else(|| {
            let domain = transaction.recipients.first().map_or("", |path| path.domain());
            let tenant = turn.office.config.directory.tenant_of_domain(domain);
            let tenant = tenant.map(|tenant| tenant.id.clone()).unwrap_or_default();
            Attribution { tenant, by: By::Recipient, connector: None }
        });
        let token = TokenClaims { tenant: attribution.tenant.clone(), ..TokenClaims::default() };
        let message =
            record(turn, &self.peer, transaction, (String::new(), token), attribution, content, fields);
        let (id, number) = (message.message_id.clone(), message.id);
        self.keep(turn, message, octets);
        // The figures have the shape of Exchange's; the time is that of nothing in particular.
        let blanks = [
            ("id", id.as_str()),
            ("number", &format!("{:020}", 34_359_738_368_u64 + number)),
            ("octets", &octets.to_string()),
            ("rate", &format!("{}.{:03}", octets / 256, octets % 256 * 1000 / 256)),
        ];
        self.say_with(turn, Line::Queued.text(), &blanks);
    }
}
