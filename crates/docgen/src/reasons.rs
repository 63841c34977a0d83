//! `docs/reference/reasons.md`, from the table of reasons.

use mailroute_route::condition::{ConditionType, PLACEHOLDERS, Reason};

const HEAD: &str = "\
<!-- Written from crates/route/src/condition.rs; a test compares. See CONTRIBUTING.md, \"Generated files\". -->
# Conditions and reasons

`kubectl describe mailroute <name>` shows the conditions below. Each has a reason, and a message with the error (the literal reply of
Microsoft 365, if there was one) and what to do about it. The same reasons are in the sidecar's log, its metrics and its 451
replies.

The conditions are in the order of a delivery's steps: if several are False, the first one is the cause. On this page `<route>`,
`<mailbox>`, `<client id>`, `<tenant>`, `<endpoint>`, `<authority>` and `<secret>` stand for the route's values, which the
messages contain.
";

pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for condition in ConditionType::ALL {
        page.push_str(&format!("\n## {condition}\n\n{}\n", condition.meaning()));
        for reason in Reason::ALL.iter().filter(|reason| reason.condition() == condition) {
            entry(&mut page, *reason);
        }
    }
    page
}

fn entry(page: &mut String, reason: Reason) {
    page.push_str(&format!("\n### {reason}\n\n{}\n", reason.sentence()));
    let remedy = reason.remedy(&PLACEHOLDERS);
    if !remedy.is_empty() {
        // Markdown would take a bare `<` for HTML and swallow the placeholder.
        page.push_str(&format!("\n**What to do:** {}\n", remedy.replace('<', "\\<")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_on_the_page_once() {
        let page = page();
        for reason in Reason::ALL {
            assert_eq!(page.matches(&format!("### {reason}\n")).count(), 1, "{reason}");
        }
    }
}
