//! Takes in the rows of another store, in one transaction: all of them, or none.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error};

use super::access::Access;
use super::connect::Server;
use super::errors::named;
use super::schema;
use crate::store::moving::{Cells, Kind, Numbers, Page, Table};
use crate::store::{Result, StoreError};

/// What a store is made of; how the worker's parts are is theirs to say.
const TABLES: &[&str] = &[
    "event",
    "subject",
    "standing",
    "asked",
    "mailbox",
    "digest",
    "item",
    "relisted",
    "attempt",
    "ledger_total",
    "ledger_delta",
    "dead_letter",
    "suppression",
    "pause",
    "quota",
    "quota_use",
];

/// Tables whose numbers the database gives.
const NUMBERED: &[&str] = &["mailbox", "ledger_delta"];

/// An empty store that is being filled. Dropped before the end, it stays empty.
pub struct Loader {
    client: Client,
    place: String,
}

impl Loader {
    /// Connects, brings the schema up to date, and sees to it that nothing is there.
    ///
    /// # Errors
    /// The server can't be reached, or the store has something in it.
    pub async fn begin(access: &Access) -> Result<Loader> {
        let server = Server::new(access)?;
        nobody_else(&server).await?;
        let loader = Loader { client: schema::prepare(&server, true).await?, place: server.place };
        // A worker that starts meanwhile waits for the end.
        loader
            .run(&format!("BEGIN; {} LOCK TABLE meta, event IN EXCLUSIVE MODE", schema::without_bounds("SET LOCAL")))
            .await?;
        for table in TABLES {
            let row = loader.client.query_one(&format!("SELECT EXISTS (SELECT 1 FROM {table})"), &[]).await;
            if row.and_then(|row| row.try_get(0)).map_err(|e| loader.named(&e))? {
                return Err(StoreError::Refused(format!(
                    "{}: the store is not empty ({table} has rows); name an empty database in store.url",
                    loader.place
                )));
            }
        }
        Ok(loader)
    }

    /// The tables as they are to be filled.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn tables(&self) -> Result<Vec<Table>> {
        const COLUMNS: &str = "SELECT column_name::text, data_type::text FROM information_schema.columns \
             WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position";
        let mut tables = Vec::new();
        for name in TABLES {
            let mut columns = Vec::new();
            for row in self.client.query(COLUMNS, &[name]).await.map_err(|e| self.named(&e))? {
                let column: String = row.try_get(0).map_err(|e| self.named(&e))?;
                let kind = match row.try_get(1).map_err(|e| self.named(&e))? {
                    "bigint" => Kind::Int,
                    "double precision" => Kind::Real,
                    "bytea" => Kind::Blob,
                    _ => Kind::Text,
                };
                columns.push((column, kind));
            }
            tables.push(Table { name, columns });
        }
        Ok(tables)
    }

    /// # Errors
    /// A row can't be taken, or the connection is lost.
    pub async fn add(&self, table: &Table, page: Page) -> Result<()> {
        let names: Vec<&str> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
        let arrays: Vec<String> = table
            .columns
            .iter()
            .enumerate()
            .map(|(i, (_, kind))| format!("${}::{}[]", i + 1, type_of(*kind)))
            .collect();
        let statement = format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT * FROM unnest({})",
            table.name,
            names.join(", "),
            arrays.join(", ")
        );
        let columns: Vec<Cells> = page.columns.into_iter().map(without_nul).collect();
        let values: Vec<&(dyn ToSql + Sync)> = columns.iter().map(array).collect();
        self.client.execute(&statement, &values).await.map_err(|e| self.named(&e))?;
        Ok(())
    }

    /// The store is what the other one was, under its name: ids of digests stay what they are.
    ///
    /// # Errors
    /// The transaction can't be committed; then the store is empty.
    pub async fn finish(self, n: Numbers) -> Result<()> {
        const META: &str = "INSERT INTO meta (one, store_id, mails_sent) VALUES (1, $1, $2) \
             ON CONFLICT (one) DO UPDATE SET store_id = excluded.store_id, mails_sent = excluded.mails_sent";
        self.client.execute(META, &[&n.store_id, &n.mails_sent]).await.map_err(|e| self.named(&e))?;
        for (sequence, next) in [("event_no", n.next_event), ("digest_no", n.next_digest), ("letter_no", n.next_letter)]
        {
            let set = format!("SELECT setval('{sequence}', greatest($1::int8, 1))");
            self.client.execute(&set, &[&next]).await.map_err(|e| self.named(&e))?;
        }
        for table in NUMBERED {
            let set = format!(
                "SELECT setval(pg_get_serial_sequence('{table}', 'no'), (SELECT coalesce(max(no), 0) + 1 FROM {table}))"
            );
            self.client.execute(&set, &[]).await.map_err(|e| self.named(&e))?;
        }
        self.run("COMMIT").await?;
        // The planner has seen empty tables until now.
        self.run("ANALYZE").await
    }

    async fn run(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.map_err(|e| self.named(&e))
    }

    fn named(&self, e: &Error) -> StoreError {
        named(&self.place, e)
    }
}

/// A worker that runs on what is there now would end with the copy, in the middle of something. (It is found where its
/// connections can be seen; where they can not, it notices, and writes nothing more.)
async fn nobody_else(server: &Server) -> Result<()> {
    const OTHERS: &str = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
         AND application_name = current_setting('application_name') LIMIT 1";
    if server.has_pooler() {
        // Its connections stay when nobody has them.
        return Ok(());
    }
    let client = server.connect().await?.client;
    match schema::number(&client, OTHERS).await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(StoreError::Refused(format!(
            "{}: an owlpost is connected to this store; stop the workers first (in pg_stat_activity they are \
             application_name owlpost)",
            server.place
        ))),
        Err(e) => Err(named(&server.place, &e)),
    }
}

fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "int8",
        Kind::Real => "float8",
        Kind::Text => "text",
        Kind::Blob => "bytea",
    }
}

fn array(cells: &Cells) -> &(dyn ToSql + Sync) {
    match cells {
        Cells::Ints(all) => all,
        Cells::Reals(all) => all,
        Cells::Texts(all) => all,
        Cells::Blobs(all) => all,
    }
}

/// PostgreSQL's text takes no NUL; what the worker writes has the same in its place.
fn without_nul(cells: Cells) -> Cells {
    match cells {
        Cells::Texts(all) => Cells::Texts(all.into_iter().map(|t| t.map(|t| t.replace('\0', "\u{fffd}"))).collect()),
        other => other,
    }
}
