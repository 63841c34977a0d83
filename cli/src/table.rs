//! Tables for people: columns as wide as what is in them, and no line longer than the terminal.

use crate::terminal::{Style, Tone, clean};

/// The least width of the column that gives way.
const LEAST: usize = 12;

/// Columns between two cells.
const GAP: &str = "  ";

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its heading.
    pub name: &'static str,
    /// Whether its cells stand to the right, as numbers do.
    pub right: bool,
    /// How soon it is left out where the terminal is narrow: the highest number first, 0 never.
    pub spare: u8,
}

impl Column {
    /// The same, left out where the terminal is narrow.
    #[must_use]
    pub const fn spare(self, order: u8) -> Self {
        Self { spare: order, ..self }
    }
}

/// A column of text.
pub const fn text(name: &'static str) -> Column {
    Column { name, right: false, spare: 0 }
}

/// A column of numbers.
pub const fn number(name: &'static str) -> Column {
    Column { name, right: true, spare: 0 }
}

/// One cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell with a tone. What could do something on a terminal is taken out here.
    pub fn new(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: clean(text.as_ref()).into_owned(), tone }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// A table. Where the terminal is narrow spare columns go, and then the last one gives way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: impl Into<Vec<Column>>) -> Self {
        Self { columns: columns.into(), rows: Vec::new() }
    }

    /// One more row, with a cell for each column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, headings first.
    pub fn render(&self, style: Style) -> String {
        let fitting = self.fitting(style);
        let widths = fitting.widths(style);
        let headings: Vec<Cell> =
            fitting.columns.iter().map(|column| Cell::new(column.name, Tone::Strong)).collect();
        let mut text = String::new();
        for row in std::iter::once(&headings).chain(&fitting.rows) {
            text.push_str(&fitting.line(row, &widths, style));
            text.push('\n');
        }
        text
    }

    /// The same without the spare columns for which there is no room.
    fn fitting(&self, style: Style) -> Self {
        let mut table = self.clone();
        let Some(room) = style.width else { return table };
        while total(&table.widths(Style::default())) > room {
            let spare = table.columns.iter().enumerate().filter(|(_, column)| column.spare > 0);
            let Some((at, _)) = spare.max_by_key(|(_, column)| column.spare) else { break };
            table.columns.remove(at);
            for row in table.rows.iter_mut().filter(|row| at < row.len()) {
                row.remove(at);
            }
        }
        table
    }

    fn line(&self, row: &[Cell], widths: &[usize], style: Style) -> String {
        let last = row.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or(0);
        let mut line = String::new();
        for (at, ((cell, &width), column)) in
            row.iter().zip(widths).zip(&self.columns).enumerate().take(last + 1)
        {
            let shown = cut(&cell.text, width);
            let padding = " ".repeat(width.saturating_sub(shown.chars().count()));
            let painted = style.paint(cell.tone, &shown);
            if at > 0 {
                line.push_str(GAP);
            }
            match (column.right, at == last) {
                (true, _) => line.push_str(&(padding + &painted)),
                (false, true) => line.push_str(&painted),
                (false, false) => line.push_str(&(painted + &padding)),
            }
        }
        line
    }

    fn widths(&self, style: Style) -> Vec<usize> {
        let width = |(at, column): (usize, &Column)| {
            let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.text.chars().count());
            cells.max().unwrap_or(0).max(column.name.chars().count())
        };
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(width).collect();
        let all = total(&widths);
        if let (Some(room), Some(last)) = (style.width, widths.last_mut()) {
            *last = last.saturating_sub(all.saturating_sub(room)).max(LEAST.min(*last));
        }
        widths
    }
}

/// Columns of a line.
fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1)
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new([text("POD"), number("SIZE"), text("REASON")]);
        table.row(["orders-1".into(), "9".into(), Cell::new("SmtpAuthDisabledMailbox", Tone::Bad)]);
        table.row(["o".into(), "1024".into(), "".into()]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let expected = "\
POD       SIZE  REASON
orders-1     9  SmtpAuthDisabledMailbox
o         1024
";
        assert_eq!(table().render(Style::default()), expected);
    }

    #[test]
    fn the_last_column_gives_way_to_a_narrow_terminal() {
        let narrow = table().render(Style { colour: false, width: Some(30) });
        assert!(narrow.contains("orders-1     9  SmtpAuthDisab…\n"), "{narrow}");
        let narrower = table().render(Style { colour: false, width: Some(10) });
        assert!(narrower.contains("SmtpAuthDis…\n"), "{narrower}");
    }

    #[test]
    fn spare_columns_go_before_the_last_one_gives_way() {
        let mut table =
            Table::new([text("NAME"), number("DAY").spare(1), number("DEAD").spare(2), text("AGE")]);
        table.row(["notifications".into(), "2210/10000".into(), "0".into(), "3d".into()]);
        let lines = |width| table.render(Style { colour: false, width: Some(width) });
        assert_eq!(lines(40).lines().next().unwrap().split_whitespace().count(), 4);
        assert_eq!(lines(35), "NAME                  DAY  AGE\nnotifications  2210/10000  3d\n");
        assert_eq!(lines(20), "NAME           AGE\nnotifications  3d\n");
    }

    #[test]
    fn colour_takes_no_room_and_what_is_hostile_is_tame() {
        let mut table = table();
        table.row(["x\x1b[2J".into(), "0".into(), "y".into()]);
        let shown = table.render(Style { colour: true, width: None });
        assert!(shown.contains("\x1b[31mSmtpAuthDisabledMailbox\x1b[0m\n"), "{shown}");
        assert!(shown.contains("x\u{fffd}[2J") && !shown.contains("\x1b[2J"), "{shown}");
    }
}
