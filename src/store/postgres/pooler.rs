//! Whether something between us and the server loses what is prepared. Then a statement fails; or, when another worker's has
//! the same name on the connection that is got, the wrong one is run. So everybody looks before the first statement.

use tokio_postgres::{Client, Error};

use super::errors::named;
use super::{patience, schema};
use crate::store::Result;

/// Others may use the pooler meanwhile, and hide what it does.
const LOOKS: u32 = 3;

/// With two connections to `place` that nobody else uses.
///
/// # Errors
/// It does, and nobody has said so.
pub(super) async fn look(place: &str, client: &Client, other: &Client) -> Result<()> {
    for _ in 0..LOOKS {
        patience::soon(place, keeps(client, other), |e| named(place, e)).await?;
    }
    Ok(())
}

/// A pooler that takes its connections in turn gives another one for the second step. One that takes the last used first
/// gives that to the one who begins, and another one for the third.
async fn keeps(client: &Client, other: &Client) -> std::result::Result<(), Error> {
    let statement = client.prepare("SELECT 1").await?;
    let at_once = client.query_one(&statement, &[]).await;
    other.batch_execute(&format!("BEGIN; {}", schema::without_bounds("SET LOCAL"))).await?;
    let kept = match at_once {
        Ok(_) => client.query_one(&statement, &[]).await,
        lost => lost,
    };
    if kept.is_err() {
        // It may well be here, where it would be in the way of others.
        other.batch_execute("DEALLOCATE ALL").await?;
    }
    other.batch_execute("ROLLBACK").await?;
    kept.map(drop)
}
