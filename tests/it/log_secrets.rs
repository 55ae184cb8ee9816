//! No log holds a credential, wherever a client puts it and however it is spelled.

use serde_json::json;

use crate::harness::{PASSWORD, Setup, await_that, credentials};
use crate::jwt;
use crate::origin::Origin;
use crate::wire::{Request, get, post, request};

/// What looks like a token once it is decoded is cut out of all that is logged, wherever a client puts it.
#[test]
fn no_log_holds_a_token() {
    let origin = Origin::start();
    for format in ["json", "text"] {
        let gateway =
            Setup::new(origin.address).set("server.workers", json!(1)).set("log.format", json!(format)).start();
        let token = gateway.register("alice").access;
        let small = jwt::sign_text(r#"{"alg":"HS256"}"#, r#"{"sub":"a"}"#, b"secret", aws_lc_rs::hmac::HMAC_SHA256);
        let spelled: String = token.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let spellings = [
            token.clone(),
            token.replace('.', "%2e"),
            token.replace('.', "%2E"),
            token.replace('.', "%EF%BC%8E"),
            token.replace("ey", "%65y"),
            format!("x{token}"),
            format!("a=b.c&{token}.rest"),
            spelled,
        ];
        let encoded = token.replace('.', "%252e");
        let mut secrets = Vec::new();
        for token in [&token, &small] {
            let parts: Vec<&str> = token.split('.').collect();
            secrets.extend([parts[1], parts[2]].map(str::to_owned));
        }
        for spelling in spellings.iter().chain([&encoded]) {
            // Some are no paths: what is refused is logged too.
            let _ = get(&format!("/public/{spelling}/done")).send(gateway.public);
        }
        let agent = |asked: Request| asked.header("User-Agent", &format!("Bearer {token}"));
        let body = credentials("alice", PASSWORD);
        assert_eq!(agent(post("/login").json(&body)).send(gateway.public).status, 200);
        let opaque = "Bearer 0123456789abcdefSECRET";
        assert_eq!(post("/login").json(&body).header("User-Agent", opaque).send(gateway.public).status, 200);
        let sessions = get("/sessions").bearer(&token).send(gateway.public).text();
        let wrong = credentials(&token, "a wrong password");
        assert_eq!(post("/login").json(&wrong).send(gateway.public).status, 401);
        let id = |asked: Request| asked.header("X-Request-Id", &small);
        assert_eq!(id(post("/login").json(&body)).send(gateway.public).status, 200);
        assert_eq!(id(get("/public/id")).send(gateway.public).status, 200);
        assert_eq!(request(&small, "/public/x").send(gateway.public).status, 200);
        await_that("all is logged", || gateway.output().matches("/done").count() == spellings.len() + 1);
        await_that("the last line is written", || gateway.output().contains("/public/x"));
        let output = gateway.output();
        secrets.push("SECRET".into());
        // Nor in a spelling of its own.
        secrets.push(spellings[7][spellings[7].len() - 60..].to_owned());
        for secret in &secrets {
            let line = output.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(line, None, "{format}: it holds {secret}");
            assert!(!sessions.contains(secret.as_str()), "{sessions}");
        }
        assert!(output.matches("[token]").count() >= spellings.len() + 4, "{output}");
    }
}
