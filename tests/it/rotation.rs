//! Refresh rotation: each refresh token is good for one refresh, races are nobody's fault, and theft ends the session.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Dice, Gateway, Setup, await_that};
use crate::jwt;
use crate::origin::Origin;
use crate::reload::{edit, reload};
use crate::wire::{Connection, Response, get, post};

fn setup(origin: &Origin, grace: &str) -> Setup {
    Setup::new(origin.address).set("identity.refresh_rotation", json!({"enabled": true, "grace": grace}))
}

fn started(grace: &str) -> (Origin, Gateway) {
    let origin = Origin::start();
    let gateway = setup(&origin, grace).set("identity.sessions_per_account", json!(1000));
    let gateway = gateway.set("identity.attempts", json!({"per_account": "off"})).start();
    (origin, gateway)
}

fn refresh(gateway: &Gateway, token: &str) -> Response {
    post("/token/refresh").bearer(token).send(gateway.public)
}

/// Both tokens of a refresh that must succeed.
#[track_caller]
fn tokens_of(answer: &Response) -> (String, String) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    let text = |name: &str| body[name].as_str().unwrap_or_else(|| panic!("no {name}: {answer:?}")).to_owned();
    (text("access_token"), text("refresh_token"))
}

/// The successor of a refresh token.
#[track_caller]
fn next(gateway: &Gateway, token: &str) -> String {
    tokens_of(&refresh(gateway, token)).1
}

/// Turns `token` in over and over until the grace of its first use is over and the session has ended.
#[track_caller]
fn reuse(gateway: &Gateway, token: &str) {
    await_that("the reuse is found", || {
        let answer = refresh(gateway, token);
        if answer.status == 401 {
            assert_eq!((answer.code(), answer.message()), ("token_revoked", "Token has been revoked".into()));
        }
        answer.status == 401
    });
}

#[test]
fn each_refresh_gives_a_new_pair_of_the_same_session() {
    let (_origin, gateway) = started("10s");
    let first = gateway.register("alice");
    let (sid, mut token) = (jwt::claims_of(&first.access)["sid"].clone(), first.refresh.clone());
    let mut seen = BTreeSet::from([token.clone()]);
    for _ in 0..10 {
        let (access, successor) = tokens_of(&refresh(&gateway, &token));
        assert_eq!(gateway.try_token(&access), 200);
        let claims = jwt::claims_of(&successor);
        assert_eq!((&claims["sid"], &claims["type"], &claims["fresh"]), (&sid, &json!("refresh"), &json!(false)));
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 30 * 86_400);
        assert!(seen.insert(successor.clone()), "a token came twice");
        token = successor;
    }
    assert_eq!(gateway.try_token(&first.access), 200);
    let list = get("/sessions").bearer(&first.access).send(gateway.public).json();
    assert_eq!(list["sessions"].as_array().unwrap().len(), 1);
}

#[test]
fn reuse_after_the_grace_ends_the_session() {
    let (_origin, gateway) = started("1s");
    let (stolen, other) = (gateway.register("alice"), gateway.login("alice"));
    let (_, child) = tokens_of(&refresh(&gateway, &stolen.refresh));
    let (access, grandchild) = tokens_of(&refresh(&gateway, &child));
    assert_eq!(gateway.try_token(&access), 200);
    let begin = Instant::now();
    reuse(&gateway, &stolen.refresh);
    assert!(begin.elapsed() > Duration::from_millis(500), "before the grace was over");
    for token in [&stolen.access, &access] {
        assert_eq!(get("/secret").bearer(token).send(gateway.public).code(), "token_revoked");
    }
    for token in [&child, &grandchild] {
        assert_eq!(refresh(&gateway, token).code(), "token_revoked", "the newest is dead as well");
    }
    assert_eq!(gateway.try_token(&other.access), 200, "other sessions go on");
    let sessions = get("/sessions").bearer(&other.access).send(gateway.public).json();
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1);
    let told = |line: &serde_json::Value| line.to_string().contains("used again after its time");
    await_that("the log says so", || gateway.log().iter().any(told));
    assert!(!gateway.output().contains(&stolen.refresh), "never a token in the log");
}

#[test]
fn reuse_is_remembered_after_a_crash() {
    let origin = Origin::start();
    let setup = setup(&origin, "0s");
    let mut gateway = setup.clone().start();
    let tokens = gateway.register("alice");
    let newest = next(&gateway, &next(&gateway, &tokens.refresh));
    gateway.kill();
    let mut gateway = setup.clone().start_in(gateway.folder.clone());
    reuse(&gateway, &tokens.refresh);
    gateway.kill();
    let gateway = setup.start_in(gateway.folder.clone());
    assert_eq!(refresh(&gateway, &newest).code(), "token_revoked");
    assert_eq!(gateway.try_token(&tokens.access), 401);
}

#[test]
fn the_parent_is_good_while_its_child_is_unused() {
    let (_origin, gateway) = started("0s");
    let parent = gateway.register("alice").refresh;
    let child = next(&gateway, &parent);
    for _ in 0..3 {
        assert_eq!(next(&gateway, &parent), child, "an answer that was lost on its way");
    }
    let grandchild = next(&gateway, &child);
    assert_eq!(next(&gateway, &child), grandchild);
    reuse(&gateway, &parent);
}

#[test]
fn a_late_racer_gets_the_used_child_and_finds_the_newest() {
    let (_origin, gateway) = started("60s");
    let first = gateway.register("alice").refresh;
    let second = next(&gateway, &first);
    let third = next(&gateway, &second);
    let fourth = next(&gateway, &third);
    for (token, expected) in [(&first, &second), (&second, &third), (&third, &fourth), (&first, &second)] {
        assert_eq!(&next(&gateway, token), expected);
    }
    next(&gateway, &fourth);
}

#[test]
fn thirty_two_race_for_one_successor() {
    const ROUNDS: usize = 200;
    const RACERS: usize = 32;
    let (_origin, gateway) = started("10s");
    gateway.register("alice");
    // An own session each round: more than 30 refreshes a minute are too many for one.
    let tokens: Vec<String> = (0..ROUNDS).map(|_| gateway.login("alice").refresh).collect();
    let barrier = Barrier::new(RACERS);
    let answers: Vec<Vec<_>> = std::thread::scope(|scope| {
        let racer = || {
            let mut connection = Connection::open(gateway.public);
            let race = |token: &String| {
                barrier.wait();
                post("/token/refresh").bearer(token).send_on(&mut connection, gateway.public)
            };
            tokens.iter().map(race).collect()
        };
        let racers: Vec<_> = (0..RACERS).map(|_| scope.spawn(racer)).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    // Not before all have come in: who fails would keep the others waiting.
    let tokens_of_all =
        |racer: Vec<std::io::Result<Response>>| racer.into_iter().map(|answer| tokens_of(&answer.unwrap()));
    let won: Vec<Vec<_>> = answers.into_iter().map(|racer| tokens_of_all(racer).collect()).collect();
    for (round, token) in tokens.iter().enumerate() {
        let successors: BTreeSet<&str> = won.iter().map(|racer| racer[round].1.as_str()).collect();
        assert_eq!(successors.len(), 1, "round {round}: the family forked");
        let sid = &jwt::claims_of(token)["sid"];
        assert!(won.iter().all(|racer| jwt::claims_of(&racer[round].0)["sid"] == *sid), "round {round}");
        assert_eq!(gateway.try_token(&won[0][round].0), 200, "round {round}: the session was lost");
        let successor = successors.first().unwrap();
        assert_ne!(next(&gateway, successor), *successor, "round {round}: the successor is good for one more");
    }
    let database = rusqlite::Connection::open(gateway.folder.path().join("portcullis.db")).unwrap();
    let count = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM revocation"), 0);
    assert_eq!(count("SELECT count(*) FROM session"), 201);
}

#[test]
fn two_gateways_on_one_database_give_one_successor() {
    let origin = Origin::start();
    let setup = setup(&origin, "10s");
    let first = setup.clone().start();
    let second = setup.start_in(first.folder.clone());
    first.register("alice");
    for round in 0..10 {
        let token = first.login("alice").refresh;
        let barrier = Barrier::new(8);
        let race = |gateway: &Gateway| {
            barrier.wait();
            refresh(gateway, &token)
        };
        let successors: BTreeSet<String> = std::thread::scope(|scope| {
            let gateways = [&first, &second].into_iter().cycle().take(8);
            let race = &race;
            let racers: Vec<_> = gateways.map(|gateway| scope.spawn(move || race(gateway))).collect();
            racers.into_iter().map(|racer| tokens_of(&racer.join().unwrap()).1).collect()
        });
        assert_eq!(successors.len(), 1, "round {round}: the family forked");
    }
}

#[test]
fn a_session_goes_on_when_rotation_is_switched_on_and_off() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let switch = |enabled: bool| {
        edit(&gateway, |config| {
            config["identity"]["refresh_rotation"] = json!({"enabled": enabled, "grace": "0s"});
        });
        reload(&gateway);
    };
    let tokens = gateway.register("alice");
    assert!(refresh(&gateway, &tokens.refresh).json()["refresh_token"].is_null());
    switch(true);
    let second = next(&gateway, &tokens.refresh);
    let third = next(&gateway, &second);
    switch(false);
    let answer = refresh(&gateway, &third);
    assert_eq!((answer.status, answer.json()["refresh_token"].is_null()), (200, true), "{answer:?}");
    for token in [&tokens.refresh, &second] {
        assert_eq!(refresh(&gateway, token).code(), "token_revoked", "what was turned in stays so");
    }
    assert_eq!(refresh(&gateway, &third).status, 200, "and ends nothing now");
    assert_eq!(gateway.try_token(&tokens.access), 200);
    switch(true);
    assert_eq!(refresh(&gateway, &next(&gateway, &third)).status, 200);
}

#[test]
fn tokens_without_session_do_not_rotate() {
    let (_origin, gateway) = started("0s");
    gateway.register("alice");
    let flask = jwt::token_with("alice", &json!({"type": "refresh"}));
    for _ in 0..3 {
        let answer = refresh(&gateway, &flask);
        assert_eq!((answer.status, answer.json()["refresh_token"].is_null()), (200, true), "{answer:?}");
    }
}

#[test]
fn a_logout_ends_the_whole_family() {
    let (_origin, gateway) = started("60s");
    for path in ["/logout", "/logout/refresh"] {
        let name = path.replace('/', "-");
        let first = gateway.register(&name).refresh;
        let second = next(&gateway, &first);
        assert_eq!(post(path).bearer(&second).send(gateway.public).status, 200);
        for token in [&first, &second] {
            assert_eq!(refresh(&gateway, token).code(), "token_revoked", "{path}");
        }
    }
}

#[test]
fn a_logout_amid_refreshes_leaves_nothing_alive() {
    let (_origin, gateway) = started("10s");
    gateway.register("alice");
    let mut dice = Dice::new();
    for round in 0..20 {
        let tokens = gateway.login("alice");
        // Each follows the family from its beginning until it is dead.
        let follow = || {
            let (mut connection, mut token, mut won) =
                (Connection::open(gateway.public), tokens.refresh.clone(), vec![]);
            loop {
                let answer = post("/token/refresh").bearer(&token).send_on(&mut connection, gateway.public).unwrap();
                match answer.status {
                    200 => won.push(tokens_of(&answer)),
                    429 => std::thread::yield_now(),
                    _ => return (won, answer),
                }
                token = won.last().map_or(token, |(_, refresh)| refresh.clone());
            }
        };
        let (logout, followed) = std::thread::scope(|scope| {
            let followers: Vec<_> = (0..4).map(|_| scope.spawn(follow)).collect();
            std::thread::sleep(Duration::from_micros(dice.below(20_000)));
            let logout = post("/logout").bearer(&tokens.access).send(gateway.public);
            (logout, followers.into_iter().map(|follower| follower.join().unwrap()).collect::<Vec<_>>())
        });
        assert_eq!(logout.status, 200, "round {round}: {logout:?}");
        for (won, last) in followed {
            assert_eq!(last.code(), "token_revoked", "round {round}: {last:?}");
            for (access, refresh_token) in won {
                assert_eq!(gateway.try_token(&access), 401, "round {round}: an access token lives");
                assert_eq!(refresh(&gateway, &refresh_token).code(), "token_revoked", "round {round}");
            }
        }
    }
}

#[test]
fn thirty_rotations_a_minute() {
    let (_origin, gateway) = started("10s");
    let mut token = gateway.register("alice").refresh;
    for _ in 0..30 {
        token = next(&gateway, &token);
    }
    let answer = refresh(&gateway, &token);
    assert_eq!((answer.status, answer.code()), (429, "too_many_requests"), "{answer:?}");
    assert!(answer.header("retry-after").is_some());
}
