//! Tokens that somebody else made: every trick of RFC 8725 and the public playbooks.

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use crate::harness::{Gateway, SECRET, Setup, await_that};
use crate::jwt::{self, base64url, claims_with, now, sign, sign_text, token_with};
use crate::origin::Origin;
use crate::wire::{get, post};

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

fn started() -> (Origin, Gateway) {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    (origin, gateway)
}

fn with_header(header: &str) -> String {
    sign_text(header, &claims_with("alice", &json!({})).to_string(), SECRET.as_bytes(), hmac::HMAC_SHA256)
}

fn with_claims(text: &str) -> String {
    sign_text(HEADER, text, SECRET.as_bytes(), hmac::HMAC_SHA256)
}

/// Each of `tokens` is refused with one of `codes` and reaches no upstream.
#[track_caller]
fn refused(tokens: impl IntoIterator<Item = (String, String)>, codes: &[&str]) {
    let (origin, gateway) = started();
    for (what, token) in tokens {
        for target in ["/secret", "/optional/a"] {
            let answer = get(target).bearer(&token).send(gateway.public);
            assert!(answer.status == 401 && codes.contains(&answer.code()), "{what}: {answer:?}");
        }
        let answer = post("/logout/access").bearer(&token).send(gateway.public);
        assert_eq!(answer.status, 401, "{what}, logout: {answer:?}");
    }
    assert_eq!(origin.count(), 0, "nothing was forwarded");
}

fn named<'a>(tokens: impl IntoIterator<Item = (&'a str, String)>) -> Vec<(String, String)> {
    tokens.into_iter().map(|(what, token)| (what.to_owned(), token)).collect()
}

#[test]
fn the_algorithm_comes_from_the_key() {
    let claims = claims_with("alice", &json!({})).to_string();
    let parts = |header: &str| format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
    let mut tokens = Vec::new();
    for alg in [
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        "HS256\u{0}",
        "hs256",
        "HS256 ",
        "RS256",
        "ES256",
        "EdDSA",
        "PS256",
        "HS384",
        "HS512",
        "HMAC",
    ] {
        let header = json!({"alg": alg, "typ": "JWT"}).to_string();
        tokens.push((format!("alg {alg:?}, no signature"), format!("{}.", parts(&header))));
        tokens.push((format!("alg {alg:?}, signed with HS256"), with_header(&header)));
    }
    let sha = |algorithm, name: &str| {
        let header = json!({"alg": name}).to_string();
        sign_text(&header, &claims, SECRET.as_bytes(), algorithm)
    };
    tokens.extend(named([
        ("a good HS384", sha(hmac::HMAC_SHA384, "HS384")),
        ("a good HS512", sha(hmac::HMAC_SHA512, "HS512")),
        ("HS384 said to be HS256", sha(hmac::HMAC_SHA384, "HS256")),
        ("no alg", with_header(r#"{"typ":"JWT"}"#)),
        ("alg null", with_header(r#"{"alg":null}"#)),
        ("alg is a number", with_header(r#"{"alg":256}"#)),
        ("alg is a list", with_header(r#"{"alg":["HS256"]}"#)),
        ("two algs", with_header(r#"{"alg":"none","alg":"HS256"}"#)),
        ("two algs, the other way", with_header(r#"{"alg":"HS256","alg":"none"}"#)),
        ("two algs, one escaped", with_header(r#"{"alg":"HS256","\u0061lg":"none"}"#)),
        ("no signature", format!("{}.", parts(HEADER))),
        ("an empty key", sign_text(HEADER, &claims, b"", hmac::HMAC_SHA256)),
        ("a guessed key", sign_text(HEADER, &claims, b"secret", hmac::HMAC_SHA256)),
        ("a part of the key", sign_text(HEADER, &claims, &SECRET.as_bytes()[..32], hmac::HMAC_SHA256)),
        ("a header that is no object", with_header(r#"["HS256"]"#)),
        ("a header that is no JSON", with_header("HS256")),
        ("an empty header", with_header("")),
    ]));
    refused(tokens, &["token_invalid", "token_malformed"]);
}

#[test]
fn nothing_in_the_header_is_followed() {
    let key = base64url(b"a key that the attacker brought along, 32+ bytes");
    let mut tokens = Vec::new();
    for extra in [
        json!({"kid": "unknown"}),
        json!({"kid": "../../../../dev/null"}),
        json!({"kid": "' UNION SELECT 'x' --"}),
        json!({"kid": "http://evil.example/key"}),
        json!({"kid": ""}),
        json!({"kid": 7}),
        json!({"kid": null}),
        json!({"crit": ["exp"]}),
        json!({"crit": ["b64"], "b64": true}),
        json!({"crit": ["http://example.com/x"], "http://example.com/x": 1}),
        json!({"crit": []}),
        json!({"crit": null}),
        json!({"crit": "exp"}),
        json!({"b64": false}),
        json!({"b64": true}),
        json!({"zip": "DEF"}),
        json!({"jwk": {"kty": "oct", "k": key}}),
        json!({"jku": "http://127.0.0.1:1/jwks.json"}),
        json!({"x5u": "http://127.0.0.1:1/cert.pem"}),
        json!({"x5c": ["MIIB"]}),
        json!({"enc": "A256GCM", "alg": "dir"}),
    ] {
        let mut header = json!({"alg": "HS256", "typ": "JWT"});
        header.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        tokens.push((extra.to_string(), with_header(&header.to_string())));
    }
    let by_own_key = sign_text(
        &json!({"alg": "HS256", "jwk": {"kty": "oct", "k": key}}).to_string(),
        &claims_with("alice", &json!({})).to_string(),
        b"a key that the attacker brought along, 32+ bytes",
        hmac::HMAC_SHA256,
    );
    tokens.push(("signed with the key that it embeds".into(), by_own_key));
    refused(tokens, &["token_invalid", "token_malformed"]);
}

#[test]
fn claims_have_their_types() {
    let mut tokens = Vec::new();
    for changes in [
        json!({"exp": null}),
        json!({"exp": "9999999999"}),
        json!({"exp": true}),
        json!({"exp": [9_999_999_999_u64]}),
        json!({"exp": {}}),
        json!({"jti": null}),
        json!({"jti": 7}),
        json!({"jti": ["a"]}),
        json!({"jti": {}}),
        json!({"sub": null}),
        json!({"sub": 7}),
        json!({"sub": ["alice"]}),
        json!({"sub": {"name": "alice"}}),
        json!({"sub": "alice\r\nX-Auth-Roles: admin"}),
        json!({"sub": "alice\u{0}"}),
        json!({"sub": "alice\u{7f}"}),
        json!({"sub": "alice\u{85}"}),
        json!({"type": null}),
        json!({"type": 1}),
        json!({"type": ["access"]}),
        json!({"roles": "admin"}),
        json!({"roles": ["admin,root"]}),
        json!({"roles": ["a b"]}),
        json!({"roles": [""]}),
        json!({"roles": [1]}),
        json!({"roles": ["x".repeat(65)]}),
        json!({"roles": {"admin": true}}),
        json!({"nbf": "soon"}),
        json!({"iat": "now"}),
    ] {
        tokens.push((changes.to_string(), token_with("alice", &changes)));
    }
    let good = claims_with("alice", &json!({})).to_string();
    tokens.extend(named([
        ("exp overflows", with_claims(&good.replace(r#""exp":"#, r#""exp":1e999,"x":"#))),
        ("exp is NaN", with_claims(&good.replace(r#""exp":"#, r#""exp":NaN,"x":"#))),
        ("exp is Infinity", with_claims(&good.replace(r#""exp":"#, r#""exp":Infinity,"x":"#))),
        ("a list", with_claims(&format!("[{good}]"))),
        ("a string", with_claims("\"alice\"")),
        ("null", with_claims("null")),
        ("nothing", with_claims("")),
        ("trailing text", with_claims(&format!("{good} x"))),
        ("two objects", with_claims(&format!("{good}{good}"))),
        ("a byte order mark", with_claims(&format!("\u{feff}{good}"))),
    ]));
    refused(tokens, &["token_invalid", "token_malformed"]);
}

#[test]
fn no_name_stands_twice() {
    let good = claims_with("alice", &json!({})).to_string();
    let inside = &good[1..good.len() - 1];
    let claims = [
        ("two subs", format!(r#"{{"sub":"root",{inside}}}"#)),
        ("two subs, the other last", format!(r#"{{{inside},"sub":"root"}}"#)),
        ("two subs, one escaped", format!(r#"{{{inside},"\u0073ub":"root"}}"#)),
        ("two exps", format!(r#"{{{inside},"exp":9999999999}}"#)),
        ("two jtis", format!(r#"{{{inside},"jti":"other"}}"#)),
        ("two types", format!(r#"{{{inside},"type":"refresh"}}"#)),
        ("two roles", format!(r#"{{{inside},"roles":[],"roles":["admin"]}}"#)),
        ("two of an unknown claim", format!(r#"{{{inside},"x":1,"x":2}}"#)),
        // What `roles_claim: realm_access.roles` of a trusted issuer would read, and rules compare whole.
        ("two inside of one", format!(r#"{{{inside},"realm_access":{{"roles":[],"roles":["admin"]}}}}"#)),
        ("two deeper, one escaped", format!(r#"{{{inside},"x":[1,{{"y":{{"a":1,"\u0061":1}}}}]}}"#)),
    ];
    refused(named(claims.map(|(what, text)| (what, with_claims(&text)))), &["token_invalid"]);
    let headers = [
        ("two algs", r#"{"alg":"HS256","alg":"HS256"}"#),
        ("two typs", r#"{"alg":"HS256","typ":"JWT","typ":"JWT"}"#),
        ("two of an unknown parameter", r#"{"alg":"HS256","x":1,"x":1}"#),
        ("two inside of one", r#"{"alg":"HS256","x":{"y":1,"y":1}}"#),
    ];
    refused(named(headers.map(|(what, text)| (what, with_header(text)))), &["token_malformed"]);
}

#[test]
fn encodings_are_strict() {
    let good = jwt::access("alice");
    let [header, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };
    let last = signature.chars().last().unwrap();
    // The last character of 32 bytes carries four bits: its neighbour differs only in the two that are thrown away.
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = alphabet.find(last).unwrap();
    let neighbour = alphabet.chars().nth(place + 1).unwrap();
    let bent = format!("{}{neighbour}", &signature[..signature.len() - 1]);
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    refused(
        named([
            ("padding", format!("{header}.{claims}.{signature}=")),
            ("padding everywhere", format!("{header}==.{claims}==.{signature}=")),
            ("bits that nobody reads", format!("{header}.{claims}.{bent}")),
            ("a bit flipped", format!("{header}.{claims}.{flipped}{}", &signature[1..])),
            ("a signature cut", format!("{header}.{claims}.{}", &signature[..signature.len() - 4])),
            ("a signature lengthened", format!("{header}.{claims}.{signature}AAAA")),
            ("four parts", format!("{good}.{signature}")),
            ("five parts", format!("{header}..{claims}.{signature}.x")),
            ("a leading dot", format!(".{good}")),
            ("a trailing dot", format!("{good}.")),
            ("the order turned", format!("{claims}.{header}.{signature}")),
            ("an empty part", format!("{header}..{signature}")),
            ("percent encoded", good.replace('.', "%2E")),
            (
                "JSON serialization",
                json!({"protected": header, "payload": claims, "signature": signature}).to_string().replace(' ', ""),
            ),
            ("standard base64", good.replace(['-', '_'], "+") + "+/"),
            ("only dots", "..".to_owned()),
            ("a word", "undefined".to_owned()),
            ("null", "null".to_owned()),
        ]),
        &["token_invalid", "token_malformed"],
    );
}

#[test]
fn time_is_kept_with_the_leeway_and_no_more() {
    let origin = Origin::start();
    for (leeway, slack) in [("30s", 30), ("0s", 0), ("5m", 300)] {
        let gateway = Setup::new(origin.address).set("tokens.leeway", json!(leeway)).start();
        let cases: Vec<(Value, u16, &str)> = vec![
            (json!({"exp": now() - slack - 5}), 401, "token_expired"),
            (json!({"exp": 0}), 401, "token_expired"),
            (json!({"exp": -1}), 401, ""),
            (json!({"exp": now() - slack + 10}), 200, ""),
            (json!({"nbf": now() + slack + 10}), 401, "token_invalid"),
            (json!({"iat": now() + slack + 10}), 401, "token_invalid"),
            (json!({"nbf": now() + slack}), 200, ""),
            (json!({"nbf": null, "iat": null}), 200, ""),
            (json!({"exp": 4_102_444_800_i64}), 200, ""),
        ];
        for (changes, status, code) in cases {
            let answer = get("/secret").bearer(&token_with("alice", &changes)).send(gateway.public);
            assert_eq!(answer.status, status, "leeway {leeway}, {changes}: {answer:?}");
            // Which code tells that a token is not valid yet is not laid down.
            assert!(code != "token_expired" || answer.code() == code, "leeway {leeway}, {changes}: {answer:?}");
        }
    }
}

#[test]
fn a_token_dies_while_its_verdict_is_remembered() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).set("tokens.leeway", json!("0s")).start();
    let token = token_with("alice", &json!({"exp": now() + 2}));
    assert_eq!(gateway.try_token(&token), 200);
    crate::harness::await_that("the token expires", || gateway.try_token(&token) == 401);
    assert!(now() >= jwt::claims_of(&token)["exp"].as_i64().unwrap(), "and not earlier");
    assert_eq!(get("/secret").bearer(&token).send(gateway.public).code(), "token_expired");
}

#[test]
fn issuer_and_audience_must_fit_when_they_are_configured() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address)
        .set("tokens.issuer", json!("https://gate.example"))
        .set("tokens.audience", json!("app"))
        .start();
    let own = gateway.register("alice");
    assert_eq!(gateway.try_token(&own.access), 200);
    let claims = jwt::claims_of(&own.access);
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!("https://gate.example"), &json!("app")));
    for (changes, status) in [
        (json!({"iss": "https://gate.example", "aud": "app"}), 200),
        (json!({"iss": "https://gate.example", "aud": ["other", "app"]}), 200),
        (json!({"iss": "https://gate.example"}), 401),
        (json!({"aud": "app"}), 401),
        (json!({"iss": "https://gate.example/", "aud": "app"}), 401),
        (json!({"iss": "https://gate.example", "aud": "ap"}), 401),
        (json!({"iss": "https://gate.example", "aud": []}), 401),
        (json!({"iss": ["https://gate.example"], "aud": "app"}), 401),
        (json!({"iss": "https://gate.example", "aud": {"app": 1}}), 401),
        (json!({"iss": "https://gate.example", "aud": "APP"}), 401),
    ] {
        let answer = get("/secret").bearer(&token_with("alice", &changes)).send(gateway.public);
        assert_eq!(answer.status, status, "{changes}: {answer:?}");
        if status == 401 {
            assert_eq!(answer.code(), "token_invalid", "{changes}");
        }
    }
}

#[test]
fn a_good_token_of_another_maker_is_accepted() {
    let (_origin, gateway) = started();
    for changes in [
        json!({}),
        json!({"iss": "somebody", "aud": ["x", "y"]}),
        json!({"csrf": "c0ffee", "extra": {"deep": [1, {"a": null}]}}),
        json!({"fresh": now() + 60}),
        json!({"exp": (now() + 60) as f64 + 0.5}),
        json!({"sub": "x".repeat(120)}),
        json!({"jti": "not-a-uuid"}),
        json!({"roles": []}),
    ] {
        let answer = get("/secret").bearer(&token_with("alice", &changes)).send(gateway.public);
        assert_eq!(answer.status, 200, "{changes}: {answer:?}");
    }
    for header in [r#"{"alg":"HS256"}"#, r#"{"typ":"JWT","alg":"HS256"}"#, r#" { "alg" : "HS256" } "#] {
        assert_eq!(gateway.try_token(&with_header(header)), 200, "{header}");
    }
    assert_eq!(gateway.try_token(&sign(&claims_with("alice", &json!({"type": "refresh"})))), 401);
}

// RFC 7515, 4.1.9: a media type, of which `application/` may be left out; RFC 9068, 4: both forms of `at+jwt` are taken.
#[test]
fn the_type_in_the_header_is_a_media_type() {
    let (_origin, gateway) = started();
    let code = |typ: Value| {
        let header = json!({"alg": "HS256", "typ": typ}).to_string();
        let answer = get("/secret").bearer(&with_header(&header)).send(gateway.public);
        (answer.status, answer.code().to_owned())
    };
    for typ in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt", "application/jwt"] {
        assert_eq!(code(json!(typ)), (200, String::new()), "{typ}");
    }
    for typ in [
        json!(""),
        json!("application/"),
        json!("application/application/jwt"),
        json!("application/jwt; charset=utf-8"),
        json!("application//jwt"),
        json!(" jwt"),
        json!("jwt "),
        json!("text/jwt"),
        json!("/jwt"),
        json!("+jwt"),
        json!("JOSE"),
        json!("dpop+jwt"),
        json!("logout+jwt"),
        json!("secevent+jwt"),
        json!("application/logout+jwt"),
        json!("application\u{212a}/jwt"),
        json!(["JWT"]),
        json!(null),
        json!(7),
    ] {
        assert_eq!(code(typ.clone()), (401, "token_invalid".into()), "{typ}");
    }
}

#[test]
fn tokens_elsewhere_than_in_the_header_are_not_looked_at() {
    let (_origin, gateway) = started();
    let token = jwt::access("alice");
    for request in [
        get(&format!("/secret?access_token={token}")),
        get("/secret").header("Cookie", &format!("access_token_cookie={token}; token={token}")),
        get("/secret").header("X-Access-Token", &token),
        get("/secret").header("Proxy-Authorization", &format!("Bearer {token}")),
    ] {
        assert_eq!(request.send(gateway.public).code(), "token_missing", "{request:?}");
    }
}

#[test]
fn a_websocket_may_bring_its_token_as_a_protocol() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address)
        .and_routes(json!([
            {"path": "/live/*", "upstream": "app", "websocket_protocol_token": true},
            {"path": "/maybe/*", "upstream": "app", "auth": "optional", "websocket_protocol_token": true},
        ]))
        .start();
    let token = jwt::access("alice");
    let good = format!("chat, bearer, {token}");
    let twice = format!("bearer, {token}, bearer, {token}");
    let socket = |target: &str, protocols: &str| {
        let request = get(target).header("Upgrade", "websocket").header("Connection", "upgrade");
        let request =
            request.header("Sec-WebSocket-Version", "13").header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        request.header("Sec-WebSocket-Protocol", protocols)
    };
    for (what, request, status, code) in [
        ("good", socket("/live/a", &good), 200, ""),
        ("also where optional", socket("/maybe/a", &good), 200, ""),
        ("bad where optional", socket("/maybe/a", "bearer, x"), 401, "token_malformed"),
        ("none where optional", socket("/maybe/a", "chat"), 200, ""),
        ("none", socket("/live/a", "chat"), 401, "token_missing"),
        ("bad", socket("/live/a", "bearer, x"), 401, "token_malformed"),
        ("no token behind", socket("/live/a", "bearer"), 401, "token_malformed"),
        ("several", socket("/live/a", &twice), 400, "token_ambiguous"),
        ("beside Authorization", socket("/live/a", &good).bearer(&token), 400, "token_ambiguous"),
        ("in Authorization", socket("/live/a", "chat").bearer(&token), 200, ""),
        ("without the option", socket("/secret/a", &good), 401, "token_missing"),
        ("no WebSocket", get("/live/a").header("Sec-WebSocket-Protocol", &good), 401, "token_missing"),
    ] {
        let answer = request.send(gateway.public);
        assert_eq!((answer.status, answer.code()), (status, code), "{what}");
    }
    let subjects: Vec<_> = origin.seen().iter().map(|seen| seen.header("x-auth-subject").map(str::to_owned)).collect();
    let alice = Some("alice".to_owned());
    assert_eq!(subjects, [alice.clone(), alice.clone(), None, alice]);
    let unchanged = socket("/public/a", &good).send(gateway.public);
    assert_eq!(unchanged.status, 200);
    assert_eq!(origin.last().all("sec-websocket-protocol"), [good.as_str()], "not looked at, so passed on");
    let logged = || gateway.log().iter().filter(|line| line["message"] == "request").count();
    await_that("every request is logged", || logged() == 13);
    assert!(!gateway.output().contains(&token), "the log holds a token");
}
