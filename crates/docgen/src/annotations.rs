//! The table of refusals in `docs/reference/annotations.md`: every reason of the code, in the words of the page.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::messages::said;
use crate::page::{Row, table};

const HEADING: &str = "\n## What is refused\n";
const HEAD: &str = "| Reason | When | Remedy |";

pub fn fill_in(page: &str) -> Result<String> {
    let row = |refusal: &mailroute_operator_core::inject::Refusal| Row {
        cells: vec![format!("`{}`", refusal.reason())],
        prose: vec![refusal.to_string(), refusal.remedy()],
    };
    // Some refusals are said in two ways; for the table they are one.
    let rows: BTreeMap<_, _> =
        said::refusals().iter().map(|refusal| (refusal.reason(), row(refusal))).collect();
    table(page, HEADING, HEAD, &rows.into_values().collect::<Vec<_>>())
}
