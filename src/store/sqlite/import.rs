//! What an import brings: accounts with hashes of another program, and revoked tokens of which only the id is known.

use std::time::Duration;

use rusqlite::OptionalExtension;

use super::{Store, accounts, revocations};
use crate::clock::UnixTime;
use crate::secret::Secret;
use crate::store::{Error, Imported, Key, Kind, NewAccount, Revocation};

// The conditions are the partial index's, word for word: SQLite uses it for nothing else. The last of its accounts makes
// sure that one is found.
const OLD_HASH: &str = "SELECT hash FROM account WHERE substr(hash, 1, 10) <> x'246172676f6e32696424'
    AND id >= ?1 % (1 + (SELECT max(id) FROM account WHERE substr(hash, 1, 10) <> x'246172676f6e32696424'))
    ORDER BY id LIMIT 1";

const EXISTS: &str = "SELECT EXISTS (SELECT 1 FROM account WHERE username = ?1)";

const REMEMBER: &str = "INSERT INTO imported (key) VALUES (?1) ON CONFLICT DO NOTHING";

impl Store {
    /// A hash that another program made, when any account still has one: for the same name the same one, as long as those
    /// accounts are the same.
    ///
    /// # Errors
    /// The store's.
    pub async fn find_old_hash(&self, name: &str) -> Result<Option<Secret>, Error> {
        let [a, b, c, d, ..] = Key::subject(None, name).0;
        let number = u32::from_be_bytes([a, b, c, d]);
        let found = self.seek(move |connection| {
            connection.prepare_cached(OLD_HASH)?.query_row([number], |row| row.get::<_, Vec<u8>>(0)).optional()
        });
        Ok(found.await?.map(Secret::new))
    }

    /// Adds accounts, all in one transaction, but for those whose name is taken or was imported before; what became of
    /// each.
    ///
    /// # Errors
    /// The store's; then none was added.
    pub async fn import_accounts(&self, new: Vec<NewAccount>) -> Result<Vec<Imported>, Error> {
        self.write(move |connection| {
            let import = |account: &NewAccount| {
                let name = account.username.as_str();
                let first = connection.prepare_cached(REMEMBER)?.execute([Key::subject(None, name).0])? == 1;
                if connection.prepare_cached(EXISTS)?.query_row([name], |row| row.get(0))? {
                    return Ok(Imported::Exists);
                }
                if !first {
                    return Ok(Imported::Deleted);
                }
                Ok(accounts::add(connection, account)?.map_or(Imported::Exists, |_| Imported::Added))
            };
            new.iter().map(import).collect()
        })
        .await
    }

    /// Revokes tokens by their id, all in one transaction, each until `life` after its revocation: how many were not
    /// revoked before. One that is kept for as long as that already is left alone.
    ///
    /// # Errors
    /// The store's; then none was revoked.
    pub async fn import_revoked(&self, tokens: Vec<Key>, at: UnixTime, life: Duration) -> Result<usize, Error> {
        self.write(move |connection| {
            let mut new = 0;
            for key in tokens {
                let known = revocations::find(connection, key)?;
                if known.as_ref().is_some_and(|known| known.keep_until >= known.at + life) {
                    continue;
                }
                new += usize::from(known.is_none());
                let generation = Default::default();
                let revocation = Revocation { key, kind: Kind::Token, generation, at, keep_until: at + life };
                revocations::add(connection, &revocation)?;
            }
            Ok(new)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{name, newcomer, sqlite};

    const AT: UnixTime = UnixTime::from_secs(1_800_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn store(folder: &tempfile::TempDir) -> Store {
        Store::open(&sqlite(&folder.path().join("portcullis.db"))).unwrap()
    }

    #[tokio::test]
    async fn an_old_hash_is_found_by_its_index_until_it_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        let plan: Vec<String> = store
            .seek(|connection| {
                let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {OLD_HASH}"))?;
                plan.query_map([0], |row| row.get(3))?.collect()
            })
            .await
            .unwrap();
        let looks = plan.iter().filter(|line| line.starts_with("SEARCH") && line.contains("account_old_hash"));
        assert_eq!((looks.count(), plan.iter().any(|line| line.starts_with("SCAN"))), (2, false), "{plan:?}");
        let old = NewAccount { hash: Secret::new("$pbkdf2-sha256$x"), ..newcomer("old") };
        let outcome = store.import_accounts(vec![newcomer("new"), old.clone(), newcomer("new")]).await.unwrap();
        assert_eq!(outcome, [Imported::Added, Imported::Added, Imported::Exists]);
        for any in ["a", "b", "c", "old", ""] {
            assert_eq!(store.find_old_hash(any).await.unwrap().unwrap().expose(), b"$pbkdf2-sha256$x");
        }
        let account = store.find_account(&name("old")).await.unwrap().unwrap();
        assert!(store.upgrade_hash(account.id, account.hash, Secret::new("$argon2id$x")).await.unwrap());
        assert!(store.find_old_hash("a").await.unwrap().is_none());
        store.delete_account(&name("old"), AT, AT + DAY).await.unwrap().unwrap();
        assert_eq!(store.import_accounts(vec![old]).await.unwrap(), [Imported::Deleted]);
    }

    #[tokio::test]
    async fn a_revoked_token_is_kept_for_the_longer_life_and_written_only_then() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        let key = Key::token(None, "a");
        let import = async |at, life| store.import_revoked(vec![key, key], at, life).await.unwrap();
        let rows = async || store.revocations_after(0, 10).await.unwrap();
        assert_eq!(import(AT, DAY).await, 1);
        let first = rows().await;
        assert_eq!((first.len(), first[0].1.keep_until), (1, AT + DAY));
        assert_eq!(import(AT + DAY / 2, DAY).await, 0);
        assert_eq!(rows().await, first);
        assert_eq!(import(AT + DAY / 2, 2 * DAY).await, 0);
        let again = rows().await;
        assert_eq!((again.len(), again[0].1.keep_until), (1, AT + DAY / 2 + 2 * DAY));
    }
}
