//! Aligned columns, page by page: a listing of any length is never held as a whole.

use std::io::Write;

use super::output::{Out, Written};

pub struct Column {
    name: &'static str,
    right: bool,
}

/// Text, on the left.
pub const fn text(name: &'static str) -> Column {
    Column { name, right: false }
}

/// Numbers, on the right.
pub const fn number(name: &'static str) -> Column {
    Column { name, right: true }
}

/// Widths come from the first page and only grow, so that later pages stay in line.
pub struct Table {
    columns: &'static [Column],
    widths: Vec<usize>,
    headed: bool,
}

impl Table {
    pub fn new(columns: &'static [Column]) -> Table {
        Table { columns, widths: columns.iter().map(|c| c.name.chars().count()).collect(), headed: false }
    }

    /// Writes a page. Cells are passed through [`super::output::clean`] by those who make them.
    pub fn rows<W: Write>(&mut self, out: &mut Out<W>, rows: &[Vec<String>]) -> Written {
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if !self.headed && !rows.is_empty() {
            self.headed = true;
            out.heading(&self.line(self.columns.iter().map(|c| c.name)))?;
        }
        for row in rows {
            out.line(&self.line(row.iter().map(String::as_str)))?;
        }
        Ok(())
    }

    fn line<'c>(&self, cells: impl Iterator<Item = &'c str>) -> String {
        let mut line = String::new();
        for ((cell, column), width) in cells.zip(self.columns).zip(&self.widths) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            let fill = " ".repeat(width - cell.chars().count().min(*width));
            let (before, after) = if column.right { (fill.as_str(), "") } else { ("", fill.as_str()) };
            line.extend([before, cell, after]);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static COLUMNS: [Column; 3] = [text("NAME"), number("N"), text("REST")];

    #[test]
    fn numbers_stand_right_and_lines_are_no_longer_than_needed() {
        let mut bytes = Vec::new();
        {
            let mut out = Out::plain(&mut bytes);
            let mut table = Table::new(&COLUMNS);
            let row = |cells: [&str; 3]| cells.map(String::from).to_vec();
            let _ = table.rows(&mut out, &[row(["a", "1", "x"]), row(["bcdefg", "200", "-"])]);
            let _ = table.rows(&mut out, &[row(["h", "3", "a longer end"])]);
            let _ = out.flush();
        }
        let said = String::from_utf8(bytes).unwrap();
        assert_eq!(said, "NAME      N  REST\na         1  x\nbcdefg  200  -\nh         3  a longer end\n");
    }

    #[test]
    fn an_empty_listing_has_no_head() {
        let mut bytes = Vec::new();
        {
            let mut out = Out::plain(&mut bytes);
            let _ = Table::new(&COLUMNS).rows(&mut out, &[]);
            let _ = out.flush();
        }
        assert!(bytes.is_empty());
    }
}
