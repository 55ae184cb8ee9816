//! How many sessions an account may have, how they are listed in pages, and how many lists at a time.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::frames::{self, Client, END_HEADERS, END_STREAM, Fate, HEADERS, PREFACE, SETTINGS, block, frame};
use crate::harness::{Gateway, Setup, Tokens, await_that, holds_within};
use crate::jwt;
use crate::origin::Origin;
use crate::reload;
use crate::wire::{get, post, request};

/// `WINDOW_UPDATE`.
const WINDOW_UPDATE: u8 = 8;

/// Hashes that cost nothing.
fn cheap(setup: Setup) -> Setup {
    setup.set("identity.password", json!({"argon2": {"memory": "8KiB", "iterations": 1}}))
}

fn session_of(tokens: &Tokens) -> String {
    jwt::claims_of(&tokens.access)["sid"].as_str().unwrap().to_owned()
}

#[track_caller]
fn assert_ended(gateway: &Gateway, tokens: &Tokens) {
    let answer = get("/secret").bearer(&tokens.access).send(gateway.public);
    assert_eq!((answer.status, answer.code()), (401, "token_revoked"));
    let answer = post("/token/refresh").bearer(&tokens.refresh).send(gateway.public);
    assert_eq!((answer.status, answer.code()), (401, "token_revoked"));
}

#[track_caller]
fn assert_live(gateway: &Gateway, tokens: &Tokens) {
    assert_eq!(gateway.try_token(&tokens.access), 200);
    assert_eq!(post("/token/refresh").bearer(&tokens.refresh).send(gateway.public).status, 200);
}

/// The lines of the audit so far.
fn audit(gateway: &Gateway) -> Vec<Value> {
    let text = std::fs::read_to_string(gateway.folder.path().join("audit.log")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn evictions(gateway: &Gateway) -> Vec<Value> {
    audit(gateway).into_iter().filter(|line| line["event"] == "session.evicted").collect()
}

#[test]
fn one_login_too_many_ends_the_least_recently_used_session() {
    let origin = Origin::start();
    let setup = cheap(Setup::new(origin.address)).set("identity.sessions_per_account", json!(3));
    let setup = setup.set("log.audit", json!("audit.log")).set("identity.attempts", json!({"per_account": "off"}));
    let first = setup.clone().start();
    let second = setup.start_in(first.folder.clone());
    let mut sessions = vec![first.register("alice")];
    sessions.extend((0..2).map(|_| first.login("alice")));
    let other = first.register("bob");
    sessions.iter().for_each(|tokens| assert_live(&first, tokens));
    assert_eq!(second.try_token(&sessions[0].access), 200);

    sessions.push(first.login("alice"));
    assert_ended(&first, &sessions[0]);
    assert!(holds_within(Duration::from_secs(1), || second.try_token(&sessions[0].access) == 401), "the other gateway");
    assert_eq!(post("/token/refresh").bearer(&sessions[0].refresh).send(second.public).code(), "token_revoked");
    sessions[1..].iter().chain([&other]).for_each(|tokens| assert_live(&first, tokens));

    await_that("the audit has both lines", || audit(&first).last().is_some_and(|line| line["event"] == "refresh"));
    let lines = evictions(&first);
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!((&line["user"], &line["outcome"]), (&json!("alice"), &json!("success")), "{line}");
    assert_eq!((&line["sid"], &line["client"]), (&json!(session_of(&sessions[0])), &json!("127.0.0.1")), "{line}");
    let login = audit(&first).into_iter().find(|line| line["sid"] == session_of(&sessions[3]).as_str()).unwrap();
    assert_eq!((&login["event"], &login["request_id"]), (&json!("login"), &line["request_id"]), "of one request");

    // A logout of what was evicted is done already.
    assert_eq!(post("/logout").bearer(&sessions[0].refresh).send(first.public).status, 200);
    for round in 0..100 {
        sessions.push(first.login("alice"));
        assert_ended(&first, &sessions[round + 1]);
    }
    sessions[101..].iter().chain([&other]).for_each(|tokens| assert_live(&first, tokens));
    await_that("the audit has each eviction", || evictions(&first).len() == 101);
    let told: Vec<Value> = evictions(&first).into_iter().map(|line| line["sid"].clone()).collect();
    let ended: Vec<Value> = sessions[..101].iter().map(|tokens| json!(session_of(tokens))).collect();
    assert_eq!(told, ended);
    let list = get("/sessions").bearer(&sessions[103].access).send(first.public).json();
    assert_eq!((list["sessions"].as_array().unwrap().len(), &list["next"]), (3, &Value::Null));
}

#[test]
fn logins_from_one_network_do_not_end_the_sessions_of_others() {
    let origin = Origin::start();
    let setup = cheap(Setup::new(origin.address)).set("identity.sessions_per_account", json!(4));
    let gateway = setup.set("server.trusted_proxies", json!(["127.0.0.1"])).start();
    let log_in = |address: String| {
        let body = crate::harness::credentials("alice", crate::harness::PASSWORD);
        let answer = post("/login").json(&body).header("X-Forwarded-For", &address).send(gateway.public);
        answer.json()["access_token"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
    };
    gateway.register("alice");
    let home = [log_in("192.0.2.1".into()), log_in("192.0.2.2".into())];
    for number in 0..20 {
        let visitor = log_in(format!("2001:db8::{number}"));
        assert_eq!(gateway.try_token(&visitor), 200);
    }
    home.iter().for_each(|token| assert_eq!(gateway.try_token(token), 200));
}

#[test]
fn a_lowered_limit_holds_from_the_next_login() {
    let origin = Origin::start();
    let gateway = cheap(Setup::new(origin.address)).start();
    let mut sessions = vec![gateway.register("alice")];
    sessions.extend((0..5).map(|_| gateway.login("alice")));
    reload::edit(&gateway, |config| config["identity"]["sessions_per_account"] = json!(2));
    reload::reload(&gateway);
    sessions.iter().for_each(|tokens| assert_eq!(gateway.try_token(&tokens.access), 200));
    sessions.push(gateway.login("alice"));
    sessions[..5].iter().for_each(|tokens| assert_ended(&gateway, tokens));
    sessions[5..].iter().for_each(|tokens| assert_live(&gateway, tokens));
}

/// Gives each account `count` further sessions, which were used before its own, several in a second.
fn insert_sessions(gateway: &Gateway, count: u32) {
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
        INSERT INTO session (id, account, created, last_used, expires, generation, user_agent)
        SELECT 'old-' || account || '-' || i, account, created, last_used - (i / 7 + 1) * 1000, expires, generation, user_agent
        FROM session, n";
    let database = rusqlite::Connection::open(gateway.folder.path().join("portcullis.db")).unwrap();
    database.busy_timeout(Duration::from_secs(5)).unwrap();
    assert!(database.execute(sql, [count]).unwrap() > 0);
}

#[test]
fn the_pages_of_the_list_have_each_session_once() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let token = gateway.register("alice").access;
    gateway.register("bob");
    insert_sessions(&gateway, 250);
    let page = |query: &str| {
        let answer = get(&format!("/sessions{query}")).bearer(&token).send(gateway.public);
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        answer.json()
    };
    let ids = |page: &Value| -> Vec<String> {
        page["sessions"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    for (limit, sizes) in [("", &[100, 100, 51][..]), ("&limit=251", &[251]), ("&limit=125", &[125, 125, 1])] {
        let mut last = page(&format!("?{}", limit.trim_start_matches('&')));
        let (mut seen, mut found) = (ids(&last), vec![ids(&last).len()]);
        while let Some(next) = last["next"].as_str() {
            last = page(&format!("?after={next}{limit}"));
            found.push(ids(&last).len());
            seen.extend(ids(&last));
        }
        assert_eq!((found.as_slice(), last["next"].is_null()), (sizes, true), "{limit}");
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 251, "{limit}");
        assert_eq!(seen[0], jwt::claims_of(&token)["sid"].as_str().unwrap(), "the last used first");
        assert_eq!(seen, ids(&page("?limit=1000")), "{limit}");
    }
    for query in ["limit=0", "limit=1001", "limit=-1", "limit=", "limit=x", "after=garbage", "after=", "after=.x"] {
        let answer = get(&format!("/sessions?{query}")).bearer(&token).send(gateway.public);
        assert_eq!((answer.status, answer.code()), (400, "bad_request"), "{query}");
        assert!(answer.message().starts_with(&query[..5]), "{query}: {}", answer.message());
    }
    assert_eq!(page("?after=0.x"), json!({"sessions": [], "next": null}));
}

/// Asks for lists over HTTP/2, and takes not one byte of the answers.
struct UnreadLists {
    client: Client,
    streams: u32,
}

impl UnreadLists {
    fn open(gateway: &Gateway) -> Self {
        let mut client = Client::raw(gateway.public);
        // SETTINGS_INITIAL_WINDOW_SIZE (4) of 0: no byte of a body may be sent (RFC 9113 6.9.2).
        client.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat()).unwrap();
        Self { client, streams: 0 }
    }

    fn ask(&mut self, gateway: &Gateway, path: &str, token: Option<&str>) -> u32 {
        let (authority, credential) = (gateway.public.to_string(), format!("Bearer {}", token.unwrap_or_default()));
        let mut fields = frames::get(&authority, path);
        fields.extend(token.is_some().then_some(("authorization", credential.as_str())));
        let stream = 2 * self.streams + 1;
        self.streams += 1;
        self.client.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields))).unwrap();
        stream
    }

    /// Asks for two, which are answered.
    #[track_caller]
    fn two(gateway: &Gateway, path: &str, token: Option<&str>) -> Self {
        let mut lists = Self::open(gateway);
        for _ in 0..2 {
            let stream = lists.ask(gateway, path, token);
            assert_eq!(lists.client.fate(stream), Fate::Answered(200));
        }
        lists
    }

    /// Takes what comes on the streams.
    fn read(&mut self) {
        for stream in (0..self.streams).map(|number| 2 * number + 1) {
            self.client.send(&frame(WINDOW_UPDATE, 0, stream, &1_000_000_u32.to_be_bytes())).unwrap();
        }
        self.client.send(&frame(WINDOW_UPDATE, 0, 0, &2_000_000_u32.to_be_bytes())).unwrap();
    }
}

/// The third list is refused after a second.
#[track_caller]
fn assert_refused(gateway: &Gateway, path: &str, token: Option<&str>) {
    let asked = Instant::now();
    let ask = token.map_or_else(|| get(path), |token| get(path).bearer(token));
    let answer = ask.send(gateway.public);
    assert_eq!((answer.status, answer.code()), (429, "too_many_requests"), "{path}: {answer:?}");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(2), "{path}: {took:?}");
}

#[test]
fn a_third_list_of_an_account_waits_for_the_first_two() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    gateway.add_user("root", "admin");
    let (alice, bob, root) =
        (gateway.register("alice").access, gateway.register("bob").access, gateway.login("root").access);
    insert_sessions(&gateway, 100);
    let ask = |path: &str, token: &str| get(path).bearer(token).send(gateway.public).status;
    let mut lists = UnreadLists::two(&gateway, "/sessions", Some(&alice));
    assert_refused(&gateway, "/sessions", Some(&alice));
    assert_eq!(ask("/sessions", &bob), 200, "another account");
    assert_eq!(gateway.try_token(&alice), 200, "other requests of the account");
    assert_eq!(request("DELETE", "/sessions/none").bearer(&alice).send(gateway.public).status, 404);

    // A reload keeps the permits that are in use.
    reload::edit(&gateway, |config| config["identity"]["registration"] = json!("closed"));
    reload::reload(&gateway);
    assert_refused(&gateway, "/sessions?limit=1", Some(&alice));

    let third = std::thread::scope(|scope| {
        let third = scope.spawn(|| ask("/sessions", &alice));
        lists.read();
        third.join().unwrap()
    });
    assert_eq!(third, 200, "it got the place of one that was read");

    let lists = UnreadLists::two(&gateway, "/sessions", Some(&alice));
    drop(lists);
    assert_eq!(ask("/sessions", &alice), 200, "the connection has gone");

    let lists = UnreadLists::two(&gateway, "/users", Some(&root));
    assert_refused(&gateway, "/users", Some(&root));
    assert_refused(&gateway, "/sessions", Some(&root));
    assert_eq!(ask("/users", &bob), 403, "bob is no administrator");
    drop(lists);
    assert_eq!(ask("/users", &root), 200);
}

#[test]
fn without_tokens_a_third_list_of_an_address_waits() {
    let origin = Origin::start();
    let setup = Setup::flask(origin.address).set("identity.users", json!("anyone"));
    let gateway = setup.set("server.trusted_proxies", json!(["127.0.0.1"])).start();
    let alice = gateway.register("alice").access;
    let lists = UnreadLists::two(&gateway, "/users", None);
    assert_refused(&gateway, "/users", None);
    let from = |address: &str| get("/users").header("X-Forwarded-For", address).send(gateway.public).status;
    assert_eq!(from("192.0.2.1"), 200, "another address");
    assert_eq!(get("/sessions").bearer(&alice).send(gateway.public).status, 200, "an account is no address");
    drop(lists);
    assert_eq!(get("/users").send(gateway.public).status, 200);
}
