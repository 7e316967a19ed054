//! How the rules speak to a SQLite connection.

use std::path::Path;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, OptionalExtension, ToSql, params_from_iter};

use super::file::{named, schema_version};
use crate::store::rules::tx::{Cells, Database, Dialect, Each, Held, Row, Value};
use crate::store::rules::{AsOf, LITE_OTHERS};
use crate::store::{Result, StoreError};

pub(super) struct Link<'c> {
    pub conn: &'c Connection,
    pub path: &'c Path,
}

impl Link<'_> {
    /// The state of the file that this connection sees.
    pub fn as_of(&self) -> Result<AsOf> {
        let others = self.conn.prepare_cached(LITE_OTHERS)?.query_row([], |row| row.get(0))?;
        Ok(AsOf { others, own: self.conn.total_changes() })
    }

    fn named(&self, e: &rusqlite::Error) -> StoreError {
        named(self.path, e)
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Int(n) => ValueRef::Integer(*n),
            Value::Real(x) => ValueRef::Real(*x),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
            Value::Column(_) => return Err(rusqlite::Error::ToSqlConversionFailure("SQLite takes no columns".into())),
        }))
    }
}

impl Cells for rusqlite::Row<'_> {
    fn cell(&self, column: usize) -> Result<Value<'_>> {
        Ok(match self.get_ref(column)? {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(n) => Value::Int(n),
            ValueRef::Real(x) => Value::Real(x),
            ValueRef::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => Value::Text(text),
                Err(e) => return Err(StoreError::Broken(format!("column {column} of a row holds no text: {e}"))),
            },
            ValueRef::Blob(bytes) => Value::Blob(bytes),
        })
    }
}

impl Database for Link<'_> {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn schema_version(&self) -> Result<u32> {
        schema_version(self.conn).map_err(|e| self.named(&e))
    }

    fn size_bytes(&self) -> Result<u64> {
        let pragma = |name| self.conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let pages = pragma("page_count").map_err(|e| self.named(&e))?;
        let size = pragma("page_size").map_err(|e| self.named(&e))?;
        Ok(u64::try_from(pages.saturating_mul(size)).unwrap_or(0))
    }

    fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<u64> {
        let mut statement = self.conn.prepare_cached(sql).map_err(|e| self.named(&e))?;
        Ok(statement.execute(params_from_iter(values)).map_err(|e| self.named(&e))? as u64)
    }

    fn query(&self, sql: &str, values: &[Value<'_>], each: Each<'_>) -> Result<()> {
        let mut statement = self.conn.prepare_cached(sql).map_err(|e| self.named(&e))?;
        let mut rows = statement.query(params_from_iter(values)).map_err(|e| self.named(&e))?;
        while let Some(row) = rows.next().map_err(|e| self.named(&e))? {
            if !each(&Row(row))? {
                break;
            }
        }
        Ok(())
    }

    fn hold<'s>(&'s self, sql: &'static str) -> Result<Box<dyn Held + 's>> {
        Ok(Box::new(Hand(self.conn.prepare_cached(sql).map_err(|e| self.named(&e))?)))
    }
}

struct Hand<'s>(CachedStatement<'s>);

impl Held for Hand<'_> {
    fn execute(&mut self, values: &[Value<'_>]) -> Result<u64> {
        Ok(self.0.execute(params_from_iter(values))? as u64)
    }

    fn exists(&mut self, values: &[Value<'_>]) -> Result<bool> {
        Ok(self.0.exists(params_from_iter(values))?)
    }

    fn number(&mut self, values: &[Value<'_>]) -> Result<Option<i64>> {
        Ok(self.0.query_row(params_from_iter(values), |row| row.get(0)).optional()?.flatten())
    }
}
