//! Which recipients one transaction may have: Microsoft's limits on an envelope.
//!
//! Pure. What is split here is joined again in the message's own list of fates, so nobody outside sees the parts.

use std::collections::HashMap;

use crate::envelope::Address;

/// Most recipients of one domain in one transaction (Microsoft 365: `452 4.5.3 Too many recipients` beyond it).
pub const PER_DOMAIN: usize = 200;

/// The recipients at `waiting`, positions in `recipients`, in as few groups as fit the limits, each in the order of
/// the envelope. A domain's later recipients wait for the group after, while other domains fill the one before.
pub fn groups(recipients: &[Address], waiting: &[usize], most: usize) -> Vec<Vec<usize>> {
    let most = most.max(1);
    let mut groups: Vec<Group> = Vec::new();
    // Groups before it are full, so that a long list is not looked through again for every recipient.
    let mut open = 0;
    for &position in waiting {
        let domain = recipients.get(position).map_or_else(String::new, |to| to.domain().to_ascii_lowercase());
        while groups.get(open).is_some_and(|group| group.positions.len() >= most) {
            open += 1;
        }
        let found = (open..groups.len()).find(|&at| groups[at].has_room(&domain, most));
        let at = found.unwrap_or_else(|| {
            groups.push(Group::default());
            groups.len() - 1
        });
        groups[at].take(position, domain);
    }
    groups.into_iter().map(|group| group.positions).collect()
}

/// Whether one transaction can have all of these recipients.
pub fn fits(recipients: &[Address], most: usize) -> bool {
    // The common case needs no counting.
    if recipients.len() <= PER_DOMAIN.min(most) {
        return true;
    }
    let all: Vec<usize> = (0..recipients.len()).collect();
    groups(recipients, &all, most).len() == 1
}

#[derive(Default)]
struct Group {
    positions: Vec<usize>,
    domains: HashMap<String, usize>,
}

impl Group {
    fn has_room(&self, domain: &str, most: usize) -> bool {
        self.positions.len() < most && self.domains.get(domain).is_none_or(|&count| count < PER_DOMAIN)
    }

    fn take(&mut self, position: usize, domain: String) {
        self.positions.push(position);
        *self.domains.entry(domain).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addresses(domains: impl IntoIterator<Item = usize>) -> Vec<Address> {
        let address = |(n, domain)| Address::parse(&format!("u{n}@d{domain}.example")).unwrap();
        domains.into_iter().enumerate().map(address).collect()
    }

    fn all(recipients: &[Address]) -> Vec<usize> {
        (0..recipients.len()).collect()
    }

    #[test]
    fn a_usual_envelope_is_one_group_in_its_order() {
        let to = addresses([0, 1, 0]);
        assert_eq!(groups(&to, &all(&to), 500), [[0, 1, 2]]);
        assert!(fits(&to, 500));
    }

    #[test]
    fn more_than_two_hundred_of_one_domain_are_two_groups() {
        let to = addresses([0; 201]);
        let groups = groups(&to, &all(&to), 500);
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [200, 1]);
        assert!(!fits(&to, 500) && fits(&to[..200], 500));
    }

    #[test]
    fn other_domains_fill_the_group_that_one_domain_is_done_with() {
        let to = addresses([0; 250].into_iter().chain([1; 50]));
        let groups = groups(&to, &all(&to), 500);
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [250, 50]);
        assert_eq!(groups[0][200..], (250..300).collect::<Vec<_>>());
    }

    #[test]
    fn spelling_makes_no_second_domain() {
        let mut to = addresses([0; 200]);
        to.push(Address::parse("x@D0.EXAMPLE").unwrap());
        assert!(!fits(&to, 500));
    }

    proptest! {
        #[test]
        fn every_recipient_is_in_exactly_one_group_within_the_limits(
            domains in proptest::collection::vec(0_usize..4, 0..900), most in 1_usize..600,
        ) {
            let to = addresses(domains);
            let groups = groups(&to, &all(&to), most);
            let mut seen: Vec<usize> = groups.concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, all(&to));
            for group in &groups {
                prop_assert!(!group.is_empty() && group.len() <= most);
                for domain in 0..4 {
                    let name = format!("d{domain}.example");
                    prop_assert!(group.iter().filter(|&&at| to[at].domain() == name).count() <= PER_DOMAIN);
                }
            }
        }
    }
}
