//! How a PostgreSQL store is reached, and by whom: through a pooler, with a password that changes, by roles of few rights;
//! and what is said when it is not.

#[path = "support/certificates.rs"]
mod certificates;
#[path = "postgres_access/iam.rs"]
mod iam;
#[path = "support/ldap.rs"]
mod ldap;
#[path = "support/pgbouncer.rs"]
mod pgbouncer;
#[path = "postgres_access/pooler.rs"]
mod pooler;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/process.rs"]
mod process;
#[path = "postgres_access/refusals.rs"]
mod refusals;
#[path = "postgres_access/roles.rs"]
mod roles;
#[path = "postgres/store.rs"]
mod store;
