//! How the rules speak to a PostgreSQL connection: each statement is prepared once a connection and waited for here, in
//! the blocking thread that runs the transaction.

use std::cell::{Cell, RefCell};
use std::future::{poll_fn, ready};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::Either;
use tokio::runtime::Handle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Statement};

use super::connect::Connection;
use super::errors::{Conflict, is_read_only, named};
use super::patience;
use super::queue::Queue;
use super::schema::numbers;
use super::values::Bound;
use crate::store::rules::tx::{Database, Dialect, Each, Held, Row, Value};
use crate::store::{Result, StoreError};

/// READ COMMITTED is what the rules are written for: a statement sees what was committed before it, whatever the database
/// says of those that say nothing. Planned without statistics: tables are empty when the first plans are made. Every
/// statement of the worker finds its rows by an index. What was committed survives a crash of the server, also where the
/// database or the role says otherwise: an event was acknowledged, a call was begun (but for permits that are drawn for a begin,
/// `permits.rs`). `SET LOCAL` ends with the
/// transaction, so that a pooler in between may give each its own connection.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL plan_cache_mode = force_generic_plan; \
     SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL jit = off; \
     SET LOCAL statement_timeout = '30s'; SET LOCAL idle_in_transaction_session_timeout = '60s'; \
     SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'; \
     SELECT store_id, (extract(epoch FROM clock_timestamp()) * 1000000)::int8 FROM meta WHERE one = 1";
/// One picture for many statements.
pub(super) const BEGIN_LOOK: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = '60s'; \
     SET LOCAL idle_in_transaction_session_timeout = '60s'";
pub(super) const BEGIN_PEEK: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL statement_timeout = '10s'; \
     SET LOCAL idle_in_transaction_session_timeout = '60s'";

pub(super) struct Link<'c> {
    pub connection: &'c Connection,
    pub handle: &'c Handle,
    pub place: &'c str,
    /// The longest wait for an answer.
    bound: Duration,
    /// A statement failed: the transaction can only be rolled back.
    failed: Cell<bool>,
    /// No answer came: nothing more is asked on this connection.
    silent: Cell<bool>,
    /// It lost a race, of which the server said this: the same again may do.
    conflict: RefCell<Option<Conflict>>,
    /// Changes that nobody has waited for yet, in their order.
    queue: RefCell<Queue>,
}

impl<'c> Link<'c> {
    /// `of_server`: its own bound on a statement.
    pub fn new(connection: &'c Connection, handle: &'c Handle, place: &'c str, of_server: Duration) -> Link<'c> {
        Link {
            connection,
            handle,
            place,
            bound: patience::above(of_server),
            failed: Cell::new(false),
            silent: Cell::new(false),
            conflict: RefCell::default(),
            queue: RefCell::default(),
        }
    }

    pub fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// The server said nothing: whether the last question was done, nobody knows.
    pub fn is_silent(&self) -> bool {
        self.silent.get()
    }

    /// The race that was lost.
    pub fn conflict(&self) -> Option<Conflict> {
        self.conflict.borrow_mut().take()
    }

    /// Nothing that the transaction has prepared is needed any more.
    pub fn end_of_transaction(&self) {
        self.queue.borrow_mut().clear();
        self.connection.end_of_transaction();
    }

    /// Begins a transaction that may write, in one message with a look at who the store is: another one may have been copied
    /// into the database since it was opened, and its digests are not ours. `wait`: for each row that somebody else has.
    /// Gives the server's time, in microseconds.
    pub fn begin(&self, store_id: u32, wait: Duration) -> Result<i64> {
        let begin = format!("{BEGIN}; SET LOCAL lock_timeout = {}", wait.as_millis());
        let found = self.wait_for(patience::SOON, numbers(&self.connection.client, &begin))?;
        if let Some([id, server_us]) = found
            && id == i64::from(store_id)
        {
            return Ok(server_us);
        }
        Err(StoreError::Unusable(format!(
            "{}: the store is another one than at the start: it was replaced, by `owlpost store copy` perhaps; start again",
            self.place
        )))
    }

    /// Statements without values and rows.
    pub fn batch(&self, sql: &str) -> Result<()> {
        self.wait(self.connection.client.batch_execute(sql))
    }

    /// The same, where nobody's lock is in the way.
    pub fn short(&self, sql: &str) -> Result<()> {
        self.wait_for(patience::SOON, self.connection.client.batch_execute(sql))
    }

    /// Sends what is queued: all at once, and done in its order.
    pub fn flush(&self) -> Result<()> {
        let changes = self.queue.borrow_mut().take();
        // Preparing waits for its answer; what follows does not wait for one another.
        let prepared = changes.iter().map(|change| self.prepare(&change.sql)).collect::<Result<Vec<_>>>()?;
        if changes.is_empty() {
            return Ok(());
        }
        let client = &self.connection.client;
        // Each is on its way when it was asked once. They are waited for in their order: of several that failed only the
        // first says why.
        let bound: Vec<Vec<&(dyn ToSql + Sync)>> =
            changes.iter().map(|change| change.values.iter().map(|v| v as _).collect()).collect();
        self.wait(async {
            let mut all = Vec::new();
            for (statement, values) in prepared.iter().zip(&bound) {
                let mut one = Box::pin(client.execute(statement, values));
                match poll_fn(|cx| Poll::Ready(one.as_mut().poll(cx))).await {
                    Poll::Ready(done) => all.push(Either::Left(ready(done))),
                    Poll::Pending => all.push(Either::Right(one)),
                }
            }
            for one in all {
                one.await?;
            }
            Ok(())
        })
    }

    fn wait<T>(&self, answer: impl Future<Output = std::result::Result<T, Error>>) -> Result<T> {
        self.wait_for(self.bound, answer)
    }

    fn wait_for<T>(&self, bound: Duration, answer: impl Future<Output = std::result::Result<T, Error>>) -> Result<T> {
        match self.handle.block_on(async { tokio::time::timeout(bound, answer).await }) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(e)) => {
                self.failed.set(true);
                if let Some(conflict) = Conflict::of(&e) {
                    self.conflict.replace(Some(conflict));
                }
                if is_read_only(&e) {
                    // Another server may be the primary by now.
                    self.connection.retire();
                }
                Err(named(self.place, &e))
            }
            Err(_) => {
                self.failed.set(true);
                self.silent.set(true);
                self.connection.give_up();
                Err(patience::silent(self.place, bound))
            }
        }
    }

    fn prepare(&self, sql: &str) -> Result<Statement> {
        if let Some(known) = self.connection.known(sql) {
            return Ok(known);
        }
        let statement = self.wait(self.connection.client.prepare(&translate(sql)))?;
        self.connection.keep(sql, &statement);
        Ok(statement)
    }

    fn rows(&self, statement: &Statement, values: &[Value<'_>]) -> Result<Vec<tokio_postgres::Row>> {
        let bound: Vec<Bound<'_>> = values.iter().map(|v| Bound(*v)).collect();
        let bound: Vec<&(dyn ToSql + Sync)> = bound.iter().map(|b| b as _).collect();
        self.wait(self.connection.client.query(statement, &bound))
    }

    fn run(&self, statement: &Statement, values: &[Value<'_>]) -> Result<u64> {
        let bound: Vec<Bound<'_>> = values.iter().map(|v| Bound(*v)).collect();
        let bound: Vec<&(dyn ToSql + Sync)> = bound.iter().map(|b| b as _).collect();
        self.wait(self.connection.client.execute(statement, &bound))
    }
}

impl Database for Link<'_> {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn schema_version(&self) -> Result<u32> {
        let version = super::schema::version(&self.connection.client);
        self.wait(version)
    }

    fn size_bytes(&self) -> Result<u64> {
        let row = self.wait(self.connection.client.query_one("SELECT pg_database_size(current_database())", &[]))?;
        Ok(row.try_get::<_, i64>(0).ok().and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
    }

    fn later(&self, sql: &str, values: &[Value<'_>]) -> Result<()> {
        let mut queue = self.queue.borrow_mut();
        queue.push(sql, values);
        let full = queue.is_full();
        drop(queue);
        if full { self.flush() } else { Ok(()) }
    }

    fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<u64> {
        self.flush()?;
        let statement = self.prepare(sql)?;
        self.run(&statement, values)
    }

    fn query(&self, sql: &str, values: &[Value<'_>], each: Each<'_>) -> Result<()> {
        self.flush()?;
        let statement = self.prepare(sql)?;
        for row in self.rows(&statement, values)? {
            if !each(&Row(&row))? {
                break;
            }
        }
        Ok(())
    }

    fn hold<'s>(&'s self, sql: &'static str) -> Result<Box<dyn Held + 's>> {
        Ok(Box::new(Hand { link: self, statement: self.prepare(sql)? }))
    }
}

struct Hand<'s> {
    link: &'s Link<'s>,
    statement: Statement,
}

impl Held for Hand<'_> {
    fn execute(&mut self, values: &[Value<'_>]) -> Result<u64> {
        self.link.flush()?;
        self.link.run(&self.statement, values)
    }

    fn exists(&mut self, values: &[Value<'_>]) -> Result<bool> {
        self.link.flush()?;
        Ok(!self.link.rows(&self.statement, values)?.is_empty())
    }

    fn number(&mut self, values: &[Value<'_>]) -> Result<Option<i64>> {
        self.link.flush()?;
        let rows = self.link.rows(&self.statement, values)?;
        rows.first().map_or(Ok(None), |row| Row(row).get(0))
    }
}

/// The text that both databases share, in PostgreSQL's words. (Here each item names its digest: a view of SQLite alone tells it.)
fn translate(sql: &str) -> String {
    let mut text = sql.replace('?', "$").replace("CROSS JOIN", "JOIN").replace("placed_item", "item");
    while let Some((before, after)) = text.split_once("/*pg:") {
        let Some((said, rest)) = after.split_once("*/") else { break };
        text = format!("{before}{said}{rest}");
    }
    while let Some((before, after)) = text.split_once(" INDEXED BY ") {
        let rest = after.split_once(' ').map_or("", |(_, rest)| rest);
        text = format!("{before} {rest}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::translate;

    #[test]
    fn what_is_said_to_postgresql_alone_is_a_comment_for_the_other() {
        let both = "SELECT a FROM /*pg: m JOIN*/ d INDEXED BY i WHERE a = ?1 /*pg: FOR UPDATE*/";
        assert_eq!(translate(both), "SELECT a FROM  m JOIN d WHERE a = $1  FOR UPDATE");
    }
}
