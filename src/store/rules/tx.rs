//! What the rules need of a database: statements by their text, values and rows. Each database is an adapter behind
//! [`Database`]; the rules above it stand once.
//!
//! One text serves both databases: `?1` is a parameter, and what stands in `/*pg: … */` is said to PostgreSQL alone.

use crate::store::{Result, StoreError};

mod values;
pub(crate) use values::params;
pub use values::{Bind, FromCell, Params};

/// A value on its way to the database or from it, borrowed.
#[derive(Clone, Copy, Debug)]
pub enum Value<'v> {
    Null,
    Int(i64),
    Real(f64),
    Text(&'v str),
    Blob(&'v [u8]),
    /// Columns of many rows: a statement for any number of them (PostgreSQL alone has these).
    Column(&'v Column<'v>),
}

/// One column of many rows; texts and bytes stay where they are.
#[derive(Debug)]
pub enum Column<'v> {
    Ints(Vec<Option<i64>>),
    Texts(Vec<Option<&'v str>>),
    Blobs(Vec<Option<&'v [u8]>>),
}

impl<'v> Column<'v> {
    pub fn len(&self) -> usize {
        match self {
            Column::Ints(all) => all.len(),
            Column::Texts(all) => all.len(),
            Column::Blobs(all) => all.len(),
        }
    }

    pub fn ints(all: impl IntoIterator<Item = i64>) -> Column<'v> {
        Column::Ints(all.into_iter().map(Some).collect())
    }

    pub fn texts(all: impl IntoIterator<Item = &'v str>) -> Column<'v> {
        Column::Texts(all.into_iter().map(Some).collect())
    }

    pub fn blobs<B: AsRef<[u8]> + ?Sized + 'v>(all: impl IntoIterator<Item = &'v B>) -> Column<'v> {
        Column::Blobs(all.into_iter().map(|b| Some(b.as_ref())).collect())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Sqlite,
    Postgres,
}

/// One database in one transaction, or in one consistent look.
pub trait Database {
    fn dialect(&self) -> Dialect;
    fn schema_version(&self) -> Result<u32>;
    fn size_bytes(&self) -> Result<u64>;
    /// Rows that it changed.
    fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<u64>;
    /// The same, before the next row is read: nobody waits for it.
    fn later(&self, sql: &str, values: &[Value<'_>]) -> Result<()> {
        self.execute(sql, values).map(drop)
    }
    /// Every row, until `each` says `false`.
    fn query(&self, sql: &str, values: &[Value<'_>], each: Each<'_>) -> Result<()>;
    /// The same statement many times: finding it each time costs as much as a small insert.
    fn hold<'s>(&'s self, sql: &'static str) -> Result<Box<dyn Held + 's>>;
}

pub type Each<'e> = &'e mut dyn FnMut(&Row<'_>) -> Result<bool>;

pub trait Held {
    fn execute(&mut self, values: &[Value<'_>]) -> Result<u64>;
    /// Whether it finds a row.
    fn exists(&mut self, values: &[Value<'_>]) -> Result<bool>;
    /// The one number that it finds.
    fn number(&mut self, values: &[Value<'_>]) -> Result<Option<i64>>;
}

/// The cells of one row.
pub trait Cells {
    fn cell(&self, column: usize) -> Result<Value<'_>>;
}

pub struct Row<'r>(pub &'r dyn Cells);

impl Row<'_> {
    pub fn get<T: FromCell>(&self, column: usize) -> Result<T> {
        let cell = self.0.cell(column)?;
        T::from_cell(cell).ok_or_else(|| StoreError::Broken(format!("column {column} of a row holds {cell:.0?}")))
    }
}

/// How the rules speak to their database.
#[derive(Clone, Copy)]
pub struct Tx<'c>(pub &'c dyn Database);

impl<'c> Tx<'c> {
    pub fn dialect(&self) -> Dialect {
        self.0.dialect()
    }

    pub fn is_postgres(&self) -> bool {
        self.dialect() == Dialect::Postgres
    }

    pub fn schema_version(&self) -> Result<u32> {
        self.0.schema_version()
    }

    pub fn size_bytes(&self) -> Result<u64> {
        self.0.size_bytes()
    }

    pub fn prepare_cached<'s>(&self, sql: &'s str) -> Result<Statement<'c, 's>> {
        Ok(Statement { db: self.0, sql })
    }

    pub fn query_row<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> std::result::Result<T, Miss> {
        Statement { db: self.0, sql }.query_row(params, read)
    }

    pub fn hold(&self, sql: &'static str) -> Result<Box<dyn Held + 'c>> {
        self.0.hold(sql)
    }
}

pub struct Statement<'c, 's> {
    db: &'c dyn Database,
    sql: &'s str,
}

impl Statement<'_, '_> {
    pub fn execute(&mut self, params: impl Params) -> Result<u64> {
        self.db.execute(self.sql, &params.values())
    }

    /// For a change of which nothing is asked: many of them travel together.
    pub fn later(&mut self, params: impl Params) -> Result<()> {
        self.db.later(self.sql, &params.values())
    }

    pub fn query_row<T>(
        &mut self,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> std::result::Result<T, Miss> {
        let mut found = None;
        let mut each = |row: &Row<'_>| {
            found = Some(read(row)?);
            Ok(false)
        };
        self.db.query(self.sql, &params.values(), &mut each).map_err(Miss::Failed)?;
        found.ok_or(Miss::NoRow)
    }

    pub fn query_map<T>(&mut self, params: impl Params, mut read: impl FnMut(&Row<'_>) -> Result<T>) -> Result<Vec<T>> {
        let mut all = Vec::new();
        self.each(params, |row| {
            all.push(read(row)?);
            Ok(true)
        })?;
        Ok(all)
    }

    /// Row after row, until one says `false`.
    pub fn each(&mut self, params: impl Params, mut each: impl FnMut(&Row<'_>) -> Result<bool>) -> Result<()> {
        self.db.query(self.sql, &params.values(), &mut each)
    }

    pub fn exists(&mut self, params: impl Params) -> Result<bool> {
        let mut found = false;
        self.each(params, |_| {
            found = true;
            Ok(false)
        })?;
        Ok(found)
    }
}

/// Why there is no such row to read.
#[derive(Debug)]
pub enum Miss {
    NoRow,
    Failed(StoreError),
}

impl From<Miss> for StoreError {
    fn from(miss: Miss) -> StoreError {
        match miss {
            Miss::NoRow => StoreError::Broken("a row that others refer to is not there".into()),
            Miss::Failed(why) => why,
        }
    }
}

pub trait Optional<T> {
    fn optional(self) -> Result<Option<T>>;
}

impl<T> Optional<T> for std::result::Result<T, Miss> {
    fn optional(self) -> Result<Option<T>> {
        match self {
            Ok(found) => Ok(Some(found)),
            Err(Miss::NoRow) => Ok(None),
            Err(Miss::Failed(why)) => Err(why),
        }
    }
}
