//! What somebody else's parser reads in a message that passed the rules on senders.
//!
//! `mail-parser` reads what it is given as well as it can, as most readers of mail do: a hole in the rules would be a
//! message in which it finds an author that is not allowed.

use mail_parser::MessageParser;
use mailroute_route::file::OnViolation;
use mailroute_sidecar::message::envelope::{Address, ReversePath};
use mailroute_sidecar::smtp::senders::Judgement;

use super::checks;

/// No author in a message that is passed on is somebody who may not be named.
pub fn same_authors(input: &[u8]) {
    let Some(whole) = checks::repaired(&checks::decoded(input), true) else { return };
    let Some(message) = MessageParser::default().parse(&whole) else { return };
    let rules = checks::senders(OnViolation::Reject);
    let is_author = |name: &str| ["from", "sender"].iter().any(|field| name.eq_ignore_ascii_case(field));
    for header in message.headers().iter().filter(|header| is_author(header.name())) {
        let authors = header.value().as_address().into_iter().flat_map(|list| list.clone().into_list());
        for author in authors.filter_map(|author| author.address) {
            let Ok(address) = Address::parse(&author) else { continue };
            let judgement = rules.judge_reverse_path(&ReversePath::Address(address));
            assert_eq!(judgement, Judgement::Allowed, "{author:?} in {}", whole.escape_ascii());
        }
    }
}
