//! Who of several workers asks the account what it may send: a row of the store says since when somebody does.

use super::books::{Books, Hold, read_quota, used_shares};
use super::sql;
use crate::model::Time;
use crate::store::rules::tx::{Optional, params};
use crate::store::{Asking, Ours, Result, Turn};

const ASKING: &str = "asking";

/// Takes the turn if nobody has it and the last answer is old.
pub(super) fn take_turn(books: &mut Books<'_>, turn: Turn) -> Result<Asking> {
    let now = books.now;
    let Some(account) = books.shared.account.clone() else { return Ok(Asking::Mine(Ours { used: 0, at: now })) };
    let mine = || Ok(Asking::Mine(Ours { used: used_shares(books.tx, &account, now, now)?, at: now }));
    // A file has one worker.
    if !books.tx.is_postgres() {
        return mine();
    }
    let stale = [now.minus(turn.within).0, now.minus(turn.fresh).0];
    // Since a moment that is still to come: the server's clock was set back.
    let ahead = now.plus(turn.fresh).0;
    if books.tx.prepare_cached(sql::TAKE_TURN)?.execute(params![account, now.0, stale[0], stale[1], ahead])? > 0 {
        return mine();
    }
    let of = |row: &crate::store::rules::tx::Row<'_>| Ok((row.get::<String>(0)?, Time(row.get(1)?)));
    let found = books.tx.prepare_cached(sql::TURN)?.query_row([&account], of).optional()?;
    let asks = found.as_ref().is_none_or(|(state, _)| state == ASKING);
    let again = found.map_or(now, |(_, since)| since.plus(if asks { turn.within } else { turn.fresh }));
    // While somebody asks, what is stored may be of any age.
    let known = if asks { None } else { read_quota(books.tx, Hold::Look, &account)?.map(|quota| quota.terms) };
    Ok(Asking::Theirs { again, known })
}

/// The account has answered whoever asked then.
pub(super) fn answered(books: &Books<'_>, asked_at: Time) -> Result<()> {
    let Some(account) = &books.shared.account else { return Ok(()) };
    books.tx.prepare_cached(sql::END_TURN)?.execute(params![account, books.now.0, asked_at.0]).map(drop)
}
