//! The key sets of `tokens.trusted`, fetched now and again: nobody who asks for something waits for that. But a command does,
//! which asks once.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::clock;
use crate::config::{KeySetUrl, Tokens, Trusted, TrustedKeys};
use crate::sessions::{KeySet, KeySetError, Keyring};
use crate::upstream::{FetchError, fetch};

/// Between two fetches at least, once the keys are known.
const LEAST: Duration = Duration::from_secs(60);

/// Before the second attempt, when the first has failed; then it doubles.
const RETRY: Duration = Duration::from_secs(1);

/// For one fetch in the background.
const PATIENCE: Duration = Duration::from_secs(10);

/// For one while a person waits.
const SHORT: Duration = Duration::from_secs(5);

/// Why the keys stay as they were.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// There is no document.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It is no key set.
    #[error(transparent)]
    KeySet(#[from] KeySetError),
}

/// Why a command cannot judge a token of a trusted issuer.
#[derive(Debug, thiserror::Error)]
#[error(
    "the token is of {issuer} (tokens.trusted), whose keys cannot be fetched from {url}: {fault}. See that it can be reached \
     from here; to revoke a token, its jti is enough: `portcullis tokens revoke --jti JTI --issuer {issuer}`"
)]
pub struct Unfetched {
    issuer: String,
    url: String,
    #[source]
    fault: Fault,
}

/// Fetches the keys that `token` is to be verified by, if it names an issuer whose keys are at a URL.
///
/// # Errors
/// [`Unfetched`].
pub async fn consult(keyring: &Keyring, tokens: &Tokens, token: &str) -> Result<(), Unfetched> {
    let named = keyring.issuer_of(token);
    for Trusted { issuer, keys, .. } in &tokens.trusted {
        if let TrustedKeys::Url(url) = keys
            && named.as_ref() == Some(issuer)
        {
            let failed = |fault| Unfetched { issuer: issuer.clone(), url: url.text.clone(), fault };
            refresh((issuer, url), keyring, SHORT).await.map_err(failed)?;
        }
    }
    Ok(())
}

/// Keeps the key sets that `tokens` names current, for ever; ends when it is dropped.
pub async fn follow(tokens: Tokens, keyring: Keyring) {
    let mut tasks = JoinSet::new();
    for trusted in tokens.trusted {
        if let TrustedKeys::Url(url) = trusted.keys {
            tasks.spawn(follow_one(trusted.issuer, url, keyring.clone()));
        }
    }
    while tasks.join_next().await.is_some() {}
    std::future::pending().await
}

async fn follow_one(issuer: String, url: KeySetUrl, keyring: Keyring) {
    let (mut pace, mut withdrawn) = (Pace::default(), false);
    loop {
        let begun = Instant::now();
        let outcome = refresh((&issuer, &url), &keyring, PATIENCE).await;
        let url = &url.text;
        if let Ok(empty) = outcome
            && empty != std::mem::replace(&mut withdrawn, empty)
        {
            if empty {
                tracing::warn!(
                    issuer,
                    url,
                    "a trusted issuer publishes no key that can verify tokens: all of its are refused"
                );
            } else {
                tracing::info!(issuer, url, "a trusted issuer publishes keys again");
            }
        }
        match (pace.is_failing(), &outcome) {
            (false, Err(error)) => {
                tracing::warn!(issuer, url, %error, "the keys of a trusted issuer cannot be fetched; what is known of them stays");
            }
            (true, Ok(_)) => tracing::info!(issuer, url, "the keys of a trusted issuer can be fetched again"),
            (false, Ok(_)) | (true, Err(_)) => {}
        }
        let Next { soonest, latest } = pace.next(outcome.is_ok());
        sleep_until(begun + soonest).await;
        tokio::select! {
            () = keyring.unknown(&issuer) => {}
            () = sleep_until(begun + latest) => {}
        }
    }
}

/// Whether the issuer has published that there are no keys: then those that were known are no more.
async fn refresh((issuer, url): (&str, &KeySetUrl), keyring: &Keyring, patience: Duration) -> Result<bool, Fault> {
    let keys = KeySet::parse(issuer, &fetch(url, patience).await?)?;
    let empty = keys.is_empty();
    keyring.learn(issuer, url, keys, clock::monotonic()).await;
    Ok(empty)
}

/// When a key set is fetched again.
#[derive(Debug, PartialEq, Eq)]
struct Next {
    /// As soon as somebody has brought a token with an unknown key, but not before this.
    soonest: Duration,
    /// In any case.
    latest: Duration,
}

/// How often a key set is fetched.
#[derive(Default)]
struct Pace {
    failures: u32,
}

impl Pace {
    fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// After a fetch that was `good` or not, counted from its beginning.
    fn next(&mut self, good: bool) -> Next {
        if good {
            self.failures = 0;
            return Next { soonest: LEAST, latest: KeySetUrl::EVERY };
        }
        let wait = RETRY.saturating_mul(1 << self.failures.min(6)).min(LEAST);
        self.failures = self.failures.saturating_add(1);
        Next { soonest: wait, latest: wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fetched_at_most_once_a_minute_and_sooner_while_that_fails() {
        let mut pace = Pace::default();
        let all = [true, true, false, false, false, false, false, false, false, false, true, false];
        let seconds = all.map(|good| {
            let next = pace.next(good);
            (next.soonest.as_secs(), next.latest.as_secs())
        });
        let failing = [1, 2, 4, 8, 16, 32, 60, 60].map(|wait| (wait, wait));
        assert_eq!(seconds[..2], [(60, 600); 2]);
        assert_eq!(seconds[2..10], failing);
        assert_eq!(seconds[10..], [(60, 600), (1, 1)]);
    }
}
