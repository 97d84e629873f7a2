//! A table with a heading and aligned columns: numbers to the right, text to the left, two spaces between.

use super::style::{Style, Tone};

/// One cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell in a tone.
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Cell {
        Cell { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell::toned(text, Tone::Plain)
    }
}

/// On which side a column is flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows below a heading.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(columns: &[(&'static str, Side)]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Appends a row; one cell a column.
    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(cells.len(), self.columns.len(), "one cell a column");
        self.rows.push(cells.into());
    }

    /// The whole table, with a line end after each row; trailing spaces are left out.
    pub(crate) fn render(&self, style: Style) -> String {
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, (heading, _))| {
                let cells = self.rows.iter().filter_map(|row| row.get(index));
                cells.map(|cell| width(&cell.text)).max().unwrap_or(0).max(width(heading))
            })
            .collect();
        let heading: Vec<Cell> = self.columns.iter().map(|(name, _)| Cell::toned(*name, Tone::Dim)).collect();
        let mut out = self.line(&heading, &widths, style);
        for row in &self.rows {
            out.push_str(&self.line(row, &widths, style));
        }
        out
    }

    fn line(&self, cells: &[Cell], widths: &[usize], style: Style) -> String {
        let mut out = String::new();
        let last = cells.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or(0);
        for (index, ((cell, &column), (_, side))) in cells.iter().zip(widths).zip(&self.columns).enumerate() {
            let padding = " ".repeat(column.saturating_sub(width(&cell.text)));
            let text = style.paint(cell.tone, &cell.text);
            match side {
                Side::Right => out.extend([padding.as_str(), text.as_str()]),
                Side::Left if index == last => out.push_str(&text),
                Side::Left => out.extend([text.as_str(), padding.as_str()]),
            }
            if index == last {
                break;
            }
            out.push_str("  ");
        }
        out.push('\n');
        out
    }
}

/// Columns a text takes: one a character, which is right for everything but East Asian wide characters.
fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_with_text() {
        let mut table = Table::new(&[("NAME", Side::Left), ("WAIT", Side::Right), ("LABEL", Side::Left)]);
        table.row(["orders/42".into(), "3".into(), "migrate".into()]);
        table.row(["a".into(), "12".into(), "".into()]);
        let text = table.render(Style::PLAIN);
        assert_eq!(text, "NAME       WAIT  LABEL\norders/42     3  migrate\na            12\n");
    }
}
