//! The file as CSV.

use super::super::people::{People, Row};
use super::place;
use crate::model::is_collection;

const COLUMNS: [&str; 5] = ["principal", "address", "zone", "language", "members"];

pub(super) fn read(text: &str) -> Result<People, String> {
    let mut records = Records { text, at: 0, line: 1 };
    let mut people = People::default();
    let header = loop {
        match records.next()? {
            None => return Err(bad_header("line 1", "nothing")),
            Some(record) if is_blank(&record.cells) => {}
            Some(record) => break record,
        }
    };
    let mut columns = Vec::new();
    for cell in &header.cells {
        let name = if cell.trim() == "time_zone" { "zone" } else { cell.trim() };
        match COLUMNS.iter().position(|c| *c == name) {
            Some(column) if !columns.contains(&column) => columns.push(column),
            Some(_) => return Err(bad_header(&header.place, "a column twice")),
            None => return Err(bad_header(&header.place, "a column of another name")),
        }
    }
    if !columns.contains(&0) {
        return Err(bad_header(&header.place, "no column principal"));
    }
    while let Some(record) = records.next()? {
        if is_blank(&record.cells) {
            continue;
        }
        if record.cells.len() > columns.len() {
            let (found, header) = (record.cells.len(), columns.len());
            let hint = "put a cell with commas in quotes";
            return Err(format!("{}: {found} cells, but the header has {header}; {hint}", record.place));
        }
        let mut values: [String; COLUMNS.len()] = Default::default();
        for (column, cell) in columns.iter().zip(record.cells) {
            // `columns` holds positions in COLUMNS, which is as long as `values`.
            if let Some(value) = values.get_mut(*column) {
                *value = cell.trim().to_string();
            }
        }
        add(&mut people, &record.place, values);
    }
    Ok(people)
}

fn add(people: &mut People, place: &str, [principal, address, zone, language, members]: [String; COLUMNS.len()]) {
    if is_collection(&principal) {
        if !(address.is_empty() && zone.is_empty() && language.is_empty()) {
            people.find(format!("{place}: a role or group has only members; its other cells are left out"));
        }
        let members =
            members.split([' ', ',', ';', '\n', '\r', '\t']).filter(|m| !m.is_empty()).map(String::from).collect();
        people.add_members(place, principal, members);
    } else {
        if !members.is_empty() {
            people
                .find(format!("{place}: only a role or group (like sports:role.admin) has members; they are left out"));
        }
        people.add_person(place, Row { principal, address: Some(address), zone: Some(zone), language: Some(language) });
    }
}

fn bad_header(place: &str, found: &str) -> String {
    format!("{place}: expected a header with `principal` and any of `address,zone,language,members`, found {found}")
}

fn is_blank(cells: &[String]) -> bool {
    cells.iter().all(|cell| cell.trim().is_empty())
}

struct Record {
    place: String,
    cells: Vec<String>,
}

/// Records of RFC 4180: cells between commas, in quotes if they hold commas, quotes (doubled) or line breaks.
struct Records<'a> {
    text: &'a str,
    at: usize,
    /// Of the next record, from 1.
    line: usize,
}

impl<'a> Records<'a> {
    fn next(&mut self) -> Result<Option<Record>, String> {
        let start = self.at;
        if self.rest().is_empty() {
            return Ok(None);
        }
        let mut cells = Vec::new();
        loop {
            cells.push(self.cell()?);
            // A cell ends at a comma, at a line break or at the end.
            if self.eat(",") {
                continue;
            }
            if !self.eat("\r\n") {
                self.eat("\n");
            }
            let record = Record { place: format!("line {}", self.line), cells };
            self.line += self.text.get(start..self.at).unwrap_or_default().bytes().filter(|b| *b == b'\n').count();
            return Ok(Some(record));
        }
    }

    fn cell(&mut self) -> Result<String, String> {
        let start = self.at;
        if !self.eat("\"") {
            let rest = self.rest();
            let end = rest.find([',', '\n']).unwrap_or(rest.len());
            let cell = rest.get(..end).unwrap_or_default();
            let cell = if rest.get(end..).is_some_and(|r| r.starts_with('\n')) {
                cell.strip_suffix('\r').unwrap_or(cell)
            } else {
                cell
            };
            if let Some(quote) = cell.find('"') {
                return Err(format!(
                    "{}: a quote inside of a cell; put the cell in quotes and double it",
                    place(self.text, start + quote)
                ));
            }
            self.at += cell.len();
            return Ok(cell.to_string());
        }
        let mut cell = String::new();
        loop {
            let rest = self.rest();
            let Some(end) = rest.find('"') else {
                return Err(format!("{}: this quote is never closed", place(self.text, start)));
            };
            cell.push_str(rest.get(..end).unwrap_or_default());
            self.at += end + 1;
            if !self.eat("\"") {
                break;
            }
            cell.push('"');
        }
        let rest = self.rest();
        if rest.is_empty() || rest.starts_with([',', '\n']) || rest.starts_with("\r\n") {
            return Ok(cell);
        }
        Err(format!("{}: expected a comma or the end of the line after the closing quote", place(self.text, self.at)))
    }

    fn rest(&self) -> &'a str {
        // `at` only moves over whole characters.
        self.text.get(self.at..).unwrap_or_default()
    }

    fn eat(&mut self, what: &str) -> bool {
        let found = self.rest().starts_with(what);
        if found {
            self.at += what.len();
        }
        found
    }
}
