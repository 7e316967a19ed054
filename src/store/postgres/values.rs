//! Values of the rules as PostgreSQL's, and back.

use std::error::Error;

use tokio_postgres::Row;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

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
    Column(Column),
}

impl From<&Value<'_>> for Owned {
    fn from(value: &Value<'_>) -> Owned {
        match *value {
            Value::Null => Owned::Null,
            Value::Int(n) => Owned::Int(n),
            Value::Real(x) => Owned::Real(x),
            Value::Text(text) => Owned::Text(text.to_owned()),
            Value::Blob(bytes) => Owned::Blob(bytes.to_vec()),
            Value::Column(column) => Owned::Column(column.clone()),
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
            Owned::Column(column) => Value::Column(column),
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
            Value::Column(Column::Ints(all)) => all.to_sql(of, out),
            Value::Column(Column::Blobs(all)) => all.to_sql(of, out),
            Value::Column(Column::Texts(all)) if all.iter().flatten().any(|t| t.contains('\0')) => {
                let clean: Vec<_> = all.iter().map(|t| t.as_ref().map(|t| t.replace('\0', "\u{fffd}"))).collect();
                clean.to_sql(of, out)
            }
            Value::Column(Column::Texts(all)) => all.to_sql(of, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
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
