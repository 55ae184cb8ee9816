//! The program on the command line: exit codes and what it says.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{BINARY, PASSWORD, SECRET, Setup, cli_with, run, said};
use crate::jwt;
use crate::origin::Origin;
use crate::wire::get;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = folder();
    let path = folder.path().join("gateway.yaml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

const GOOD: &str =
    "upstreams: {app: {servers: [http://127.0.0.1:5000]}}\nroutes:\n  - {path: /, upstream: app, auth: public}\n";

#[track_caller]
fn check(text: &str, code: i32, says: &[&str]) {
    let (_folder, path) = written(text);
    let done = cli_with(&path, &["check"], "");
    assert_eq!(done.status.code(), Some(code), "{text}\n{}", said(&done));
    for word in says {
        assert!(said(&done).contains(word), "expected {word:?} for\n{text}\nin\n{}", said(&done));
    }
}

#[test]
fn the_examples_are_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("gateway.yaml")];
    for entry in std::fs::read_dir(root.join("examples")).unwrap() {
        let path = entry.unwrap().path();
        // compose.yaml is Docker's.
        if path.extension().is_some_and(|kind| kind == "yaml") && !path.ends_with("compose.yaml") {
            files.push(path);
        }
    }
    assert!(files.len() >= 2, "{files:?}");
    // Another proxy's own.
    files.retain(|file| !file.ends_with("traefik.yaml") && !file.ends_with("envoy.yaml"));
    let folder = folder();
    for file in files {
        // The folder of the container's database is not on this machine.
        let text = std::fs::read_to_string(&file).unwrap();
        let mounted = folder.path().join("gateway.yaml");
        std::fs::write(&mounted, text.replace("sqlite:/data/", "sqlite:")).unwrap();
        let checked = if text.contains("sqlite:/data/") { &mounted } else { &file };
        let mut command = Command::new(BINARY);
        command.args(["check", "--config"]).arg(checked).env("JWT_SECRET_KEY", SECRET);
        let done = run(command, "");
        assert_eq!(done.status.code(), Some(0), "{}: {}", file.display(), said(&done));
    }
}

#[test]
fn check_tells_all_that_is_wrong() {
    check(GOOD, 0, &["/"]);
    let rest = "upstreams: {app: {servers: [http://127.0.0.1:5000]}}\n";
    // Errors of form: line and column.
    check("server: [\n", 78, &["gateway.yaml:"]);
    check(&format!("servers: {{}}\n{GOOD}"), 78, &["servers", "gateway.yaml:1"]);
    check(&format!("server: {{limits: {{bodies: 1}}}}\n{GOOD}"), 78, &["bodies"]);
    // Errors of meaning: all at once, with key and remedy.
    let many = "server: {listen: [nonsense], timeouts: {idle: 5 parsecs}}\ntokens: {leeway: 6m}\n\
                upstreams: {app: {servers: []}}\nroutes:\n  - {path: secret, upstream: app}\n  - {path: /x, upstream: nowhere}\n";
    let keys = ["server.listen", "server.timeouts.idle", "tokens.leeway", "upstreams.app", "routes[0]", "routes[1]"];
    check(many, 78, &keys);
    for (routes, says) in [
        ("  - {path: /a, upstream: app}\n  - {path: /a, upstream: app}\n", "/a"),
        ("  - {path: /a, upstream: app}\n  - {path: /a/, upstream: app}\n", "/a"),
        ("  - {path: '/{x}', upstream: app}\n  - {path: '/{y}', upstream: app}\n", "routes[1]"),
        ("  - {path: /a, upstream: app, methods: [GET]}\n  - {path: /a, upstream: app, methods: [GET, POST]}\n", "/a"),
        ("  - {path: /a, upstream: app, auth: everyone}\n", "auth"),
        ("  - {path: /a, upstream: app, strip_prefix: /b}\n", "strip_prefix"),
        ("  - {path: /a, upstream: app, auth: {roles: ['a,b']}}\n", "roles"),
    ] {
        check(&format!("{rest}routes:\n{routes}"), 78, &[says]);
    }
    for (section, says) in [
        ("tokens: {secret: too-short}\n", "32"),
        ("tokens: {secret: '${PORTCULLIS_TEST_NOT_SET}'}\n", "PORTCULLIS_TEST_NOT_SET"),
        ("store: {url: 'mysql://x'}\n", "store.url"),
        ("identity: {users: anyone}\n", "identity.users"),
        ("identity_headers: {tenant: 'Not A Name'}\n", "identity_headers"),
        ("server: {trusted_proxies: [10.0.0.0/33]}\n", "trusted_proxies"),
        ("tokens: {secret_file: jwt.key}\n", "starts from the folder of the configuration file: /"),
        ("log:\n  audit: /nonexistent/audit.log\n", "gateway.yaml:2: log.audit: /nonexistent/audit.log: No such"),
        ("upstreams: {app: {servers: [{url: 'http://127.0.0.1:1', weight: 0}]}}\n", "weight"),
    ] {
        let text = if section.starts_with("upstreams") {
            format!("{section}routes: [{{path: /, upstream: app}}]\n")
        } else {
            format!("{section}{GOOD}")
        };
        check(&text, 78, &[says]);
    }
    let (_folder, path) = written("tokens: {secret: too-short-and-secret}\n");
    assert!(!said(&cli_with(&path, &["check"], "")).contains("too-short-and-secret"), "a secret is not repeated");
}

#[test]
fn check_lists_the_routes_public_ones_first() {
    let origin = Origin::start();
    let folder = folder();
    let setup = Setup::new(origin.address).and_routes(json!([
        {"path": "/logout/*", "upstream": "app"},
        {"path": "/sessions/{id}/notes", "upstream": "app"},
        {"path": "/{area}/{page}", "upstream": "app"},
    ]));
    let (path, _, _) = setup.write(folder.path());
    let done = cli_with(&path, &["check"], "");
    let text = said(&done);
    assert_eq!(done.status.code(), Some(0), "{text}");
    let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what} in {text}"));
    assert!(place("/public/*") < place("/secret/*"), "{text}");
    assert!(place("/optional/*") > 0 && place("admin") > 0, "{text}");
    let logouts = "/logout/access, /logout/refresh, /logout, /logout/all";
    assert!(text.contains(&format!("/logout/*: the gateway itself answers {logouts}\n")), "{text}");
    let two = "/token/refresh, /logout/access, /logout/refresh, /logout/all, /sessions/{id}, \
               /.well-known/jwks.json, /auth/verify";
    assert!(text.contains(&format!("/{{area}}/{{page}}: the gateway itself answers {two}\n")), "{text}");
    assert!(!text.contains("notes: the gateway"), "{text}");
    assert!(!text.contains(SECRET), "{text}");
}

#[test]
fn check_refuses_a_route_that_an_endpoint_hides_and_run_only_warns() {
    let origin = Origin::start();
    let folder = folder();
    let setup = Setup::new(origin.address).and_routes(json!([{"path": "/login", "upstream": "app"}]));
    let (path, _, _) = setup.clone().write(folder.path());
    let done = cli_with(&path, &["check"], "");
    assert_eq!(done.status.code(), Some(78), "{}", said(&done));
    let text = std::fs::read_to_string(&path).unwrap();
    // The route begins with the brace before its path.
    let line = text.lines().take_while(|line| !line.contains("/login")).count();
    let told = format!("gateway.yaml:{line}: routes[6]: /login: hidden by the endpoint /login");
    assert!(said(&done).contains(&told), "{told}\n{}", said(&done));
    for path in ["/sessions/{of}", "/sessions/mine", "/password"] {
        let setup = Setup::new(origin.address).and_routes(json!([{"path": path, "upstream": "app"}]));
        let (file, _, _) = setup.write(folder.path());
        let done = cli_with(&file, &["check"], "");
        assert!(!done.status.success() && said(&done).contains(&format!("{path}: hidden by")), "{}", said(&done));
    }
    let gateway = setup.start();
    assert!(gateway.output().contains("/login: hidden by the endpoint /login"), "{}", gateway.output());
}

#[test]
fn values_come_from_the_environment_and_from_files() {
    let folder = folder();
    std::fs::write(folder.path().join("secret"), format!("{SECRET}\n")).unwrap();
    let origin = Origin::start();
    let setup = Setup::new(origin.address);
    for setup in [
        setup.clone().set("tokens.secret", json!("${PORTCULLIS_TEST_SECRET}")).env("PORTCULLIS_TEST_SECRET", SECRET),
        setup.clone().set("tokens.secret", json!(format!("${{PORTCULLIS_TEST_UNSET:-{SECRET}}}"))),
        setup
            .unset("tokens", "secret")
            .set("tokens.secret_file", json!(folder.path().join("secret").to_str().unwrap())),
    ] {
        let gateway = setup.start();
        assert_eq!(gateway.try_token(&jwt::access("alice")), 200);
    }
}

#[test]
fn exit_codes() {
    let (folder, good) = written(GOOD);
    for (arguments, code) in [
        (&["check"][..], 0),
        (&["schema"], 0),
        (&["--help"], 0),
        (&["--version"], 0),
        (&["nonsense"], 2),
        (&["check", "--nonsense"], 2),
        (&["users", "nonsense"], 2),
        (&["explain"], 2),
    ] {
        let mut command = Command::new(BINARY);
        command.args(arguments).current_dir(folder.path());
        let done = run(command, "");
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {}", said(&done));
    }
    let absent = good.with_file_name("absent.yaml");
    for command in ["check", "run"] {
        let done = cli_with(&absent, &[command], "");
        assert_eq!(done.status.code(), Some(78), "{}", said(&done));
        assert!(said(&done).contains("absent.yaml"), "{}", said(&done));
    }
    let (_bad_folder, bad) = written("nonsense: 1\n");
    assert_eq!(cli_with(&bad, &["run"], "").status.code(), Some(78));
}

#[test]
fn schema_prints_a_json_schema() {
    let done = run(
        {
            let mut command = Command::new(BINARY);
            command.arg("schema");
            command
        },
        "",
    );
    let schema: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&done)));
    assert!(schema["$schema"].is_string(), "{schema}");
    for key in ["server", "admin", "log", "store", "tokens", "identity", "identity_headers", "upstreams", "routes"] {
        assert!(schema["properties"].get(key).is_some(), "{key} is missing");
    }
}

#[test]
fn explain_tells_route_rule_and_verdict() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let token = jwt::access("alice");
    for (arguments, says) in [
        (vec!["explain", "GET", "/secret"], "/secret"),
        (vec!["explain", "GET", "/public/b/../a%2e"], "/public/a."),
        (vec!["explain", "GET", "/secret/x", "--token", &token], "alice"),
        (vec!["explain", "GET", "/admin/x", "--token", &token], "admin"),
        (vec!["explain", "DELETE", "/sessions/1/"], "endpoint: /sessions/{id}, answered by the gateway"),
        (vec!["explain", "POST", "/logout"], "endpoint: /logout, answered by the gateway"),
        (vec!["explain", "GET", "/nowhere"], "no_route"),
        (vec!["explain", "GET", "/public/%00"], "bad_path"),
    ] {
        let done = gateway.cli(&arguments, "");
        assert!(matches!(done.status.code(), Some(0 | 1)), "{arguments:?}: {}", said(&done));
        assert!(said(&done).contains(says), "{arguments:?}, expected {says:?}: {}", said(&done));
        assert!(!said(&done).contains(&token));
    }
    assert_eq!(origin.count(), 0, "nothing was sent");
}

#[test]
fn users_from_the_command_line() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    gateway.add_user("root", "admin");
    let claims = jwt::claims_of(&gateway.login("root").access);
    assert_eq!(claims["roles"], json!(["admin"]));
    let list = gateway.cli(&["users", "list"], "");
    assert!(list.status.success() && said(&list).contains("root") && said(&list).contains("admin"), "{}", said(&list));
    assert!(!said(&list).contains("argon2"), "never a hash");
    let again = gateway.cli(&["users", "add", "root"], &format!("{PASSWORD}\n"));
    assert_eq!(again.status.code(), Some(1), "taken: {}", said(&again));
    assert_eq!(gateway.cli(&["users", "add", "bob"], "short\n").status.code(), Some(1), "a weak password");
    assert_eq!(gateway.cli(&["users", "add", " bob"], &format!("{PASSWORD}\n")).status.code(), Some(1), "no name");
    assert!(!gateway.cli(&["users", "add", "bob", "--role", "a,b"], &format!("{PASSWORD}\n")).status.success());
    assert!(!said(&gateway.cli(&["users", "list"], "")).contains("bob"));

    let tokens = gateway.register("carol");
    assert_eq!(gateway.try_token(&tokens.access), 200);
    let done = gateway.cli(&["users", "delete", "carol"], "");
    assert!(done.status.success(), "{}", said(&done));
    crate::harness::await_that("her tokens are dead", || gateway.try_token(&tokens.access) == 401);
    assert_eq!(gateway.cli(&["users", "delete", "carol"], "").status.code(), Some(1), "there is none any more");
}

#[test]
fn tokens_from_the_command_line() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let token = gateway.register("alice").access;
    let inspected = gateway.cli(&["tokens", "inspect", &token], "");
    assert!(inspected.status.success(), "{}", said(&inspected));
    let id = jwt::claims_of(&token)["jti"].as_str().unwrap().to_owned();
    assert!(said(&inspected).contains("alice") && said(&inspected).contains(&id), "{}", said(&inspected));
    assert_eq!(gateway.cli(&["tokens", "inspect", "nonsense"], "").status.code(), Some(1));
    for copied in [format!("Bearer {token}"), format!("\"{token}\"\n"), format!("bearer  {token}")] {
        assert!(gateway.cli(&["tokens", "inspect", "-"], &copied).status.success(), "{copied}");
    }
    for nothing in ["", "\"\"", " \n"] {
        let told = gateway.cli(&["tokens", "inspect", "-"], nothing);
        assert!(!told.status.success() && said(&told).contains("there is no token"), "{}", said(&told));
    }
    assert_eq!(gateway.cli(&["tokens", "revoke", "nonsense"], "").status.code(), Some(1));
    assert_eq!(gateway.try_token(&token), 200);
}

#[test]
fn health_is_for_containers() {
    let origin = Origin::start();
    let mut gateway = Setup::new(origin.address).start();
    let done = gateway.cli(&["health"], "");
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert_eq!(get("/readyz").send(gateway.admin).status, 200);
    gateway.kill();
    assert_eq!(gateway.cli(&["health"], "").status.code(), Some(1));
}
