//! Sessions: ended by their tokens, from a list, and all at once, whatever is in flight.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Gateway, PASSWORD, Setup, Tokens, credentials, holds_within, said};
use crate::jwt;
use crate::origin::Origin;
use crate::wire::{Connection, Response, get, post, request};

fn started() -> (Origin, Gateway) {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    (origin, gateway)
}

/// The live sessions that the token's owner sees.
#[track_caller]
fn sessions(gateway: &Gateway, access: &str) -> Vec<Value> {
    let answer = get("/sessions").bearer(access).send(gateway.public);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["sessions"].as_array().unwrap().clone()
}

fn session_of(token: &str) -> String {
    jwt::claims_of(token)["sid"].as_str().unwrap().to_owned()
}

fn refresh(gateway: &Gateway, refresh: &str) -> Response {
    post("/token/refresh").bearer(refresh).send(gateway.public)
}

/// Another access token of the same session.
#[track_caller]
fn renewed(gateway: &Gateway, tokens: &Tokens) -> String {
    let answer = refresh(gateway, &tokens.refresh);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

#[track_caller]
fn assert_ended(gateway: &Gateway, tokens: &Tokens) {
    assert_eq!(get("/secret").bearer(&tokens.access).send(gateway.public).code(), "token_revoked");
    assert_eq!(refresh(gateway, &tokens.refresh).code(), "token_revoked");
}

#[track_caller]
fn end(gateway: &Gateway, path: &str, token: &str) -> (u16, String) {
    let answer = post(path).bearer(token).send(gateway.public);
    (answer.status, answer.message())
}

#[test]
fn a_logout_ends_the_session_with_all_its_tokens() {
    let (_origin, gateway) = started();
    let other = gateway.register("alice");
    for by_refresh in [false, true] {
        let tokens = gateway.login("alice");
        let successor = renewed(&gateway, &tokens);
        let mut kept = Connection::open(gateway.public);
        let warm = get("/secret").bearer(&successor).send_on(&mut kept, gateway.public).unwrap();
        assert_eq!(warm.status, 200);
        let token = if by_refresh { &tokens.refresh } else { &tokens.access };
        assert_eq!(end(&gateway, "/logout", token), (200, "Session ended".into()));
        assert_ended(&gateway, &tokens);
        let cold = get("/secret").bearer(&successor).send_on(&mut kept, gateway.public).unwrap();
        assert_eq!(cold.code(), "token_revoked", "a successor, on a connection that knew it");
        assert_eq!(end(&gateway, "/logout", token), (200, "Session ended".into()), "twice");
    }
    assert_eq!(gateway.try_token(&other.access), 200, "other sessions go on");
    assert_eq!(sessions(&gateway, &other.access).len(), 1);
}

#[test]
fn a_logout_is_one_entry_and_outlives_a_crash() {
    let origin = Origin::start();
    let setup = Setup::new(origin.address);
    let mut gateway = setup.clone().start();
    let tokens = gateway.register("alice");
    let access: Vec<String> = (0..10).map(|_| renewed(&gateway, &tokens)).collect();
    assert_eq!(end(&gateway, "/logout", &tokens.access).0, 200);
    let database = rusqlite::Connection::open(gateway.folder.path().join("portcullis.db")).unwrap();
    let count = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM revocation"), 1);
    assert_eq!(count("SELECT count(*) FROM session"), 0);
    // Until an hour after the end of the last token: those of the refresh token's 30 days.
    let kept = count("SELECT keep_until / 1000 FROM revocation") - jwt::now();
    assert!((30 * 86_400 + 3590..=30 * 86_400 + 3600).contains(&kept), "{kept}");
    gateway.kill();
    let again = setup.start_in(gateway.folder.clone());
    for token in &access {
        assert_eq!(get("/secret").bearer(token).send(again.public).code(), "token_revoked");
    }
    assert_ended(&again, &tokens);
}

#[test]
fn dead_tokens_can_log_out() {
    let (_origin, gateway) = started();
    let tokens = gateway.register("alice");
    assert_eq!(end(&gateway, "/logout/access", &tokens.access).0, 200);
    assert_eq!(end(&gateway, "/logout", &tokens.access), (200, "Session ended".into()), "revoked");
    assert_ended(&gateway, &tokens);

    // The user comes back when the access token is long over, and logs out with it.
    let tokens = gateway.login("alice");
    let past = jwt::now() - 1000;
    let sid = session_of(&tokens.access);
    let expired = json!({"sid": sid, "gen": 0, "iat": past, "nbf": past, "exp": past + 100});
    assert_eq!(end(&gateway, "/logout", &jwt::token_with("alice", &expired)), (200, "Session ended".into()));
    assert_ended(&gateway, &tokens);

    let database = rusqlite::Connection::open(gateway.folder.path().join("portcullis.db")).unwrap();
    let count = || database.query_row("SELECT count(*) FROM revocation", [], |row| row.get::<_, i64>(0)).unwrap();
    let before = count();
    let dead = [json!("unknown"), json!(sid), json!(null)].map(|sid| {
        let mut changes = expired.clone();
        changes["sid"] = sid;
        jwt::token_with("alice", &changes)
    });
    for _ in 0..3 {
        for token in &dead {
            assert_eq!(end(&gateway, "/logout", token).0, 200);
        }
        // The clock may be wrong: it is written what seems to have expired, but once.
        assert_eq!(count(), before + 2, "one session that is not known, and one token without a session");
    }

    let forged = format!("{}x", &tokens.access[..tokens.access.len() - 2]);
    assert_eq!(end(&gateway, "/logout", &forged).0, 401);
    for path in ["/logout/all", "/password"] {
        assert_eq!(post(path).bearer(&tokens.access).send(gateway.public).code(), "token_revoked", "{path}");
    }
    assert_eq!(get("/sessions").bearer(&tokens.access).send(gateway.public).code(), "token_revoked");
}

#[test]
fn a_token_without_session_ends_alone() {
    let (_origin, gateway) = started();
    let tokens = gateway.register("alice");
    for kind in ["access", "refresh"] {
        let (one, two) = (json!({"type": kind}), json!({"type": kind}));
        let (one, two) = (jwt::token_with("alice", &one), jwt::token_with("alice", &two));
        let ask = |token: &str| match kind {
            "access" => get("/secret").bearer(token).send(gateway.public).status,
            _ => refresh(&gateway, token).status,
        };
        assert_eq!((ask(&one), ask(&two)), (200, 200));
        assert_eq!(end(&gateway, "/logout", &one), (200, "Session ended".into()));
        assert_eq!((ask(&one), ask(&two)), (401, 200), "{kind}");
    }
    assert_eq!(gateway.try_token(&tokens.access), 200);
}

#[test]
fn all_sessions_end_at_once() {
    let (_origin, gateway) = started();
    let bob = gateway.register("bob");
    let mut all = vec![gateway.register("alice")];
    all.extend((0..3).map(|_| gateway.login("alice")));
    let flask = jwt::access("alice");
    assert_eq!(gateway.try_token(&flask), 200);
    assert_eq!(end(&gateway, "/logout/all", &all[1].access), (200, "All sessions ended".into()));
    for tokens in &all {
        assert_ended(&gateway, tokens);
    }
    assert_eq!(gateway.try_token(&flask), 401, "tokens that belong to no session too");
    let again = post("/logout/all").bearer(&all[1].access).send(gateway.public);
    assert_eq!(again.code(), "token_revoked", "it is dead itself");
    let new = gateway.login("alice");
    assert_eq!(gateway.try_token(&new.access), 200, "and a new login is good");
    assert_eq!(sessions(&gateway, &new.access).len(), 1, "what has ended is not listed");
    assert_eq!(sessions(&gateway, &bob.access).len(), 1);
    let stranger = post("/logout/all").bearer(&jwt::access("nobody")).send(gateway.public);
    assert_eq!(stranger.code(), "token_revoked", "there is no such account");
    let database = rusqlite::Connection::open(gateway.folder.path().join("portcullis.db")).unwrap();
    let entries: i64 = database.query_row("SELECT count(*) FROM revocation", [], |row| row.get(0)).unwrap();
    assert_eq!(entries, 1);
}

#[test]
fn the_list_tells_device_and_last_use() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).set("server.trusted_proxies", json!(["127.0.0.1"])).start();
    gateway.register("alice");
    let login = post("/login").json(&credentials("alice", PASSWORD));
    let login = login.header("User-Agent", "Phone/1.0 (\u{e4})").header("X-Forwarded-For", "192.0.2.7");
    let phone = login.send(gateway.public).json();
    let phone = phone["access_token"].as_str().unwrap();
    let list = sessions(&gateway, phone);
    assert_eq!(list.len(), 2);
    let mut keys: Vec<&String> = list[0].as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["address", "created", "current", "id", "last_used", "user_agent"]);
    assert_eq!((&list[0]["id"], &list[0]["current"]), (&json!(session_of(phone)), &json!(true)), "the last used first");
    assert_eq!(list[0]["address"], "192.0.2.7");
    assert!(list[0]["user_agent"].as_str().unwrap().starts_with("Phone/1.0"), "{list:?}");
    assert_eq!(list[1]["current"], false);
    for time in ["created", "last_used"] {
        assert!(list[0][time].as_str().unwrap().ends_with('Z'), "{list:?}");
    }
    assert_eq!(get("/sessions/").bearer(phone).send(gateway.public).status, 200);
    assert_eq!(request("HEAD", "/sessions").bearer(phone).send(gateway.public).status, 200);
    let flask = sessions(&gateway, &jwt::access("alice"));
    assert!(flask.len() == 2 && flask.iter().all(|entry| entry["current"] == false), "{flask:?}");
}

#[test]
fn of_very_many_sessions_the_last_used_are_listed() {
    const ADD: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
        INSERT INTO session (id, account, created, last_used, expires, generation)
        SELECT 'old-' || i, account, created - i, last_used - i, expires, generation FROM session, n";
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).set("identity.sessions_per_account", json!(10_000)).start();
    let token = gateway.register("alice").access;
    let database = rusqlite::Connection::open(gateway.folder.path().join("portcullis.db")).unwrap();
    assert_eq!(database.execute(ADD, []).unwrap(), 999);
    let list = || get("/sessions?limit=1000").bearer(&token).send(gateway.public).json();
    assert_eq!((list()["sessions"].as_array().unwrap().len(), &list()["next"]), (1000, &Value::Null));
    let newest = session_of(&gateway.login("alice").access);
    let told = list();
    let ids: Vec<&str> = told["sessions"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), ids[0], ids[999]), (1000, newest.as_str(), "old-998"));
    assert!(told["next"].as_str().unwrap().ends_with(".old-998"), "{}", told["next"]);
    assert_eq!(request("DELETE", "/sessions/old-7").bearer(&token).send(gateway.public).status, 200);
    assert_eq!((&list()["sessions"][999]["id"], &list()["next"]), (&json!("old-999"), &Value::Null));
}

#[test]
fn a_refresh_is_a_use() {
    let (_origin, gateway) = started();
    let (first, second) = (gateway.register("alice"), gateway.login("alice"));
    let of = |tokens: &Tokens| {
        let id = json!(session_of(&tokens.access));
        sessions(&gateway, &second.access).into_iter().find(|entry| entry["id"] == id).unwrap()
    };
    let before = of(&first);
    let later = holds_within(Duration::from_secs(5), || {
        renewed(&gateway, &first);
        of(&first)["last_used"] != before["last_used"]
    });
    assert!(later);
    assert_eq!(of(&first)["created"], before["created"]);
    assert_eq!(sessions(&gateway, &second.access)[0], of(&first));
}

#[test]
fn one_session_is_ended_from_another() {
    let (_origin, gateway) = started();
    let (here, there, bob) = (gateway.register("alice"), gateway.login("alice"), gateway.register("bob"));
    let delete =
        |id: &str, token: &str| request("DELETE", &format!("/sessions/{id}")).bearer(token).send(gateway.public);
    for id in [session_of(&bob.access), "none".into(), "%20".into(), "a%27b".into(), "x".repeat(2000)] {
        let answer = delete(&id, &here.access);
        assert_eq!((answer.status, answer.code()), (404, "no_route"), "{id}");
        assert_eq!(answer.message(), "There is no such session", "{id}");
    }
    assert_eq!(gateway.try_token(&bob.access), 200);
    let answer = delete(&session_of(&there.access), &here.access);
    assert_eq!((answer.status, answer.message()), (200, "Session ended".into()));
    assert_ended(&gateway, &there);
    assert_eq!(delete(&session_of(&there.access), &here.access).status, 404, "it has ended");
    let answer = delete(&format!("{}/", session_of(&here.access)), &here.access);
    assert_eq!(answer.status, 200, "one's own, with a slash");
    assert_ended(&gateway, &here);
}

#[test]
fn a_session_that_the_command_line_ended_is_not_listed() {
    let (_origin, gateway) = started();
    let (here, there) = (gateway.register("alice"), gateway.login("alice"));
    let sid = session_of(&there.access);
    let done = gateway.cli(&["tokens", "revoke", "--session", &sid], "");
    assert!(done.status.success(), "{}", said(&done));
    assert!(holds_within(Duration::from_secs(1), || gateway.try_token(&there.access) == 401));
    let listed = sessions(&gateway, &here.access);
    assert!(listed.len() == 1 && listed[0]["id"] == session_of(&here.access).as_str(), "{listed:?}");
    assert_eq!(request("DELETE", &format!("/sessions/{sid}")).bearer(&here.access).send(gateway.public).status, 404);
}

#[test]
fn the_other_gateway_on_the_database_hears_it() {
    let origin = Origin::start();
    let setup = Setup::new(origin.address);
    let first = setup.clone().start();
    let second = setup.start_in(first.folder.clone());
    let tokens = first.register("alice");
    assert_eq!(second.try_token(&tokens.access), 200);
    assert_eq!(end(&first, "/logout", &tokens.access).0, 200);
    // Not yet heard perhaps, but the store decides what is issued.
    assert_eq!(refresh(&second, &tokens.refresh).code(), "token_revoked");
    assert!(holds_within(Duration::from_secs(1), || second.try_token(&tokens.access) == 401));
    let tokens = second.login("alice");
    assert_eq!(end(&first, "/logout/all", &tokens.access).0, 200);
    assert_eq!(post("/logout/all").bearer(&tokens.access).send(second.public).code(), "token_revoked");
    assert_eq!(refresh(&second, &tokens.refresh).code(), "token_revoked");
}

#[test]
fn a_token_without_generation_dies_by_when_it_was_issued() {
    let origin = Origin::start();
    let setup = Setup::new(origin.address);
    let first = setup.clone().start();
    let second = setup.start_in(first.folder.clone());
    let new_password = json!({"old_password": PASSWORD, "new_password": "another long password"});
    let cli = |arguments: &[&str]| {
        let done = first.cli(arguments, "another long password\n");
        assert!(done.status.success(), "{}", said(&done));
    };
    let change = |what: &str, name: &str, token: &str| match what {
        "logout" => assert_eq!(end(&first, "/logout/all", token).0, 200),
        "password" => {
            assert_eq!(post("/password").json(&new_password).bearer(token).send(first.public).status, 200);
        }
        "roles" => cli(&["users", "roles", name, "staff"]),
        "disabled" => cli(&["users", "disable", name]),
        _ => {
            cli(&["users", "disable", name]);
            cli(&["users", "disable", "--undo", name]);
        }
    };
    for what in ["logout", "password", "roles", "disabled", "enabled"] {
        for round in 0..4 {
            let name = format!("{what}-{round}");
            let own = first.register(&name).access;
            let flask = |kind: &str| jwt::token_with(&name, &json!({"type": kind}));
            let (access, renewing) = (flask("access"), flask("refresh"));
            assert_eq!(refresh(&second, &renewing).status, 200, "{name}: before");
            assert_eq!(sessions(&second, &access).len(), 1, "{name}: before");
            change(what, &name, &own);
            // Not yet heard there perhaps, but the store decides what is issued, told and done.
            assert_eq!(refresh(&second, &renewing).code(), "token_revoked", "{name}");
            assert_eq!(get("/sessions").bearer(&access).send(second.public).code(), "token_revoked", "{name}");
            assert_eq!(post("/logout/all").bearer(&access).send(second.public).code(), "token_revoked", "{name}");
            let answer = post("/password").json(&new_password).bearer(&access).send(second.public);
            assert_eq!(answer.code(), "token_revoked", "{name}");
            assert_eq!(refresh(&first, &renewing).code(), "token_revoked", "{name}: where it was done");
        }
    }
}

#[test]
fn a_dead_administrator_token_neither_lists_nor_deletes() {
    let origin = Origin::start();
    let first = Setup::new(origin.address).start();
    let second = Setup::new(origin.address).start_in(first.folder.clone());
    first.add_user("root", "admin");
    first.register("alice");
    for round in 0..10 {
        let tokens = first.login("root");
        let ask = |method| request(method, "/users").bearer(&tokens.access).send(second.public);
        assert_eq!(ask("GET").status, 200, "{round}");
        assert_eq!(end(&first, ["/logout", "/logout/all", "/logout/access"][round % 3], &tokens.access).0, 200);
        // Not yet heard there perhaps, but the store decides.
        assert_eq!((ask("GET").code(), ask("DELETE").code()), ("token_revoked", "token_revoked"), "{round}");
    }
    assert_eq!(
        request("GET", "/users").bearer(&first.login("root").access).send(first.public).json()["users"][0]["username"],
        "alice"
    );
}

#[test]
fn the_application_is_never_asked() {
    let origin = Origin::start();
    let all = json!([{"path": "/*", "upstream": "app", "auth": "public"}]);
    let gateway = Setup::new(origin.address).and_routes(all).start();
    for path in ["/logout", "/logout/", "/logout/all", "/sessions", "/sessions/1", "/password", "/%70assword"] {
        for method in ["GET", "POST", "DELETE"] {
            let answer = request(method, path).send(gateway.public);
            assert!([401, 405].contains(&answer.status), "{method} {path}: {answer:?}");
        }
    }
    assert_eq!(origin.count(), 0);
}

#[test]
fn a_session_refreshes_thirty_times_a_minute() {
    let (_origin, gateway) = started();
    let (busy, calm) = (gateway.register("alice"), gateway.login("alice"));
    for _ in 0..30 {
        renewed(&gateway, &busy);
    }
    let answer = refresh(&gateway, &busy.refresh);
    assert_eq!((answer.status, answer.code()), (429, "too_many_requests"), "{answer:?}");
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    renewed(&gateway, &calm);
    assert_eq!(gateway.try_token(&busy.access), 200, "it is no end of the session");
}

#[test]
fn counters_have_the_names_of_the_endpoints() {
    let (_origin, gateway) = started();
    let tokens = gateway.register("alice");
    request("DELETE", "/sessions/some-id").bearer(&tokens.access).send(gateway.public);
    let text = get("/metrics").send(gateway.admin).text();
    assert!(text.contains(r#"route="/sessions/{id}""#), "{text}");
    assert!(!text.contains("some-id"), "never a path as it was sent");
}

/// What a storm of logins and refreshes has been given, by the number of logouts that were answered before it asked.
struct Issued {
    access: String,
    refresh: Option<String>,
    after: usize,
}

/// Logs in and refreshes on a connection until told to stop.
fn storm(gateway: &Gateway, done: &AtomicBool, logouts: &Mutex<usize>) -> Vec<Issued> {
    let mut connection = Connection::open(gateway.public);
    let mut issued = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let after = *logouts.lock().unwrap();
        let login = post("/login").json(&credentials("alice", PASSWORD));
        let answer = login.send_on(&mut connection, gateway.public).unwrap();
        if answer.status != 200 {
            // The account changed while the password was being checked; or too many hashes wait.
            assert!([401, 503].contains(&answer.status), "{answer:?}");
            continue;
        }
        let body = answer.json();
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        let refresh = text("refresh_token");
        let generation = &jwt::claims_of(&refresh)["gen"];
        for _ in 0..20 {
            let after = *logouts.lock().unwrap();
            let answer = post("/token/refresh").bearer(&refresh).send_on(&mut connection, gateway.public).unwrap();
            match answer.status {
                200 => {
                    let access = answer.json()["access_token"].as_str().unwrap().to_owned();
                    assert_eq!(jwt::claims_of(&access)["gen"], *generation, "a dead token has a live successor");
                    issued.push(Issued { access, refresh: None, after });
                }
                401 => {
                    assert_eq!(answer.code(), "token_revoked");
                    break;
                }
                _ => panic!("{answer:?}"),
            }
        }
        issued.push(Issued { access: text("access_token"), refresh: Some(refresh), after });
    }
    issued
}

#[test]
fn no_token_outlives_a_logout_that_was_answered_after_it() {
    const LOGOUTS: usize = 60;
    let origin = Origin::start();
    // More logins of one account than there may be in a minute.
    let gateway = Setup::new(origin.address).set("identity.attempts", json!({"per_account": "off"})).start();
    gateway.register("alice");
    let (done, logouts) = (AtomicBool::new(false), Mutex::new(0));
    let issued: Vec<Issued> = std::thread::scope(|scope| {
        let storms: Vec<_> = (0..6).map(|_| scope.spawn(|| storm(&gateway, &done, &logouts))).collect();
        for round in 1..=LOGOUTS {
            // Somebody logs out everywhere as soon as he is in.
            let own = loop {
                let answer = post("/login").json(&credentials("alice", PASSWORD)).send(gateway.public);
                if answer.status == 200 {
                    break answer.json()["access_token"].as_str().unwrap().to_owned();
                }
            };
            let answer = post("/logout/all").bearer(&own).send(gateway.public);
            assert_eq!(answer.status, 200, "{answer:?}");
            *logouts.lock().unwrap() = round;
        }
        done.store(true, Ordering::Relaxed);
        storms.into_iter().flat_map(|storm| storm.join().unwrap()).collect()
    });
    assert!(issued.len() > LOGOUTS, "only {} tokens were issued", issued.len());
    // Asked for before the last logout was answered: some of them were issued after it, and say so by their generation.
    let last = i64::try_from(LOGOUTS).unwrap();
    let mut connection = Connection::open(gateway.public);
    for Issued { access, refresh, after } in &issued {
        let generation = jwt::claims_of(access)["gen"].as_i64().unwrap();
        assert!(generation >= i64::try_from(*after).unwrap(), "of a generation that had ended before it was asked for");
        let answer = get("/secret").bearer(access).send_on(&mut connection, gateway.public).unwrap();
        let expected = if generation < last { "token_revoked" } else { "" };
        assert_eq!(answer.code(), expected, "generation {generation} of {last}");
        if let Some(refresh) = refresh {
            let answer = post("/token/refresh").bearer(refresh).send_on(&mut connection, gateway.public).unwrap();
            assert_eq!(answer.code(), expected, "generation {generation} of {last}, refresh");
        }
    }
}
