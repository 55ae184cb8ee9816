//! Ending tokens by when they were issued. A token tells its account's generation; only one without it is judged by its
//! `iat`. So an account that is older than the moment is given a new generation, which ends its later tokens too; a younger
//! one has only tokens of other programs to lose.

use rusqlite::{OptionalExtension, Row, params};

use super::transaction::WriteConnection;
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

fn end(connection: &WriteConnection, subject: &Subject, cut: Cut) -> rusqlite::Result<()> {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::NewAccount;
    use crate::store::tests::{name, newcomer, sqlite};

    const AT: UnixTime = UnixTime::from_secs(1_800_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    #[tokio::test]
    async fn the_older_account_gets_a_new_generation_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&sqlite(&folder.path().join("portcullis.db"))).unwrap();
        for (name, at) in [("old", AT), ("young", AT + DAY)] {
            store.register(NewAccount { at, ..newcomer(name) }, None).await.unwrap();
        }
        let generation = async |of| store.find_account(&name(of)).await.unwrap().unwrap().generation.0;
        let entry = async |of: &str| {
            let found = store.find_revocations(vec![Key::subject(None, of)]).await.unwrap();
            found.first().map(|entry| (entry.generation.0, entry.at, entry.keep_until))
        };
        let cut = Cut { before: AT + DAY / 2, at: AT + 2 * DAY, life: 30 * DAY };
        let first = store.cut_accounts(AccountId(0), 1, cut).await.unwrap();
        assert_eq!((first.len(), generation("old").await, generation("young").await), (1, 1, 0));
        assert_eq!(store.cut_accounts(first[0], 10, cut).await.unwrap().len(), 1);
        let kept = (cut.before, AT + 32 * DAY);
        assert_eq!((entry("old").await, entry("young").await), (Some((1, kept.0, kept.1)), Some((0, kept.0, kept.1))));
        for earlier in [cut, Cut { before: AT + DAY / 4, ..cut }, Cut { at: AT + 3 * DAY, ..cut }] {
            store.cut_account(&name("old"), earlier).await.unwrap().unwrap();
            store.cut_account(&name("young"), earlier).await.unwrap().unwrap();
        }
        assert_eq!((generation("old").await, generation("young").await), (1, 0), "it was done already");
        assert_eq!(entry("old").await, Some((1, kept.0, kept.1)));
        store.cut_account(&name("young"), Cut { before: AT + 2 * DAY, ..cut }).await.unwrap().unwrap();
        assert_eq!(generation("young").await, 1);
        assert_eq!(store.cut_account(&name("nobody"), cut).await.unwrap(), None);
    }
}
