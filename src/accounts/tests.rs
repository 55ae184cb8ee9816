//! What stays counted of a registration whose client hangs up.

use std::num::NonZeroU32;

use super::*;
use crate::config::Rate;
use crate::model::Household;
use crate::store::tests::{name, sqlite};
use crate::store::{Attempt as Counted, Injected};

const AT: UnixTime = UnixTime::from_secs(1_800_000_000);

#[tokio::test]
async fn registration_that_was_committed_counts_although_its_client_has_gone() {
    let folder = tempfile::tempdir().unwrap();
    let text = "upstreams: {app: {servers: [\"http://127.0.0.1:1\"]}}\nroutes: [{path: /a, upstream: app}]";
    let mut settings = config::parse(text, "gateway.yaml".as_ref(), &|_| None).unwrap().identity;
    let rate = Rate { count: NonZeroU32::new(1000).unwrap(), per: Duration::from_secs(300) };
    settings.attempts = config::Attempts { per_account: Some(rate), per_address: Some(rate) };
    settings.password.argon2 = config::Argon2 { memory_kib: 8, iterations: 1, parallelism: 1 };
    let store = Store::open(&sqlite(&folder.path().join("portcullis.db"))).unwrap();
    let hasher = Hasher::start(settings.password.argon2, 1).unwrap();
    let accounts = Accounts::new(store.clone(), hasher, Ledger::default(), &settings);
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let mut committed = 0;
    for at in 0.. {
        let username = format!("user{at}");
        store.inject(Some((at, Injected::Stall)));
        let applicant = Applicant {
            username: &username,
            password: Secret::new("correct horse"),
            roles: vec![],
            session: None,
            address: Some(address),
            at: AT,
        };
        let _gone = tokio::time::timeout(Duration::from_millis(200), accounts.register(applicant)).await;
        let met = store.has_injected();
        store.inject(None);
        store.run_on_writer("SELECT 1").await.unwrap();
        committed += u32::from(store.find_account(&name(&username)).await.unwrap().is_some());
        let attempt = Counted { name: None, address: Household::of(address), at: AT };
        let counted = store.find_tallies(attempt).await.unwrap().address.map_or(0, |tally| tally.failures);
        assert!(counted >= committed, "{counted} of {committed} registrations count, the last dropped at job {at}");
        if !met {
            break;
        }
    }
    assert!(committed >= 2, "one was dropped after its commit, and one was answered");
}
