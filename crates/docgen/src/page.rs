//! Parts of a page: what stands between two marks, and tables of which some cells are generated.

use anyhow::{Context, Result, ensure};
use mailroute_route::condition::Reason;

/// A reason as a link to its part of the page of reasons at `page`.
pub fn link(reason: Reason, page: &str) -> String {
    format!("[{reason}]({page}#{})", reason.as_str().to_lowercase())
}

/// The page with `text` between the marks.
///
/// # Errors
/// When the page lacks the marks.
pub fn between(page: &str, (begin, end): (&str, &str), text: &str) -> Result<String> {
    let parts = page.split_once(begin).and_then(|(head, rest)| Some((head, rest.split_once(end)?)));
    let (head, (_, tail)) = parts.with_context(|| format!("the page lacks the lines {begin}{end}"))?;
    Ok([head, begin, text, end, tail].concat())
}

/// A row of a table of which the first cells come from the code and the others are prose of the page.
#[derive(Clone, Debug)]
pub struct Row {
    /// What comes from the code. The first cell tells rows apart.
    pub cells: Vec<String>,
    /// The prose of a row that the page does not have yet.
    pub prose: Vec<String>,
}

/// The page with these rows in the first table with this head below `heading`. A row that is there keeps its place and its
/// prose, one that is not among `rows` goes, and new ones come last.
///
/// # Errors
/// When there is no such table, or it has a row of another form.
pub fn table(page: &str, heading: &str, head: &str, rows: &[Row]) -> Result<String> {
    let start =
        page.find(heading).with_context(|| format!("the page lacks the heading {:?}", heading.trim()))?;
    let offset =
        page[start..].find(head).with_context(|| format!("no table {head} below {:?}", heading.trim()))?;
    let (above, table) = page.split_at(start + offset);
    let end = table.find("\n\n").map_or(table.trim_end().len(), |end| end);
    let (table, below) = table.split_at(end);
    let mut lines = table.lines();
    let mut text: Vec<String> = lines.by_ref().take(2).map(str::to_owned).collect();
    let mut done = Vec::new();
    for line in lines {
        let shown = cells(line);
        let Some(row) = rows.iter().find(|row| Some(&*row.cells[0]) == shown.first().copied()) else {
            continue;
        };
        ensure!(shown.len() == row.cells.len() + row.prose.len(), "a row of another form: {line}");
        text.push(printed(
            row.cells.iter().map(String::as_str).chain(shown[row.cells.len()..].iter().copied()),
        ));
        done.push(&row.cells[0]);
    }
    let missing = rows.iter().filter(|row| !done.contains(&&row.cells[0]));
    text.extend(missing.map(|row| printed(row.cells.iter().chain(&row.prose).map(String::as_str))));
    Ok([above, &text.join("\n"), below].concat())
}

/// The cells of a row. A bar in a cell has a backslash in front of it.
fn cells(line: &str) -> Vec<&str> {
    let mut cells = Vec::new();
    let (mut start, mut before) = (0, ' ');
    for (at, letter) in line.char_indices() {
        if letter == '|' && before != '\\' {
            cells.push(line[start..at].trim());
            start = at + 1;
        }
        before = letter;
    }
    cells.drain(..1.min(cells.len()));
    cells
}

fn printed<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let cells = cells.map(|cell| if cell.is_empty() { " |".to_owned() } else { format!(" {cell} |") });
    std::iter::once("|".to_owned()).chain(cells).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Page\n\n## Sizes\n\n| Name | Type | Meaning |\n| --- | --- | --- |\n| `b` | | what \\| b is |\n| `a` | x | what a was |\n\nThe end.\n";

    fn row(name: &str, kind: &str) -> Row {
        Row { cells: vec![name.into(), kind.into()], prose: vec!["new".into()] }
    }

    #[test]
    fn rows_keep_their_place_and_prose_and_others_come_and_go() {
        let rows = [row("`c`", "z"), row("`b`", "y")];
        let page = table(PAGE, "\n## Sizes\n", "| Name | Type | Meaning |", &rows).unwrap();
        let expected = "| --- | --- | --- |\n| `b` | y | what \\| b is |\n| `c` | z | new |\n\nThe end.\n";
        assert!(page.ends_with(expected), "{page}");
        let same =
            table(PAGE, "\n## Sizes\n", "| Name | Type | Meaning |", &[row("`b`", ""), row("`a`", "x")]);
        assert_eq!(same.unwrap(), PAGE);
    }

    #[test]
    fn what_a_page_lacks_is_named() {
        let error = table(PAGE, "\n## Weights\n", "| Name |", &[]).unwrap_err().to_string();
        assert_eq!(error, "the page lacks the heading \"## Weights\"");
        let error = between(PAGE, ("<begin>\n", "<end>\n"), "").unwrap_err().to_string();
        assert_eq!(error, "the page lacks the lines <begin>\n<end>\n");
    }
}
