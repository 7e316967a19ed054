//! Values of the rules as PostgreSQL's, and back.

use std::error::Error;

use tokio_postgres::Row;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};

use crate::store::rules::tx::{Cells, Column, Value};
use crate::store::{Result, StoreError};

/// A value that waits for its turn.
#[derive(Debug)]
pub(super) enum Owned {
    Null,
    Int(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
    Column(OwnedColumn),
}

/// A column that waits for its turn.
#[derive(Debug)]
pub(super) enum OwnedColumn {
    Ints(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
    Blobs(Vec<Option<Vec<u8>>>),
}

impl OwnedColumn {
    fn of(column: &Column<'_>) -> OwnedColumn {
        match column {
            Column::Ints(all) => OwnedColumn::Ints(all.clone()),
            Column::Texts(all) => OwnedColumn::Texts(all.iter().map(|t| t.map(str::to_owned)).collect()),
            Column::Blobs(all) => OwnedColumn::Blobs(all.iter().map(|b| b.map(<[u8]>::to_vec)).collect()),
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        match self {
            OwnedColumn::Ints(all) => all.len(),
            OwnedColumn::Texts(all) => all.len(),
            OwnedColumn::Blobs(all) => all.len(),
        }
    }
}

impl From<&Value<'_>> for Owned {
    fn from(value: &Value<'_>) -> Owned {
        match *value {
            Value::Null => Owned::Null,
            Value::Int(n) => Owned::Int(n),
            Value::Real(x) => Owned::Real(x),
            Value::Text(text) => Owned::Text(text.to_owned()),
            Value::Blob(bytes) => Owned::Blob(bytes.to_vec()),
            Value::Column(column) => Owned::Column(OwnedColumn::of(column)),
        }
    }
}

impl ToSql for Owned {
    fn to_sql(&self, of: &Type, out: &mut BytesMut) -> std::result::Result<IsNull, Box<dyn Error + Sync + Send>> {
        let value = match self {
            Owned::Null => Value::Null,
            Owned::Int(n) => Value::Int(*n),
            Owned::Real(x) => Value::Real(*x),
            Owned::Text(text) => Value::Text(text),
            Owned::Blob(bytes) => Value::Blob(bytes),
            Owned::Column(OwnedColumn::Ints(all)) => return ints(all, of, out),
            Owned::Column(OwnedColumn::Texts(all)) => return texts(all.iter().map(Option::as_deref), of, out),
            Owned::Column(OwnedColumn::Blobs(all)) => return blobs(all.iter().map(Option::as_deref), of, out),
        };
        Bound(value).to_sql(of, out)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

#[derive(Debug)]
pub(super) struct Bound<'v>(pub Value<'v>);

impl ToSql for Bound<'_> {
    fn to_sql(&self, of: &Type, out: &mut BytesMut) -> std::result::Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self.0 {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(n) => match *of {
                Type::INT4 => i32::try_from(n)?.to_sql(of, out),
                Type::BOOL => (n != 0).to_sql(of, out),
                Type::FLOAT8 => (n as f64).to_sql(of, out),
                _ => n.to_sql(of, out),
            },
            Value::Real(x) => x.to_sql(of, out),
            // PostgreSQL's text takes no NUL.
            Value::Text(text) if text.contains('\0') => text.replace('\0', "\u{fffd}").to_sql(of, out),
            Value::Text(text) => text.to_sql(of, out),
            Value::Blob(bytes) => bytes.to_sql(of, out),
            Value::Column(Column::Ints(all)) => ints(all, of, out),
            Value::Column(Column::Texts(all)) => texts(all.iter().copied(), of, out),
            Value::Column(Column::Blobs(all)) => blobs(all.iter().copied(), of, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

type Written = std::result::Result<IsNull, Box<dyn Error + Sync + Send>>;

/// The length of what is null.
const NULL: i32 = -1;

/// An array of one dimension in PostgreSQL's binary form: this, and each cell behind its length. A batch of intake has
/// dozens of cells an event, and postgres-types asks for room and looks at the type for each of them.
fn head(
    of: &Type,
    cells: usize,
    bytes: usize,
    out: &mut BytesMut,
) -> std::result::Result<(), Box<dyn Error + Sync + Send>> {
    let Kind::Array(of) = of.kind() else { return Err(format!("{of} takes no column").into()) };
    out.reserve(5 * 4 + bytes);
    out.extend_from_slice(&1_i32.to_be_bytes());
    // Whether there are nulls: each says so itself.
    out.extend_from_slice(&1_i32.to_be_bytes());
    out.extend_from_slice(&of.oid().to_be_bytes());
    out.extend_from_slice(&i32::try_from(cells)?.to_be_bytes());
    out.extend_from_slice(&1_i32.to_be_bytes());
    Ok(())
}

fn ints(all: &[Option<i64>], of: &Type, out: &mut BytesMut) -> Written {
    head(of, all.len(), all.len() * 12, out)?;
    for cell in all {
        match cell {
            Some(n) => {
                let mut bytes = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
                bytes[4..].copy_from_slice(&n.to_be_bytes());
                out.extend_from_slice(&bytes);
            }
            None => out.extend_from_slice(&NULL.to_be_bytes()),
        }
    }
    Ok(IsNull::No)
}

fn blobs<'v>(all: impl ExactSizeIterator<Item = Option<&'v [u8]>> + Clone, of: &Type, out: &mut BytesMut) -> Written {
    let bytes = all.clone().map(|cell| 4 + cell.map_or(0, <[u8]>::len)).sum();
    head(of, all.len(), bytes, out)?;
    for cell in all {
        match cell {
            Some(bytes) => {
                out.extend_from_slice(&i32::try_from(bytes.len())?.to_be_bytes());
                out.extend_from_slice(bytes);
            }
            None => out.extend_from_slice(&NULL.to_be_bytes()),
        }
    }
    Ok(IsNull::No)
}

fn texts<'v>(all: impl ExactSizeIterator<Item = Option<&'v str>> + Clone, of: &Type, out: &mut BytesMut) -> Written {
    if all.clone().flatten().any(|text| text.contains('\0')) {
        // PostgreSQL's text takes no NUL.
        let clean: Vec<Option<String>> = all.map(|t| t.map(|t| t.replace('\0', "\u{fffd}"))).collect();
        return blobs(clean.iter().map(|t| t.as_ref().map(|t| t.as_bytes())), of, out);
    }
    blobs(all.map(|t| t.map(str::as_bytes)), of, out)
}

impl Cells for Row {
    fn cell(&self, column: usize) -> Result<Value<'_>> {
        let of = self.columns().get(column).map(|c| c.type_().clone());
        let cell = match of {
            Some(Type::INT8) => get(self, column).map(|n: Option<i64>| n.map(Value::Int)),
            Some(Type::INT4) => get(self, column).map(|n: Option<i32>| n.map(|n| Value::Int(n.into()))),
            Some(Type::BOOL) => get(self, column).map(|n: Option<bool>| n.map(|n| Value::Int(n.into()))),
            Some(Type::FLOAT8) => get(self, column).map(|n: Option<f64>| n.map(Value::Real)),
            Some(Type::BYTEA) => get(self, column).map(|n: Option<&[u8]>| n.map(Value::Blob)),
            Some(_) => get(self, column).map(|n: Option<&str>| n.map(Value::Text)),
            None => Err(StoreError::Broken(format!("a row has no column {column}"))),
        };
        cell.map(|value| value.unwrap_or(Value::Null))
    }
}

fn get<'r, T: FromSql<'r>>(row: &'r Row, column: usize) -> Result<T> {
    row.try_get(column).map_err(|e| StoreError::Broken(format!("column {column} of a row: {e}")))
}
