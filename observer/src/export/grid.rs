//! Aligned columns of text.

use unicode_width::UnicodeWidthStr;

/// Which side a column's cells lean to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Columns with a title each, and rows of as many cells.
#[derive(Clone, Default, Debug)]
pub(super) struct Grid {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Grid {
    /// An empty grid.
    pub(super) fn new(columns: Vec<(String, Align)>) -> Grid {
        Grid { columns, rows: Vec::new() }
    }

    /// Adds a row.
    pub(super) fn push(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Titles, then rows, two spaces between columns, none at the ends of lines.
    pub(super) fn render(&self) -> String {
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| title.clone()).collect();
        let lines = || std::iter::once(&titles).chain(&self.rows);
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|at| lines().filter_map(|cells| cells.get(at)).map(|cell| cell.width()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for cells in lines() {
            let mut line = String::new();
            for ((cell, width), (_, align)) in cells.iter().zip(&widths).zip(&self.columns) {
                let padding = " ".repeat(width.saturating_sub(cell.width()));
                match align {
                    Align::Left => line.push_str(&format!("{cell}{padding}  ")),
                    Align::Right => line.push_str(&format!("{padding}{cell}  ")),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut grid = Grid::new(vec![("NAME".into(), Align::Left), ("N".into(), Align::Right), ("WHY".into(), Align::Left)]);
        grid.push(vec!["größe".into(), "5".into(), "".into()]);
        grid.push(vec!["漢字".into(), "120".into(), "because".into()]);
        assert_eq!(grid.render(), "NAME     N  WHY\ngröße    5\n漢字   120  because\n");
    }
}
