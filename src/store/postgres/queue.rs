//! Changes that nobody has waited for yet. Those of one kind travel as one statement with columns: what a statement costs
//! is paid once for hundreds of rows.

use std::collections::HashMap;

use super::values::{Owned, OwnedColumn};
use crate::store::rules::tx::Value;
use crate::store::rules::{Many, many};

/// Rows that travel together at most: what the server has not answered yet is bounded.
const ROWS_MAX: usize = 8_192;

#[derive(Default)]
pub(super) struct Queue {
    changes: Vec<Change>,
    rows: usize,
}

/// A statement in the order of its execution.
pub(super) struct Change {
    pub sql: String,
    pub values: Vec<Owned>,
    gathers: Option<Rows>,
}

/// Rows that still gather into one statement.
struct Rows {
    of: &'static Many,
    rows: Vec<Vec<Owned>>,
    /// Where a row stands, by its key.
    places: HashMap<Vec<u8>, usize>,
}

impl Queue {
    pub fn is_full(&self) -> bool {
        self.rows >= ROWS_MAX
    }

    /// Takes a change; it is done after all that came before it, as far as that could make a difference: statements that
    /// gather side by side are of different tables.
    pub fn push(&mut self, sql: &str, values: &[Value<'_>]) {
        self.rows += 1;
        let row: Vec<Owned> = values.iter().map(Owned::from).collect();
        let Some(of) = many(sql) else {
            self.changes.push(Change { sql: sql.to_owned(), values: row, gathers: None });
            return;
        };
        let key = key(&row[..of.keys.min(row.len())]);
        // From the end, back to the first that this one may not overtake.
        for change in self.changes.iter_mut().rev() {
            let Some(rows) = change.gathers.as_mut() else { break };
            if rows.of.table != of.table {
                continue;
            }
            if rows.of.one != of.one {
                break;
            }
            match rows.places.get(&key) {
                Some(place) if of.last_counts => rows.rows[*place] = row,
                Some(_) => break,
                None => {
                    rows.places.insert(key, rows.rows.len());
                    rows.rows.push(row);
                }
            }
            return;
        }
        let gathers = Some(Rows { of, rows: vec![row], places: HashMap::from([(key, 0)]) });
        self.changes.push(Change { sql: sql.to_owned(), values: vec![], gathers });
    }

    /// Everything, as it is to be executed.
    pub fn take(&mut self) -> Vec<Change> {
        self.rows = 0;
        let mut all = std::mem::take(&mut self.changes);
        for change in &mut all {
            let Some(Rows { of, mut rows, .. }) = change.gathers.take() else { continue };
            if rows.len() == 1 {
                change.values = rows.remove(0);
            } else {
                (change.sql, change.values) = (of.many.to_owned(), columns(rows));
            }
        }
        all
    }

    pub fn clear(&mut self) {
        *self = Queue::default();
    }
}

fn key(values: &[Owned]) -> Vec<u8> {
    let mut key = Vec::with_capacity(24);
    for value in values {
        match value {
            Owned::Int(n) => key.extend(n.to_le_bytes()),
            Owned::Text(text) => key.extend(text.as_bytes()),
            Owned::Blob(bytes) => key.extend(bytes),
            Owned::Null | Owned::Real(_) | Owned::Column(_) => {}
        }
        key.extend([0xff, 0]);
    }
    key
}

/// Rows of equal length, turned. What is null in every row is taken for numbers: the statement's cast makes it what it is.
fn columns(rows: Vec<Vec<Owned>>) -> Vec<Owned> {
    let (width, height) = (rows.first().map_or(0, Vec::len), rows.len());
    let mut turned: Vec<OwnedColumn> = Vec::new();
    for n in 0..width {
        turned.push(match rows.iter().map(|row| &row[n]).find(|value| !matches!(value, Owned::Null)) {
            Some(Owned::Text(_)) => OwnedColumn::Texts(Vec::with_capacity(height)),
            Some(Owned::Blob(_)) => OwnedColumn::Blobs(Vec::with_capacity(height)),
            _ => OwnedColumn::Ints(Vec::with_capacity(height)),
        });
    }
    for row in rows {
        for (value, column) in row.into_iter().zip(&mut turned) {
            match (column, value) {
                (OwnedColumn::Ints(all), Owned::Int(n)) => all.push(Some(n)),
                (OwnedColumn::Texts(all), Owned::Text(text)) => all.push(Some(text)),
                (OwnedColumn::Blobs(all), Owned::Blob(bytes)) => all.push(Some(bytes)),
                (OwnedColumn::Ints(all), _) => all.push(None),
                (OwnedColumn::Texts(all), _) => all.push(None),
                (OwnedColumn::Blobs(all), _) => all.push(None),
            }
        }
    }
    turned.into_iter().map(Owned::Column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::rules::many_of;

    fn sql(queue: &mut Queue) -> Vec<(String, usize)> {
        let rows = |change: &Change| match change.values.first() {
            Some(Owned::Column(column)) => column.len(),
            _ => 1,
        };
        queue.take().iter().map(|change| (change.sql[..11].to_owned(), rows(change))).collect()
    }

    #[test]
    fn changes_of_one_kind_travel_as_one_statement_and_no_change_overtakes_one_of_its_table() {
        let [settle, moves, link] = many_of(["UPDATE item SET state", "UPDATE item SET digest_no", "UPDATE event"]);
        let mut queue = Queue::default();
        let int = Value::Int;
        queue.push(settle, &[int(1), int(1), int(3), Value::Null, Value::Null, Value::Null]);
        queue.push(link, &[int(1), int(0), int(0)]);
        queue.push(settle, &[int(2), int(1), int(3), Value::Null, Value::Null, Value::Null]);
        queue.push(link, &[int(2), int(0), int(0)]);
        queue.push(moves, &[int(1), int(1), int(9)]);
        queue.push(settle, &[int(3), int(1), int(3), Value::Null, Value::Null, Value::Null]);
        queue.push("UPDATE meta SET n = ?1", &[int(1)]);
        queue.push(settle, &[int(4), int(1), int(3), Value::Null, Value::Null, Value::Null]);
        let kinds = [
            ("UPDATE item", 2),
            ("UPDATE even", 2),
            ("UPDATE item", 1),
            ("UPDATE item", 1),
            ("UPDATE meta", 1),
            ("UPDATE item", 1),
        ];
        assert_eq!(sql(&mut queue), kinds.map(|(sql, n)| (sql.to_owned(), n)));
    }

    #[test]
    fn of_two_changes_of_one_row_the_last_one_counts_or_both_are_made() {
        let [settle, told] = many_of(["UPDATE item SET state", "INSERT INTO standing (topic, recipient, told"]);
        let mut queue = Queue::default();
        let int = Value::Int;
        for state in [2, 3] {
            queue.push(settle, &[int(1), int(1), int(state), Value::Null, Value::Null, Value::Null]);
            queue.push(told, &[Value::Blob(b"t"), Value::Text("user.a"), int(state)]);
        }
        let all = queue.take();
        assert_eq!(all.len(), 3);
        assert!(matches!(all[0].values[2], Owned::Int(3)));
        assert!(all[1..].iter().zip([2, 3]).all(|(told, n)| matches!(told.values[2], Owned::Int(v) if v == n)));
    }
}
