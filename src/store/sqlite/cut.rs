//! Ending tokens by when they were issued. A token tells its account's generation; only one without it is judged by its
//! `iat`. So an account that is older than the moment is given a new generation, which ends its later tokens too; a younger
//! one has only tokens of other programs to lose.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Store, revocations};
use crate::clock::UnixTime;
use crate::model::{AccountId, Generation, Username};
use crate::store::{Cut, Error, Key, Kind, Revocation};

const ONE: &str = "SELECT id, username, generation, created FROM account WHERE username = ?1";

const PAGE: &str = "SELECT id, username, generation, created FROM account WHERE id > ?1 ORDER BY id LIMIT ?2";

const RAISE: &str = "UPDATE account SET generation = ?2 WHERE id = ?1";

/// What decides over an account.
struct Subject {
    id: AccountId,
    name: String,
    generation: Generation,
    created: UnixTime,
}

impl Store {
    /// Ends an account's tokens that were issued before a moment; `None` when there is none of that name. Where they have
    /// ended already, nothing is changed.
    ///
    /// # Errors
    /// The store's.
    pub async fn cut_account(&self, username: &Username, cut: Cut) -> Result<Option<()>, Error> {
        let username = username.clone();
        self.write(move |connection| {
            let found = connection.prepare_cached(ONE)?.query_row([username.as_str()], read).optional()?;
            found.map(|subject| end(connection, &subject, cut)).transpose()
        })
        .await
    }

    /// The same for up to `limit` accounts with an id above `after`, all in one transaction: their ids.
    ///
    /// # Errors
    /// The store's; then nothing was changed.
    pub async fn cut_accounts(&self, after: AccountId, limit: u32, cut: Cut) -> Result<Vec<AccountId>, Error> {
        self.write(move |connection| {
            let page: Vec<Subject> =
                connection.prepare_cached(PAGE)?.query_map(params![after.0, limit], read)?.collect::<Result<_, _>>()?;
            page.iter().map(|subject| end(connection, subject, cut).map(|()| subject.id)).collect()
        })
        .await
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Subject> {
    Ok(Subject {
        id: AccountId(row.get(0)?),
        name: row.get(1)?,
        generation: Generation(row.get(2)?),
        created: UnixTime::from_millis(row.get(3)?),
    })
}

fn end(connection: &Connection, subject: &Subject, cut: Cut) -> rusqlite::Result<()> {
    let key = Key::subject(None, &subject.name);
    let done = |known: &Revocation| {
        known.at >= cut.before && known.generation == subject.generation && known.keep_until >= cut.before + cut.life
    };
    if revocations::find(connection, key)?.as_ref().is_some_and(done) {
        return Ok(());
    }
    let mut generation = subject.generation;
    if subject.created < cut.before {
        generation = generation.next();
        connection.prepare_cached(RAISE)?.execute(params![subject.id.0, generation.0])?;
    }
    let keep_until = cut.at + cut.life;
    let revocation = Revocation { key, kind: Kind::Subject, generation, at: cut.before, keep_until };
    revocations::add(connection, &revocation)
}
