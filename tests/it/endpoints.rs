//! The endpoints that the gateway answers itself, in the standard style.

use serde_json::{Value, json};

use crate::harness::{Gateway, PASSWORD, Setup, await_that, credentials};
use crate::jwt;
use crate::origin::Origin;
use crate::wire::{Request, Response, get, post, request};

const NO_TOKEN: &str = "Missing Authorization Header";

/// What is expected: a status, the code of a refusal ("" for none), and a text that the body holds.
type Expected<'a> = (u16, &'a str, &'a str);

#[track_caller]
fn check(what: &str, answer: &Response, (status, code, text): Expected<'_>) {
    assert_eq!(answer.status, status, "{what}: {answer:?}");
    assert_eq!(answer.code(), code, "{what}: {answer:?}");
    assert!(answer.text().contains(text), "{what}: expected {text:?} in {answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}: {answer:?}");
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("application/json"), "{what}: {answer:?}");
    if !code.is_empty() {
        assert_eq!(answer.json()["error"], code, "{what}: {answer:?}");
        assert!(answer.json()["message"].is_string() || code == "field_missing", "{what}: {answer:?}");
    }
    let challenged = status == 403 && code == "forbidden" || status == 401 && code.starts_with("token_");
    if challenged {
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        assert!(challenge.starts_with("Bearer"), "{what}: {answer:?}");
    }
}

fn started() -> (Origin, Gateway) {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    (origin, gateway)
}

#[test]
fn the_life_of_a_token() {
    let (_origin, gateway) = started();
    let body = credentials("alice", PASSWORD);

    let registered = post("/registration").json(&body).send(gateway.public);
    check("registration", &registered, (201, "", "User alice was created"));
    let again = post("/registration").json(&body).send(gateway.public);
    check("registration twice", &again, (409, "user_exists", "User alice already exists"));
    let login = post("/login").json(&body).send(gateway.public);
    check("login", &login, (200, "", "Logged in as alice"));

    let tokens = login.json();
    let (access, refresh) = (tokens["access_token"].as_str().unwrap(), tokens["refresh_token"].as_str().unwrap());
    assert_eq!(gateway.try_token(access), 200);
    let refreshed = post("/token/refresh").bearer(refresh).send(gateway.public);
    check("refresh", &refreshed, (200, "", "access_token"));
    assert!(refreshed.json()["refresh_token"].is_null(), "rotation is off");
    let renewed = refreshed.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(gateway.try_token(&renewed), 200);

    let out = post("/logout/access").bearer(access).send(gateway.public);
    check("logout/access", &out, (200, "", "Access token has been revoked"));
    check(
        "revoked",
        &get("/secret").bearer(access).send(gateway.public),
        (401, "token_revoked", "Token has been revoked"),
    );
    assert_eq!(gateway.try_token(&renewed), 200, "the other one lives");
    let out = post("/logout/refresh").bearer(refresh).send(gateway.public);
    check("logout/refresh", &out, (200, "", "Refresh token has been revoked"));
    let dead = post("/token/refresh").bearer(refresh).send(gateway.public);
    check("refresh with a revoked token", &dead, (401, "token_revoked", "Token has been revoked"));
}

#[test]
fn tokens_carry_the_claims_of_the_contract() {
    let (_origin, gateway) = started();
    let first = gateway.register("alice");
    for tokens in [first, gateway.login("alice")] {
        let (access, refresh) = (jwt::claims_of(&tokens.access), jwt::claims_of(&tokens.refresh));
        for (claims, kind, life) in [(&access, "access", 900), (&refresh, "refresh", 30 * 86_400)] {
            assert_eq!(claims["type"], kind);
            assert_eq!(claims["sub"], "alice");
            assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), life, "{claims}");
            assert_eq!(claims["nbf"], claims["iat"]);
            assert_eq!(claims["jti"].as_str().unwrap().len(), 36);
            assert_eq!(claims["sid"], access["sid"]);
            assert!(claims["gen"].is_number());
            for absent in ["roles", "iss", "aud"] {
                assert!(claims.get(absent).is_none(), "{claims}");
            }
        }
        assert_eq!(access["fresh"], true);
        assert_ne!(access["jti"], refresh["jti"]);
        let renewed = post("/token/refresh").bearer(&tokens.refresh).send(gateway.public).json();
        let renewed = jwt::claims_of(renewed["access_token"].as_str().unwrap());
        assert_eq!((&renewed["fresh"], &renewed["sid"]), (&json!(false), &access["sid"]));
    }
}

#[test]
fn bodies_of_registration_and_login() {
    let (_origin, gateway) = started();
    gateway.register("bob");
    let blank = r#"{"error":"field_missing","message":{"username":"This field cannot be blank"}}"#;
    let no_password = r#"{"password":"This field cannot be blank"}"#;
    let json_of = |text: &str| post("/x").header("Content-Type", "application/json").body(text);
    let of_bytes = |bytes: &[u8]| post("/x").form("").body(bytes);
    let typed = |kind: &str| post("/x").header("Content-Type", kind).body("username=a&password=b");
    let missing = (400, "field_missing", "cannot be blank");
    let malformed = (400, "malformed_body", "");
    let large = format!(r#"{{"username":"carl","password":"{}"}}"#, "x".repeat(17 * 1024));
    let cases: Vec<(&str, Request, Expected<'_>)> = vec![
        ("no body", post("/x"), missing),
        ("an empty object", json_of("{}"), (400, "field_missing", blank)),
        ("null", json_of(r#"{"username":null,"password":"long enough"}"#), (400, "field_missing", blank)),
        ("blank", json_of(r#"{"username":"","password":"long enough"}"#), (400, "field_missing", blank)),
        ("no password", json_of(r#"{"username":"carl"}"#), (400, "field_missing", no_password)),
        ("blank password", json_of(r#"{"username":"carl","password":""}"#), (400, "field_missing", no_password)),
        ("form without password", post("/x").form("username=carl"), (400, "field_missing", no_password)),
        ("form with blank name", post("/x").form("username=&password=long+enough"), (400, "field_missing", blank)),
        ("a number", json_of(r#"{"username":1,"password":"long enough"}"#), malformed),
        ("a list", json_of(r#"{"username":["carl"],"password":"long enough"}"#), malformed),
        ("an object", json_of(r#"{"username":"carl","password":{"$ne":""}}"#), malformed),
        ("duplicate", json_of(r#"{"username":"carl","username":"bob","password":"long enough"}"#), malformed),
        ("duplicate escaped", json_of(r#"{"username":"carl","\u0075sername":"bob","password":"12345678"}"#), malformed),
        ("duplicate in a form", post("/x").form("username=carl&username=bob&password=12345678"), malformed),
        ("a form that is no UTF-8", post("/x").form("username=carl&password=1234%FF5678"), malformed),
        ("one in plain bytes", of_bytes(&b"username=carl&password=1234\xff5678"[..]), malformed),
        ("one with half a character", post("/x").form("username=carl%EF%BF&password=12345678"), malformed),
        ("no JSON", json_of(r#"{"username":"carl""#), malformed),
        ("trailing text", json_of(r#"{"username":"carl","password":"12345678"} x"#), malformed),
        (
            "no UTF-8",
            post("/x").header("Content-Type", "application/json").body(&b"{\"username\":\"\xff\"}"[..]),
            malformed,
        ),
        ("text/plain", typed("text/plain"), (415, "unsupported_media_type", "application/json")),
        ("xml", typed("application/xml"), (415, "unsupported_media_type", "application/x-www-form-urlencoded")),
        ("17 KiB", json_of(&large), (413, "body_too_large", "")),
    ];
    for path in ["/registration", "/login"] {
        for (what, request, expected) in &cases {
            let answer = request.clone().to(path).send(gateway.public);
            check(&format!("{path}, {what}"), &answer, *expected);
        }
    }
}

#[test]
fn both_kinds_of_body_are_understood() {
    let (_origin, gateway) = started();
    let form = post("/registration").form("username=d+%C3%A9&password=correct+horse+battery").send(gateway.public);
    check("form", &form, (201, "", "User d é was created"));
    for kind in ["application/json; charset=utf-8", "APPLICATION/JSON", "application/json;charset=UTF-8"] {
        let body = credentials("d é", PASSWORD).to_string();
        let answer = post("/login").header("Content-Type", kind).body(body).send(gateway.public);
        check(kind, &answer, (200, "", "Logged in as d é"));
    }
    let strange = format!("{PASSWORD}\u{fffd} +&=%");
    let form = "username=e%ef%BF%bd%%zz%2&password=correct+horse%20battery%EF%BF%BD+%2B%26=%25&%FF=x&&y";
    let form = post("/registration").form(form).send(gateway.public);
    check("what a decoder might write for nonsense", &form, (201, "", "User e\u{fffd}%%zz%2 was created"));
    let answer = post("/login").json(&credentials("e\u{fffd}%%zz%2", &strange)).send(gateway.public);
    assert_eq!(answer.status, 200, "the same in JSON: {answer:?}");
    let body = json!({"username": "d é", "password": PASSWORD, "remember": true});
    assert_eq!(post("/login").json(&body).send(gateway.public).status, 200, "other fields are not looked at");
}

#[test]
fn rules_for_names_and_passwords() {
    let (_origin, gateway) = started();
    let long = "x".repeat(121);
    for name in [" a", "a ", "a\nb", "a\u{0}b", "a\u{200b}b", "a\u{202e}b", "a\u{2028}b", "u\u{308}", &long] {
        let answer = post("/registration").json(&credentials(name, PASSWORD)).send(gateway.public);
        check(&format!("{name:?}"), &answer, (400, "invalid_username", ""));
        let answer = post("/login").json(&credentials(name, PASSWORD)).send(gateway.public);
        check(&format!("login as {name:?}"), &answer, (401, "wrong_credentials", "Wrong credentials"));
    }
    let huge = "p".repeat(1025);
    for password in ["1234567", &huge] {
        let answer = post("/registration").json(&credentials("erin", password)).send(gateway.public);
        check("weak", &answer, (400, "weak_password", ""));
        let answer = post("/login").json(&credentials("erin", password)).send(gateway.public);
        check("login with a misfit", &answer, (401, "wrong_credentials", "Wrong credentials"));
    }
    for (name, password) in [("x", "12345678"), ("名前", &"p".repeat(1024)), (&"y".repeat(120), "ありがとう")] {
        let answer = post("/registration").json(&credentials(name, password)).send(gateway.public);
        check(&format!("{name:?}"), &answer, (201, "", ""));
    }
}

#[test]
fn an_unknown_user_and_a_wrong_password_are_alike() {
    let (_origin, gateway) = started();
    gateway.register("alice");
    let wrong = post("/login").json(&credentials("alice", "wrong password")).send(gateway.public);
    let unknown = post("/login").json(&credentials("nobody", "wrong password")).send(gateway.public);
    check("wrong password", &wrong, (401, "wrong_credentials", "Wrong credentials"));
    assert_eq!(wrong.body, unknown.body);
    let names = |answer: &Response| answer.headers.iter().map(|(name, _)| name.to_lowercase()).collect::<Vec<_>>();
    assert_eq!(names(&wrong), names(&unknown));
    for other in ["Alice", "alice\u{301}"] {
        let answer = post("/login").json(&credentials(other, PASSWORD)).send(gateway.public);
        assert_eq!(answer.code(), "wrong_credentials", "{other:?}: names are compared exactly");
    }
}

#[test]
fn registration_can_be_closed() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).set("identity.registration", json!("closed")).start();
    let answer = post("/registration").json(&credentials("alice", PASSWORD)).send(gateway.public);
    check("closed", &answer, (403, "registration_closed", ""));
    gateway.add_user("alice", "staff");
    let claims = jwt::claims_of(&gateway.login("alice").access);
    assert_eq!(claims["roles"], json!(["staff"]));
}

#[test]
fn wrong_methods_and_trailing_slashes() {
    let (origin, gateway) = started();
    for path in [
        "/registration",
        "/login",
        "/token/refresh",
        "/logout/access",
        "/logout/refresh",
        "/logout",
        "/logout/all",
        "/password",
    ] {
        for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
            for slash in ["", "/"] {
                let answer = request(method, &format!("{path}{slash}")).send(gateway.public);
                let message = "The method is not allowed for the requested URL.";
                check(&format!("{method} {path}{slash}"), &answer, (405, "method_not_allowed", message));
                assert_eq!(answer.header("allow"), Some("POST"), "{method} {path}");
            }
        }
        assert_eq!(request("HEAD", path).send(gateway.public).status, 405, "{path}");
    }
    let answer = post("/users").send(gateway.public);
    assert_eq!((answer.status, answer.code()), (405, "method_not_allowed"));
    let allow = answer.header("allow").unwrap();
    assert!(allow.contains("GET") && allow.contains("DELETE"), "{allow}");
    for (path, allowed) in [("/sessions", "GET, HEAD"), ("/sessions/", "GET, HEAD"), ("/sessions/x", "DELETE")] {
        let answer = post(path).send(gateway.public);
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{path}");
    }
    for other in ["/sessions/x/y", "/sessions/x/y/", "/sessions/x/../y/z"] {
        assert_eq!(request("DELETE", other).send(gateway.public).code(), "no_route", "{other}");
    }

    for spelling in ["/login/", "/%6cogin", "//login", "/./login", "/x/../login", "/login?next=/"] {
        let answer = post(spelling).send(gateway.public);
        check(spelling, &answer, (400, "field_missing", ""));
    }
    for other in ["/login//", "/logins", "/login/x", "/Login"] {
        assert!([400, 404].contains(&post(other).send(gateway.public).status), "{other}");
    }
    assert_eq!(origin.count(), 0, "an endpoint is never forwarded");
}

#[test]
fn a_prefix_moves_the_endpoints() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).set("identity.prefix", json!("/auth")).start();
    let answer = post("/auth/registration").json(&credentials("alice", PASSWORD)).send(gateway.public);
    check("moved", &answer, (201, "", ""));
    assert_eq!(post("/registration").send(gateway.public).code(), "no_route");
    assert_eq!(get("/auth/verify").send(gateway.public).code(), "token_missing");
    assert_eq!(request("DELETE", "/auth/sessions/1").send(gateway.public).code(), "token_missing");
    assert_eq!(request("DELETE", "/sessions/1").send(gateway.public).code(), "no_route");
}

#[test]
fn credentials_of_every_endpoint() {
    let (_origin, gateway) = started();
    let tokens = gateway.register("alice");
    let wrong_type = |text| (401, "token_wrong_type", text);
    let only_refresh = wrong_type("Only refresh tokens are allowed");
    let only_access = wrong_type("Only non-refresh tokens are allowed");
    let other_secret = jwt::sign_text(
        r#"{"alg":"HS256"}"#,
        &jwt::claims_with("alice", &json!({})).to_string(),
        b"another secret of more than 32 bytes, surely",
        aws_lc_rs::hmac::HMAC_SHA256,
    );
    for (method, path, wrong, wrong_answer) in [
        ("POST", "/token/refresh", &tokens.access, only_refresh),
        ("POST", "/logout/refresh", &tokens.access, only_refresh),
        ("POST", "/logout/access", &tokens.refresh, only_access),
        ("POST", "/logout/all", &tokens.refresh, only_access),
        ("GET", "/sessions", &tokens.refresh, only_access),
        ("DELETE", "/sessions/x", &tokens.refresh, only_access),
        ("POST", "/password", &tokens.refresh, only_access),
        ("GET", "/users", &tokens.refresh, only_access),
        ("DELETE", "/users", &tokens.refresh, only_access),
        ("GET", "/auth/verify", &tokens.refresh, only_access),
        ("GET", "/secret", &tokens.refresh, only_access),
    ] {
        let ask = || request(method, path);
        let basic = "Basic YWxpY2U6eA==";
        for (what, request, expected) in [
            ("nothing", ask(), (401, "token_missing", NO_TOKEN)),
            ("Basic", ask().header("Authorization", basic), (401, "token_missing", NO_TOKEN)),
            ("no token", ask().header("Authorization", "Bearer"), (401, "token_malformed", "")),
            ("two words", ask().header("Authorization", "Bearer a b"), (401, "token_malformed", "")),
            ("one segment", ask().bearer("abc"), (401, "token_malformed", "")),
            ("two segments", ask().bearer("abc.def"), (401, "token_malformed", "")),
            ("no base64", ask().bearer("a!.b!.c!"), (401, "token_malformed", "")),
            ("another secret", ask().bearer(&other_secret), (401, "token_invalid", "Signature verification failed")),
            ("the wrong type", ask().bearer(wrong), wrong_answer),
        ] {
            check(&format!("{method} {path}, {what}"), &request.send(gateway.public), expected);
        }
        let pair = format!("Bearer {}, Bearer {}", tokens.access, tokens.access);
        for (what, request) in [
            ("two fields", ask().bearer(&tokens.access).bearer(&tokens.access)),
            ("two fields, one empty", ask().bearer(&tokens.access).header("authorization", "")),
            ("a joined pair", ask().header("Authorization", &pair)),
        ] {
            let answer = request.send(gateway.public);
            if path == "/auth/verify" {
                assert!([401, 403].contains(&answer.status), "it knows no other refusal: {what}: {answer:?}");
                continue;
            }
            assert_eq!((answer.status, answer.code()), (400, "token_ambiguous"), "{path}, {what}: {answer:?}");
        }
    }
    for scheme in ["bearer", "BEARER", "bEaReR"] {
        let answer =
            get("/secret").header("Authorization", &format!("{scheme} {}", tokens.access)).send(gateway.public);
        assert_eq!(answer.status, 200, "{scheme}");
    }
    let long = format!("{}.{}.c", "a".repeat(5000), "b".repeat(5000));
    assert!([401, 431].contains(&gateway.try_token(&long)), "over 8 KiB");
}

#[test]
fn a_refused_token_is_challenged_as_rfc_6750_says() {
    let (_origin, gateway) = started();
    let challenge = |answer: Response| answer.header("www-authenticate").unwrap_or_default().to_owned();
    let missing = challenge(get("/secret").send(gateway.public));
    assert!(missing.starts_with("Bearer") && !missing.contains("error="), "{missing}");
    let expired = jwt::token_with("alice", &json!({"exp": jwt::now() - 100}));
    let invalid = challenge(get("/secret").bearer(&expired).send(gateway.public));
    assert!(invalid.contains(r#"error="invalid_token""#), "{invalid}");
    let tokens = gateway.register("alice");
    let forbidden = get("/admin/x").bearer(&tokens.access).send(gateway.public);
    check("role", &forbidden, (403, "forbidden", ""));
    assert!(challenge(forbidden).contains(r#"error="insufficient_scope""#));
}

#[test]
fn logging_out_with_a_dead_token_works() {
    let (_origin, gateway) = started();
    let past = jwt::now() - 1000;
    for (kind, path) in [("access", "/logout/access"), ("refresh", "/logout/refresh")] {
        let good = jwt::token_with("alice", &json!({"type": kind}));
        let expired = jwt::token_with("alice", &json!({"type": kind, "iat": past, "nbf": past, "exp": past + 100}));
        for token in [&good, &good, &expired] {
            let answer = post(path).bearer(token).send(gateway.public);
            check(path, &answer, (200, "", "token has been revoked"));
        }
        let unsigned = format!("{}x", &good[..good.len() - 2]);
        assert_eq!(post(path).bearer(&unsigned).send(gateway.public).status, 401);
    }
}

#[test]
fn refresh_reads_the_account() {
    let (_origin, gateway) = started();
    let unknown = jwt::token_with("nobody", &json!({"type": "refresh"}));
    let answer = post("/token/refresh").bearer(&unknown).send(gateway.public);
    check("no such account", &answer, (401, "token_revoked", "Token has been revoked"));
    gateway.register("alice");
    let foreign = jwt::token_with("alice", &json!({"type": "refresh"}));
    let answer = post("/token/refresh").bearer(&foreign).send(gateway.public);
    check("a token that Flask made", &answer, (200, "", "access_token"));
    let renewed = answer.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(gateway.try_token(&renewed), 200);
}

#[test]
fn users_is_for_administrators() {
    let (_origin, gateway) = started();
    gateway.add_user("root", "admin");
    let root = gateway.login("root");
    let alice = gateway.register("alice");
    gateway.register("bob");
    let list = |token: &str, query: &str| get(&format!("/users{query}")).bearer(token).send(gateway.public);

    check("not an administrator", &list(&alice.access, ""), (403, "forbidden", ""));
    let claimed = jwt::token_with("alice", &json!({"roles": ["admin"]}));
    check("a role that only the token has", &list(&claimed, ""), (403, "forbidden", ""));
    let stranger = jwt::token_with("nobody", &json!({"roles": ["admin"]}));
    assert_ne!(list(&stranger, "").status, 200);

    let all = list(&root.access, "");
    check("list", &all, (200, "", "users"));
    let names = |answer: &Response| -> Vec<String> {
        let users = answer.json()["users"].as_array().unwrap().clone();
        users.iter().map(|user| user["username"].as_str().unwrap().to_owned()).collect()
    };
    let mut found = names(&all);
    found.sort();
    assert_eq!(found, ["alice", "bob", "root"]);
    assert!(!all.text().contains("argon2") && !all.text().to_lowercase().contains("password"), "never a hash");
    let root_entry = all.json()["users"].as_array().unwrap().iter().find(|u| u["username"] == "root").cloned().unwrap();
    assert_eq!(root_entry["roles"], json!(["admin"]));
    assert!(root_entry["created"].as_str().unwrap().ends_with('Z'), "RFC 3339, UTC: {root_entry}");

    let mut paged = Vec::new();
    let mut query = "?limit=2".to_owned();
    for _ in 0..3 {
        let page = list(&root.access, &query);
        assert_eq!(page.status, 200, "{page:?}");
        paged.extend(names(&page));
        match &page.json()["next"] {
            Value::Null => break,
            Value::String(next) => query = format!("?limit=2&after={next}"),
            next => query = format!("?limit=2&after={next}"),
        }
    }
    paged.sort();
    assert_eq!(paged, ["alice", "bob", "root"]);

    check(
        "not an administrator",
        &request("DELETE", "/users").bearer(&alice.access).send(gateway.public),
        (403, "forbidden", ""),
    );
    let deleted = request("DELETE", "/users").bearer(&root.access).send(gateway.public);
    check("delete", &deleted, (200, "", "2 row(s) deleted"));
    check("their tokens die", &get("/secret").bearer(&alice.access).send(gateway.public), (401, "token_revoked", ""));
    let refresh = post("/token/refresh").bearer(&alice.refresh).send(gateway.public);
    check("refresh tokens as well", &refresh, (401, "token_revoked", ""));
    assert_eq!(gateway.try_token(&root.access), 200, "the caller's own row stays");
    assert_eq!(names(&list(&root.access, "")), ["root"]);

    let reborn = gateway.register("alice");
    assert_eq!(gateway.try_token(&reborn.access), 200, "a new account of the old name");
    assert_eq!(gateway.try_token(&alice.access), 401, "and still not its old tokens");
}

#[test]
fn users_can_be_off() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).set("identity.users", json!("off")).start();
    gateway.add_user("root", "admin");
    let root = gateway.login("root");
    assert_eq!(get("/users").bearer(&root.access).send(gateway.public).code(), "no_route");
}

#[test]
fn verify_answers_for_other_proxies() {
    let (origin, gateway) = started();
    gateway.add_user("root", "admin");
    let token = gateway.login("root").access;
    for method in ["GET", "POST", "HEAD", "DELETE"] {
        let answer = request(method, "/auth/verify").bearer(&token).send(gateway.public);
        assert_eq!(answer.status, 200, "{method}: {answer:?}");
        assert_eq!(answer.header("x-auth-subject"), Some("root"));
        assert_eq!(answer.header("x-auth-roles"), Some("admin"));
        assert_eq!(answer.header("x-auth-token-id"), jwt::claims_of(&token)["jti"].as_str());
        assert_eq!(answer.header("x-auth-session"), jwt::claims_of(&token)["sid"].as_str());
        assert!(answer.body.is_empty());
    }
    check("no token", &get("/auth/verify").send(gateway.public), (401, "token_missing", NO_TOKEN));
    let untrusted = get("/auth/verify").bearer(&token).header("X-Forwarded-Uri", "/nowhere").send(gateway.public);
    assert_eq!(untrusted.status, 200, "an untrusted peer's X-Forwarded-* is not looked at");
    assert_eq!(origin.count(), 0);
}

#[test]
fn verify_judges_the_route_for_trusted_peers() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).set("server.trusted_proxies", json!(["127.0.0.1"])).start();
    let token = jwt::access("alice");
    let admin = jwt::token_with("root", &json!({"roles": ["admin"]}));
    let ask = |token: &str, fields: &[(&str, &str)]| {
        let asked = get("/auth/verify").bearer(token);
        let asked = fields.iter().fold(asked, |asked, (name, value)| asked.header(name, value));
        let answer = asked.send(gateway.public);
        (answer.status, answer.code().to_owned())
    };
    let about =
        |path: &'static str| [("X-Forwarded-Method", "GET"), ("X-Forwarded-Host", "x"), ("X-Forwarded-Uri", path)];
    let good = (200, String::new());
    let forbidden = (403, "forbidden".to_owned());
    assert_eq!(ask(&token, &about("/secret")), good);
    assert!(!gateway.output().contains("is not in server.trusted_proxies"));
    let stranger = Setup::new(origin.address).start();
    for _ in 0..2 {
        let asked =
            about("/admin/x").into_iter().fold(get("/auth/verify"), |ask, (name, value)| ask.header(name, value));
        assert_eq!(asked.bearer(&token).send(stranger.public).status, 200, "it cannot be believed");
    }
    await_that("it is told, once", || stranger.output().matches("is not in server.trusted_proxies").count() == 1);
    assert_eq!(ask(&token, &about("/admin/x")), forbidden);
    assert_eq!(ask(&admin, &about("/admin/x?y=z")), good);
    assert_eq!(ask(&token, &about("/public/../admin/x")), forbidden);
    assert_eq!(ask("", &about("/public/x")).0, 401, "a public route opens nothing without a token");
    assert!([401, 403].contains(&ask(&token, &about("/public/%00")).0));
    for fields in [
        vec![("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/secret")],
        vec![("X-Forwarded-Host", "x"), ("X-Forwarded-Uri", "/secret")],
        [&about("/secret")[..], &[("X-Forwarded-Uri", "/admin/x")]].concat(),
    ] {
        assert_eq!(ask(&token, &fields), forbidden, "{fields:?}");
    }
}

#[test]
fn a_key_is_made_and_kept_when_none_is_configured() {
    let origin = Origin::start();
    let setup = Setup::new(origin.address).unset("tokens", "secret");
    let mut gateway = setup.clone().start();
    let tokens = gateway.register("alice");
    assert_eq!(gateway.try_token(&jwt::access("alice")), 401);
    gateway.kill();
    let again = setup.start_in(gateway.folder.clone());
    assert_eq!(again.try_token(&tokens.access), 200, "a restart logs nobody out");
}

#[test]
fn json_that_is_sent_as_a_form_is_told_so() {
    let origin = Origin::start();
    let body = r#"{"username":"alice","password":"correct horse battery"}"#;
    let asked = || post("/login").header("content-type", "application/x-www-form-urlencoded").body(body.as_bytes());
    let answer = asked().send(Setup::new(origin.address).start().public);
    assert_eq!((answer.status, answer.code()), (400, "malformed_body"));
    assert!(answer.message().contains("application/json"), "{answer:?}");
    // The tutorial's clients are answered as they always were.
    let answer = asked().send(Setup::flask(origin.address).start().public);
    assert_eq!((answer.status, answer.code()), (400, "field_missing"));
}
