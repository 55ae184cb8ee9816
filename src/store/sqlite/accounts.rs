//! Accounts: whatever changes what an account may do raises its generation in the same transaction.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::transaction::WriteConnection;
use super::{Store, revocations, sessions};
use crate::clock::UnixTime;
use crate::model::{ADMIN, AccountId, Generation, Role, Username};
use crate::secret::Secret;
use crate::store::{
    Account, Cleared, Error, Key, Kind, NewAccount, NewPassword, NewSession, Registered, Revocation, Use, Warrant,
};

// A namesake's tokens stay dead: the new account starts at the generation below which its name is revoked.
const ADD: &str = "INSERT INTO account (username, hash, generation, disabled, created)
    VALUES (?1, ?2, coalesce((SELECT generation FROM revocation WHERE key = ?3), 0), 0, ?4)
    ON CONFLICT (username) DO NOTHING RETURNING id";

const ADD_ROLE: &str = "INSERT INTO account_role (account, role) VALUES (?1, ?2) ON CONFLICT DO NOTHING";

const REMOVE_ROLES: &str = "DELETE FROM account_role WHERE account = ?1";

const FIND: &str = "SELECT id, username, hash, generation, disabled, created,
    (SELECT group_concat(role, ',' ORDER BY role) FROM account_role WHERE account = account.id)
    FROM account WHERE username = ?1";

const LIST: &str = "SELECT id, username, hash, generation, disabled, created,
    (SELECT group_concat(role, ',' ORDER BY role) FROM account_role WHERE account = account.id)
    FROM account WHERE username > ?1 ORDER BY username LIMIT ?2";

const IS_CURRENT: &str = "SELECT EXISTS (SELECT 1 FROM account WHERE id = ?1 AND generation = ?2 AND disabled = 0)
    AND NOT EXISTS (SELECT 1 FROM revocation WHERE key = ?3)";

const UPGRADE_HASH: &str = "UPDATE account SET hash = ?3 WHERE id = ?1 AND hash = ?2";

const RAISE: &str = "UPDATE account SET generation = min(generation + 1, 4294967295)
    WHERE username = ?1 RETURNING id, generation";

// For the holder of a token, while that is live.
const RAISE_OWN: &str = "UPDATE account SET generation = min(generation + 1, 4294967295)
    WHERE username = ?1 AND generation = ?2 AND disabled = 0
    AND NOT EXISTS (SELECT 1 FROM revocation WHERE key IN (?3, ?4)) RETURNING id, generation";

const SET_OWN_HASH: &str = "UPDATE account SET generation = min(generation + 1, 4294967295), hash = ?5
    WHERE username = ?1 AND generation = ?2 AND disabled = 0
    AND NOT EXISTS (SELECT 1 FROM revocation WHERE key IN (?3, ?4))
    AND id = ?6 AND generation = ?7 RETURNING id, generation";

const SET_HASH: &str = "UPDATE account SET generation = min(generation + 1, 4294967295), hash = ?2
    WHERE username = ?1 RETURNING id, generation";

const SET_DISABLED: &str = "UPDATE account SET generation = min(generation + 1, 4294967295), disabled = ?2
    WHERE username = ?1 RETURNING id, generation";

const DELETE: &str = "DELETE FROM account WHERE username = ?1 RETURNING id, min(generation + 1, 4294967295)";

// IS NOT, because there may be none to keep, and nothing differs from NULL in SQL.
const IS_ADMIN: &str = "SELECT EXISTS (SELECT 1 FROM account JOIN account_role ON account = id
    WHERE id = ?1 AND disabled = 0 AND role = ?2)";

const DELETE_OTHERS: &str = "DELETE FROM account WHERE id IS NOT ?1
    RETURNING username, min(generation + 1, 4294967295)";

/// When all tokens of an account were revoked, and for how long that must be remembered.
#[derive(Clone, Copy)]
struct Term {
    at: UnixTime,
    keep_until: UnixTime,
}

impl Store {
    /// Adds an account, and opens its first session in the same transaction when there is one.
    ///
    /// # Errors
    /// The store's.
    pub async fn register(&self, account: NewAccount, session: Option<NewSession>) -> Result<Registered, Error> {
        self.write(move |connection| {
            let Some(id) = add(connection, &account)? else { return Ok(Registered::Taken) };
            let account = connection.prepare_cached(FIND)?.query_row([account.username.as_str()], read_account)?;
            if let Some(session) = session {
                sessions::open(connection, &session, id, account.generation)?;
            }
            Ok(Registered::Created(account))
        })
        .await
    }

    /// The account of that name.
    ///
    /// # Errors
    /// The store's.
    pub async fn find_account(&self, username: &Username) -> Result<Option<Account>, Error> {
        let username = username.clone();
        self.seek(move |connection| {
            connection.prepare_cached(FIND)?.query_row([username.as_str()], read_account).optional()
        })
        .await
    }

    /// Up to `limit` accounts in the order of their names' bytes, from the first one after the name `after`.
    ///
    /// # Errors
    /// The store's.
    pub async fn list_accounts(&self, after: Option<&str>, limit: u32) -> Result<Vec<Account>, Error> {
        // No name is empty.
        let after = after.unwrap_or_default().to_owned();
        self.list(move |connection| {
            connection.prepare_cached(LIST)?.query_map(params![after, limit], read_account)?.collect()
        })
        .await
    }

    /// Whether a token without a session may have a successor: the account is enabled and has exactly that generation,
    /// and the token has not been revoked.
    ///
    /// # Errors
    /// The store's.
    pub async fn is_current(&self, by: Use) -> Result<bool, Error> {
        self.seek(move |connection| {
            let values = params![by.account.0, by.generation.0, by.token.0];
            connection.prepare_cached(IS_CURRENT)?.query_row(values, |row| row.get(0))
        })
        .await
    }

    /// Replaces a hash by one of the same password; false when the hash is no longer `old`.
    ///
    /// # Errors
    /// The store's.
    pub async fn upgrade_hash(&self, account: AccountId, old: Secret, new: Secret) -> Result<bool, Error> {
        self.write(move |connection| {
            let values = params![account.0, old.expose(), new.expose()];
            Ok(connection.prepare_cached(UPGRADE_HASH)?.execute(values)? == 1)
        })
        .await
    }

    /// Ends all tokens of an account; `None` when there is none of that name.
    ///
    /// # Errors
    /// The store's.
    pub async fn raise_generation(
        &self,
        username: &Username,
        at: UnixTime,
        keep_until: UnixTime,
    ) -> Result<Option<Revocation>, Error> {
        let username = username.clone();
        self.write(move |connection| {
            let raised = raise(connection, &username, RAISE, &[&username.as_str()], Term { at, keep_until })?;
            Ok(raised.map(|(_, revocation)| revocation))
        })
        .await
    }

    /// Ends all tokens of the account whose token asks; `None`, and nothing done, when that is dead.
    ///
    /// # Errors
    /// The store's.
    pub async fn raise_own_generation(
        &self,
        by: Warrant,
        at: UnixTime,
        keep_until: UnixTime,
    ) -> Result<Option<Revocation>, Error> {
        self.write(move |connection| {
            let values = params![by.username.as_str(), by.generation.0, by.token.0, by.session.map(|key| key.0)];
            let raised = raise(connection, &by.username, RAISE_OWN, values, Term { at, keep_until })?;
            Ok(raised.map(|(_, revocation)| revocation))
        })
        .await
    }

    /// Sets the hash of a new password for the account whose token asks, ends all its tokens, and opens its next session.
    /// `None`, and nothing done, when the token is dead or the account has changed since it was read.
    ///
    /// # Errors
    /// The store's.
    pub async fn set_own_hash(
        &self,
        by: Warrant,
        new: NewPassword,
        keep_until: UnixTime,
    ) -> Result<Option<Revocation>, Error> {
        self.write(move |connection| {
            let NewPassword { account, generation, hash, session } = new;
            let values = params![
                by.username.as_str(),
                by.generation.0,
                by.token.0,
                by.session.map(|key| key.0),
                hash.expose(),
                account.0,
                generation.0
            ];
            let term = Term { at: session.at, keep_until };
            let raised = raise(connection, &by.username, SET_OWN_HASH, values, term)?;
            let Some((id, revocation)) = raised else { return Ok(None) };
            sessions::open(connection, &session, id, revocation.generation)?;
            Ok(Some(revocation))
        })
        .await
    }

    /// Replaces the roles of an account, whose tokens end; `None` when there is none of that name.
    ///
    /// # Errors
    /// The store's.
    pub async fn set_roles(
        &self,
        username: &Username,
        roles: Vec<Role>,
        at: UnixTime,
        keep_until: UnixTime,
    ) -> Result<Option<Revocation>, Error> {
        let username = username.clone();
        self.write(move |connection| {
            let raised = raise(connection, &username, RAISE, &[&username.as_str()], Term { at, keep_until })?;
            let Some((id, revocation)) = raised else { return Ok(None) };
            connection.prepare_cached(REMOVE_ROLES)?.execute([id.0])?;
            add_roles(connection, id, &roles)?;
            Ok(Some(revocation))
        })
        .await
    }

    /// Sets the hash of a new password for an account, whose tokens end; `None` when there is none of that name.
    ///
    /// # Errors
    /// The store's.
    pub async fn set_hash(
        &self,
        username: &Username,
        hash: Secret,
        at: UnixTime,
        keep_until: UnixTime,
    ) -> Result<Option<Revocation>, Error> {
        let username = username.clone();
        self.write(move |connection| {
            let values: [&dyn ToSql; 2] = [&username.as_str(), &hash.expose()];
            let raised = raise(connection, &username, SET_HASH, &values, Term { at, keep_until })?;
            Ok(raised.map(|(_, revocation)| revocation))
        })
        .await
    }

    /// Bars an account from logging in, or lets it again; either way its tokens end. `None` when there is none of that
    /// name.
    ///
    /// # Errors
    /// The store's.
    pub async fn set_disabled(
        &self,
        username: &Username,
        disabled: bool,
        at: UnixTime,
        keep_until: UnixTime,
    ) -> Result<Option<Revocation>, Error> {
        let username = username.clone();
        self.write(move |connection| {
            let values: [&dyn ToSql; 2] = [&username.as_str(), &disabled];
            let raised = raise(connection, &username, SET_DISABLED, &values, Term { at, keep_until })?;
            Ok(raised.map(|(_, revocation)| revocation))
        })
        .await
    }

    /// Deletes an account with its sessions; its tokens end. `None` when there is none of that name.
    ///
    /// # Errors
    /// The store's.
    pub async fn delete_account(
        &self,
        username: &Username,
        at: UnixTime,
        keep_until: UnixTime,
    ) -> Result<Option<Revocation>, Error> {
        let username = username.clone();
        self.write(move |connection| {
            let raised = raise(connection, &username, DELETE, &[&username.as_str()], Term { at, keep_until })?;
            Ok(raised.map(|(_, revocation)| revocation))
        })
        .await
    }

    /// Deletes all accounts but that of an administrator whose token is live, with their sessions; their tokens end. One
    /// revocation for each that was deleted. `None`: whoever it is may do it, and no account is spared.
    ///
    /// # Errors
    /// The store's.
    pub async fn delete_other_accounts(
        &self,
        by: Option<Warrant>,
        at: UnixTime,
        keep_until: UnixTime,
    ) -> Result<Cleared, Error> {
        self.write(move |connection| {
            let mut keep = None;
            if let Some(by) = by {
                let Some((own, _)) = sessions::honour(connection, &by)? else { return Ok(Cleared::Refused) };
                // Another administrator may have been faster.
                let stands: bool =
                    connection.prepare_cached(IS_ADMIN)?.query_row(params![own.0, ADMIN], |row| row.get(0))?;
                if !stands {
                    return Ok(Cleared::NoAdministrator);
                }
                keep = Some(own);
            }
            let term = Term { at, keep_until };
            let mut statement = connection.prepare_cached(DELETE_OTHERS)?;
            let deleted = statement.query_map([keep.map(|id| id.0)], |row| {
                Ok(end_of_tokens(row.get_ref(0)?.as_str()?, Generation(row.get(1)?), term))
            })?;
            let revocations = deleted.collect::<rusqlite::Result<Vec<_>>>()?;
            revocations.iter().try_for_each(|revocation| revocations::add(connection, revocation))?;
            Ok(Cleared::Done(revocations))
        })
        .await
    }
}

/// Adds an account with its roles; `None`, and nothing done, when the name is taken.
pub(super) fn add(connection: &Connection, new: &NewAccount) -> rusqlite::Result<Option<AccountId>> {
    let name = new.username.as_str();
    let values = params![name, new.hash.expose(), Key::subject(None, name).0, new.at.millis()];
    let id = connection.prepare_cached(ADD)?.query_row(values, |row| row.get(0).map(AccountId)).optional()?;
    if let Some(id) = id {
        add_roles(connection, id, &new.roles)?;
    }
    Ok(id)
}

/// Runs `change`, which returns the account's id and its new generation, and revokes what is below that.
fn raise(
    connection: &WriteConnection,
    username: &Username,
    change: &str,
    values: &[&dyn ToSql],
    term: Term,
) -> rusqlite::Result<Option<(AccountId, Revocation)>> {
    let changed = connection
        .prepare_cached(change)?
        .query_row(values, |row| Ok((AccountId(row.get(0)?), Generation(row.get(1)?))))
        .optional()?;
    let Some((id, generation)) = changed else { return Ok(None) };
    let revocation = end_of_tokens(username.as_str(), generation, term);
    revocations::add(connection, &revocation)?;
    Ok(Some((id, revocation)))
}

fn end_of_tokens(username: &str, generation: Generation, term: Term) -> Revocation {
    Revocation {
        key: Key::subject(None, username),
        kind: Kind::Subject,
        generation,
        at: term.at,
        keep_until: term.keep_until,
    }
}

fn add_roles(connection: &Connection, account: AccountId, roles: &[Role]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(ADD_ROLE)?;
    roles.iter().try_for_each(|role| statement.execute(params![account.0, role.as_str()]).map(drop))
}

fn read_account(row: &Row<'_>) -> rusqlite::Result<Account> {
    let username = Username::parse(row.get_ref(1)?.as_str()?).map_err(|error| misfit(1, error))?;
    let roles = row.get_ref(6)?.as_str_or_null()?.unwrap_or_default();
    let roles = roles.split(',').filter(|role| !role.is_empty());
    Ok(Account {
        id: AccountId(row.get(0)?),
        username,
        hash: Secret::new(row.get::<_, Vec<u8>>(2)?),
        roles: roles.map(Role::parse).collect::<Result<_, _>>().map_err(|error| misfit(6, error))?,
        generation: Generation(row.get(3)?),
        disabled: row.get(4)?,
        created: UnixTime::from_millis(row.get(5)?),
    })
}

fn misfit(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}
