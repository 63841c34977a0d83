//! The tables of `docs/reference/metrics.md`: name, type and labels of every metric. Their order and the meanings are the
//! page's own; a new metric begins with its help line.

use anyhow::Result;
use mailroute_metrics::Family;
use mailroute_operator::metrics::Metrics as OfOperator;
use mailroute_sidecar::metrics::Metrics as OfSidecar;

use crate::page::{Row, table};

const HEAD: &str = "| Metric | Type | Labels | Meaning |";

pub fn fill_in(page: &str) -> Result<String> {
    let page = table(page, "\n## Sidecar\n", HEAD, &rows(&OfSidecar::families()?))?;
    table(&page, "\n## Operator\n", HEAD, &rows(&OfOperator::families()?))
}

fn rows(families: &[Family]) -> Vec<Row> {
    let cells = |family: &Family| {
        let labels = family.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>();
        vec![format!("`{}`", family.name), family.kind.as_str().to_owned(), labels.join(", ")]
    };
    let row = |family: &Family| Row { cells: cells(family), prose: vec![family.help.to_owned()] };
    families.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_metric_of_one_program_has_the_name_of_another_programs() {
        let (operator, sidecar) = (OfOperator::families().unwrap(), OfSidecar::families().unwrap());
        assert!(operator.len() > 20 && sidecar.len() > 30, "{} {}", operator.len(), sidecar.len());
        let both: Vec<_> =
            operator.iter().filter(|family| sidecar.iter().any(|other| other.name == family.name)).collect();
        assert!(both.is_empty(), "a query would add up what has nothing in common: {both:?}");
    }

    #[test]
    fn a_metric_without_labels_has_an_empty_cell() {
        let families = OfSidecar::families().unwrap();
        let rows = rows(&families);
        let row = rows.iter().find(|row| row.cells[0] == "`mailroute_queue_messages`").unwrap();
        assert_eq!(row.cells[1..], ["gauge", ""]);
    }
}
