//! Rows on their way from one database to another, in pages of columns: whatever columns the schema has.

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Int,
    Real,
    Text,
    Blob,
}

/// A table as the database has it that the rows go to.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: &'static str,
    pub columns: Vec<(String, Kind)>,
}

/// One column of some rows.
#[derive(Clone, Debug)]
pub enum Cells {
    Ints(Vec<Option<i64>>),
    Reals(Vec<Option<f64>>),
    Texts(Vec<Option<String>>),
    Blobs(Vec<Option<Vec<u8>>>),
}

impl Cells {
    pub fn of(kind: Kind) -> Cells {
        match kind {
            Kind::Int => Cells::Ints(Vec::new()),
            Kind::Real => Cells::Reals(Vec::new()),
            Kind::Text => Cells::Texts(Vec::new()),
            Kind::Blob => Cells::Blobs(Vec::new()),
        }
    }
}

/// Some rows of one table.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its place among the tables.
    pub table: usize,
    pub rows: u64,
    pub columns: Vec<Cells>,
}

/// What a store counts: its name, the numbers that are next, the mails that have left.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    pub store_id: i64,
    pub next_event: i64,
    pub next_digest: i64,
    pub next_letter: i64,
    pub mails_sent: i64,
}
