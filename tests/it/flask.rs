//! The style of the Flask tutorial, beside a real flask-jwt-extended: the same answers, each other's tokens.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{PASSWORD, SECRET, Setup, await_that, credentials, free_address};
use crate::jwt::{self, base64url, claims_with, now, token_with};
use crate::origin::Origin;
use crate::python;
use crate::wire::{Request, Response, get, post, request};

/// tests/flask/app.py, killed when this is dropped.
struct Flask {
    address: SocketAddr,
    child: Child,
}

impl Flask {
    fn start() -> Self {
        let address = free_address();
        let mut command = Command::new(python::python("flask"));
        command.arg(python::source("flask", "app.py")).arg(address.port().to_string());
        command.env("JWT_SECRET_KEY", SECRET).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let flask = Self { address, child };
        await_that("Flask answers", || get("/").try_send(address).is_ok());
        flask
    }
}

impl Drop for Flask {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn field(answer: &Response, name: &str) -> String {
    answer.json()[name].as_str().unwrap_or_else(|| panic!("no {name}: {answer:?}")).to_owned()
}

#[test]
fn each_side_accepts_the_others_tokens() {
    let flask = Flask::start();
    let origin = Origin::start();
    let gateway = Setup::flask(origin.address).start();
    let body = credentials("alice", PASSWORD);
    let ours = post("/registration").json(&body).send(gateway.public);
    let theirs = post("/registration").json(&body).send(flask.address);
    for (maker, pair) in [("gateway", &ours), ("Flask", &theirs)] {
        for (taker, address) in [("gateway", gateway.public), ("Flask", flask.address)] {
            let answer = get("/secret").bearer(&field(pair, "access_token")).send(address);
            assert_eq!(answer.status, 200, "made by {maker}, taken by {taker}: {answer:?}");
            let answer = post("/token/refresh").bearer(&field(pair, "refresh_token")).send(address);
            assert_eq!(answer.status, 200, "made by {maker}, refreshed by {taker}: {answer:?}");
            let renewed = field(&answer, "access_token");
            assert_eq!(get("/secret").bearer(&renewed).send(gateway.public).status, 200);
            assert_eq!(get("/secret").bearer(&renewed).send(flask.address).status, 200);
        }
        let token = field(pair, "access_token");
        assert_eq!(jwt::claims_of(&token)["fresh"], false, "{maker}");
        let out = post("/logout/access").bearer(&token).send(gateway.public);
        assert_eq!((out.status, field(&out, "message")), (200, "Access token has been revoked".into()), "{maker}");
        let dead = get("/secret").bearer(&token).send(gateway.public);
        assert_eq!((dead.status, dead.json()), (401, json!({"msg": "Token has been revoked"})), "{maker}");
    }
}

#[test]
fn bad_tokens_get_the_answers_of_flask() {
    let flask = Flask::start();
    let origin = Origin::start();
    let gateway = Setup::flask(origin.address).start();
    let good = jwt::access("alice");
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let refresh = token_with("alice", &json!({"type": "refresh"}));
    let expired = token_with("alice", &json!({"exp": now() - 100}));
    let other_key = jwt::sign_text(
        r#"{"alg":"HS256","typ":"JWT"}"#,
        &claims_with("alice", &json!({})).to_string(),
        b"another secret of more than 32 bytes, surely",
        aws_lc_rs::hmac::HMAC_SHA256,
    );
    let revoked = jwt::access("alice");
    for address in [gateway.public, flask.address] {
        assert_eq!(post("/logout/access").bearer(&revoked).send(address).status, 200);
    }
    let bearer = |token: &str| format!("Bearer {token}");
    let flipped = format!("{signed}.{}{}", if signature.starts_with('A') { 'B' } else { 'A' }, &signature[1..]);
    for (what, value) in [
        ("nothing", None),
        ("Basic", Some("Basic YWxpY2U6eA==".to_owned())),
        ("Token", Some(format!("Token {good}"))),
        ("no token", Some("Bearer".to_owned())),
        ("two words", Some(format!("Bearer {good} x"))),
        ("one segment", Some(bearer("abc"))),
        ("two segments", Some(bearer(signed))),
        ("a bad signature", Some(bearer(&flipped))),
        ("another key", Some(bearer(&other_key))),
        ("expired", Some(bearer(&expired))),
        ("revoked", Some(bearer(&revoked))),
        ("the wrong type", Some(bearer(&refresh))),
        ("good", Some(bearer(&good))),
    ] {
        let asked = value.iter().fold(get("/secret"), |asked, value| asked.header("Authorization", value));
        let (ours, theirs) = (asked.send(gateway.public), asked.send(flask.address));
        assert_eq!(ours.status, theirs.status, "{what}: {ours:?}, Flask: {theirs:?}");
        if ours.status != 200 {
            assert_eq!(ours.json(), theirs.json(), "{what}");
        }
    }
    let ours = post("/token/refresh").bearer(&good).send(gateway.public);
    let theirs = post("/token/refresh").bearer(&good).send(flask.address);
    assert_eq!((ours.status, ours.json()), (theirs.status, theirs.json()), "only refresh tokens");
}

#[test]
fn registration_and_login_answer_as_the_tutorial() {
    let flask = Flask::start();
    let origin = Origin::start();
    let gateway = Setup::flask(origin.address).start();
    for (path, name, password) in [
        ("/registration", "alice", PASSWORD),
        ("/registration", "alice", PASSWORD),
        ("/login", "alice", PASSWORD),
        ("/login", "alice", "a wrong password"),
        ("/login", "nobody", PASSWORD),
    ] {
        let asked = post(path).json(&credentials(name, password));
        let (ours, theirs) = (asked.send(gateway.public), asked.send(flask.address));
        assert_eq!((ours.status, ours.message()), (theirs.status, theirs.message()), "{path} {name}");
        let keys = |answer: &Response| answer.json().as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&ours), keys(&theirs), "{path} {name}");
    }
}

#[test]
fn the_column_of_the_contract() {
    let origin = Origin::start();
    let gateway = Setup::flask(origin.address)
        .and_routes(json!([
            {"path": "/get-only", "upstream": "app", "auth": "public", "methods": ["GET"]},
        ]))
        .start();
    gateway.register("alice");
    let alg_none = format!(
        "{}.{}.",
        base64url(br#"{"alg":"none"}"#),
        base64url(claims_with("alice", &json!({})).to_string().as_bytes())
    );
    let boundary = "multipart/form-data; boundary=b";
    let multipart = "--b\r\nContent-Disposition: form-data; name=\"username\"\r\n\r\nalice\r\n\
                     --b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\ncorrect horse battery\r\n--b--\r\n";
    let blank = json!({"message": {"username": "This field cannot be blank"}});
    let token = jwt::access("alice");
    let ambiguous = get("/secret").bearer(&token).bearer(&token);
    let cases: Vec<(&str, Request, u16, Option<Value>)> = vec![
        ("blank", post("/login").json(&json!({})), 400, Some(blank)),
        ("malformed", post("/login").json(&json!({"username": 1, "password": "x"})), 400, None),
        ("type", post("/login").header("Content-Type", "text/plain").body("x"), 415, None),
        ("multipart", post("/login").header("Content-Type", boundary).body(multipart), 200, None),
        ("weak", post("/registration").json(&credentials("bob", "short")), 400, None),
        ("name", post("/registration").json(&credentials(" bob", PASSWORD)), 400, None),
        (
            "taken",
            post("/registration").json(&credentials("alice", PASSWORD)),
            200,
            Some(json!({"message": "User alice already exists"})),
        ),
        ("alg none", get("/secret").bearer(&alg_none), 422, None),
        ("ambiguous", ambiguous, 422, None),
        ("role", get("/admin/x").bearer(&token), 403, None),
        ("no route", get("/nowhere"), 404, None),
        ("bad path", get("/public/%00"), 400, None),
        (
            "method",
            request("DELETE", "/get-only"),
            405,
            Some(json!({"message": "The method is not allowed for the requested URL."})),
        ),
        (
            "method of an endpoint",
            get("/login"),
            405,
            Some(json!({"message": "The method is not allowed for the requested URL."})),
        ),
    ];
    for (what, request, status, body) in cases {
        let answer = request.send(gateway.public);
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        if let Some(body) = body {
            assert_eq!(answer.json(), body, "{what}");
        }
        let answered = answer.json();
        assert!(answered.get("error").is_none(), "{what}: {answered}");
        let of_token = ["alg none", "ambiguous"].contains(&what);
        let key = if of_token { "msg" } else { "message" };
        assert!(answered.get(key).is_some(), "{what}: {answered}");
        assert_eq!(
            answer.code().is_empty(),
            what == "multipart",
            "{what}: refusals are marked in this style too: {answer:?}"
        );
    }
}

#[test]
fn users_may_be_open_to_anyone_as_in_the_tutorial() {
    let origin = Origin::start();
    let gateway = Setup::flask(origin.address).set("identity.users", json!("anyone")).start();
    gateway.register("alice");
    gateway.register("bob");
    let list = get("/users").send(gateway.public);
    assert_eq!(list.status, 200, "{list:?}");
    assert!(list.text().contains("alice") && !list.text().contains("argon2") && !list.text().contains("password"));
    let deleted = request("DELETE", "/users").send(gateway.public);
    assert_eq!((deleted.status, deleted.message()), (200, "2 row(s) deleted".into()));
}

#[test]
fn the_tutorials_own_short_secret_is_warned_about() {
    let origin = Origin::start();
    let gateway = Setup::flask(origin.address).set("tokens.secret", json!("jwt-secret-string")).start();
    let tokens = gateway.register("alice");
    assert_eq!(gateway.try_token(&tokens.access), 200);
    assert!(gateway.output().contains("tokens.secret"), "a loud warning:\n{}", gateway.output());
    assert!(!gateway.output().contains("jwt-secret-string"));
}
