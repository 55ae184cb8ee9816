//! /openapi.json: valid by the specification's own schema, and true by what schemathesis (PyPI) finds at the gateway.

use std::process::{Command, Stdio};

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use crate::harness::{Gateway, PASSWORD, Setup, await_that, credentials, run, said};
use crate::jwt;
use crate::origin::Origin;
use crate::python;
use crate::wire::{get, post, request};

/// Cases that schemathesis makes up for each operation, beside those for each of its properties.
const EXAMPLES: &str = "15";

/// Hashes that cost nothing: each case has an account of its own.
fn cheap(setup: Setup) -> Setup {
    let off = json!({"per_account": "off", "per_address": "off"});
    setup.set("identity.password", json!({"argon2": {"memory": "8KiB", "iterations": 1}})).set("identity.attempts", off)
}

#[track_caller]
fn document(gateway: &Gateway) -> Value {
    let answer = get("/openapi.json").send(gateway.admin);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{answer:?}");
    answer.json()
}

/// Holds the document against the schema of OpenAPI 3.1.
#[track_caller]
fn validate(gateway: &Gateway) {
    let path = gateway.folder.path().join("openapi.json");
    std::fs::write(&path, document(gateway).to_string()).unwrap();
    let mut command = Command::new(python::python("openapi"));
    command.args(["-m", "openapi_spec_validator", "--schema", "3.1"]).arg(&path);
    let done = run(command, "");
    assert!(done.status.success() && said(&done).contains("OK"), "{}", said(&done));
}

/// Has schemathesis look for anything that the document does not say; gives its report.
fn explore(gateway: &Gateway, prefix: &str, style: &str) -> (bool, String) {
    gateway.add_user("root", "admin");
    let is_open = document(gateway)["paths"][format!("{prefix}/registration")]["post"]["requestBody"].is_object();
    let public = format!("http://{}", gateway.public);
    let mut command = Command::new(python::python("openapi"));
    command
        .args(["-c", "from schemathesis.cli import schemathesis; schemathesis()", "--config-file"])
        .arg(python::source("openapi", &format!("{style}.toml")))
        .args(["--no-color", "run", &format!("http://{}/openapi.json", gateway.admin), "--url", &public])
        .args(["--max-examples", EXAMPLES, "--seed", "1", "--continue-on-failure", "--warnings", "off"])
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", python::source("openapi", ""))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("ENDPOINTS", format!("{public}{prefix}"))
        .env("IS_OPEN", is_open.to_string())
        // It keeps notes where it runs.
        .current_dir(gateway.folder.path())
        .stderr(Stdio::piped());
    let done = run(command, "");
    (done.status.success(), said(&done))
}

#[track_caller]
fn check(gateway: &Gateway, prefix: &str, style: &str) {
    validate(gateway);
    let (clean, told) = explore(gateway, prefix, style);
    let operations: usize = document(gateway)["paths"]
        .as_object()
        .unwrap()
        .values()
        .map(|item| item.as_object().unwrap().keys().filter(|key| *key != "description").count())
        .sum();
    assert!(clean && told.contains("No issues found"), "{told}");
    assert!(told.contains(&format!("Tested: {operations}")), "all {operations}: {told}");
    assert!(!gateway.output().contains(r#""level":"ERROR""#), "{}", gateway.output());
}

#[test]
fn the_document_is_true() {
    let origin = Origin::start();
    check(&cheap(Setup::new(origin.address)).start(), "", "standard");
}

#[test]
fn the_document_is_true_in_the_style_of_flask() {
    let origin = Origin::start();
    let setup = cheap(Setup::flask(origin.address)).set("identity.prefix", json!("/id"));
    check(&setup.start(), "/id", "flask");
}

#[test]
fn the_document_is_true_of_closed_doors() {
    let origin = Origin::start();
    let setup = cheap(Setup::new(origin.address));
    let setup = setup.set("identity.registration", json!("closed")).set("identity.users", json!("off"));
    let gateway = setup.start();
    assert!(document(&gateway)["paths"]["/users"].is_null());
    check(&gateway, "", "standard");
}

/// A gateway that does otherwise than the document of another says.
#[test]
fn a_document_that_is_not_true_is_found_out() {
    let origin = Origin::start();
    let mut gateway = cheap(Setup::new(origin.address)).start();
    let flask = cheap(Setup::flask(origin.address)).start();
    gateway.admin = flask.admin;
    let (clean, told) = explore(&gateway, "", "standard");
    assert!(!clean && told.contains("Undocumented status code"), "{told}");
}

/// Every operation is asked with good tokens of another issuer, and its 403 stands in the document or never comes.
#[test]
fn it_tells_where_tokens_of_others_are_refused() {
    const ISSUER: &str = "another-service";
    const SECRET: &str = "another-secret-that-a-service-shares-with-us";
    let origin = Origin::start();
    let token = |kind: &str| {
        let all = jwt::claims_with("alice", &json!({"iss": ISSUER, "aud": "app", "type": kind}));
        jwt::sign_text(r#"{"alg":"HS256","typ":"JWT"}"#, &all.to_string(), SECRET.as_bytes(), hmac::HMAC_SHA256)
    };
    for (trusted, users, told) in [(true, "admin", 9), (true, "off", 6), (false, "admin", 3)] {
        let setup = Setup::new(origin.address).set("identity.users", json!(users));
        let entry = json!([{"issuer": ISSUER, "secret": SECRET, "audience": "app"}]);
        let setup = if trusted { setup.set("tokens.trusted", entry) } else { setup };
        let gateway = setup.start();
        let document = document(&gateway);
        let mut count = 0;
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let known = operation["responses"]["403"].is_object();
                if path == "/auth/verify" || method == "description" {
                    continue;
                }
                count += usize::from(known);
                let refused = ["access", "refresh"].iter().any(|kind| {
                    let target = path.replace("{id}", "7a3c");
                    let asked = request(&method.to_ascii_uppercase(), &target).bearer(&token(kind));
                    asked.send(gateway.public).code() == "forbidden"
                });
                // Where nobody else is trusted, it is the role that may be missing.
                assert_eq!(known, refused || !trusted && path == "/users", "{method} {path}, trusted {trusted}");
            }
        }
        assert_eq!(count, told, "trusted {trusted}, users {users}");
    }
}

#[test]
fn it_follows_a_reload() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    assert!(document(&gateway)["paths"]["/registration"]["post"]["responses"]["201"].is_object());
    let text = std::fs::read_to_string(&gateway.config).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["identity"] = json!({"registration": "closed"});
    std::fs::write(&gateway.config, config.to_string()).unwrap();
    await_that("the change is taken up", || {
        document(&gateway)["paths"]["/registration"]["post"]["responses"]["201"].is_null()
    });
    assert_eq!(post("/registration").json(&credentials("a", PASSWORD)).send(gateway.public).status, 403);
    assert_eq!(request("POST", "/openapi.json").send(gateway.admin).status, 405);
    assert_eq!(get("/openapi.json").send(gateway.public).code(), "no_route", "it is not public");
}
