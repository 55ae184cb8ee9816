//! CORS as a browser understands it: headless Chromium, on a page of another origin than the gateway's.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Gateway, Setup, holds_within};
use crate::origin::Origin;

const PAGE: &str = include_str!("../browser/page.html");

/// So that it asks nobody but the page, shows nothing, and starts anywhere.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A browser with an empty profile, killed when this is dropped.
struct Chromium {
    child: Child,
    profile: TempDir,
}

impl Chromium {
    fn open(url: &str) -> Self {
        let profile = tempfile::Builder::new().prefix("portcullis-browser-").tempdir().unwrap();
        let mut command = Command::new("chromium");
        command.args(FLAGS).arg(format!("--user-data-dir={}", profile.path().display())).arg(url);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(std::fs::File::create(profile.path().join("said")).unwrap());
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("chromium: {error}: run `tests/bootstrap test`, or set WITHOUT_BROWSER=1"));
        Self { child, profile }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.profile.path().join("said")).unwrap_or_default()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves the page, and keeps what it reports.
fn site() -> Origin {
    Origin::scripted(|exchange| match exchange.seen.target.split('?').next() {
        Some("/page") => exchange.answer("200 OK", "Content-Type: text/html; charset=utf-8\r\n", PAGE),
        _ => exchange.answer("200 OK", "", ""),
    })
}

/// Starts what the page on `site` does; the browser has to live until the report is there.
fn visit(site: SocketAddr, gateway: &Gateway) -> Chromium {
    Chromium::open(&format!("http://{site}/page?gateway=http://{}", gateway.public))
}

#[track_caller]
fn report(site: &Origin, browser: &Chromium) -> Value {
    let find = || site.seen().into_iter().find(|seen| seen.target == "/report" && seen.complete);
    let came = holds_within(std::time::Duration::from_secs(60), || find().is_some());
    assert!(came, "no report from the page; chromium said:\n{}", browser.said());
    serde_json::from_slice(&find().unwrap().body).unwrap()
}

#[test]
fn what_a_page_of_another_origin_sees() {
    if std::env::var_os("WITHOUT_BROWSER").is_some() {
        eprintln!("left out, as WITHOUT_BROWSER asks");
        return;
    }
    let (app, ours, theirs) = (Origin::start(), site(), site());
    let cors = json!({"origins": [format!("http://{}", ours.address)]});
    let gateway = Setup::new(app.address)
        .set("identity.cors", cors.clone())
        .and_routes(json!([
            {"path": "/shared/*", "upstream": "app", "cors": cors},
            {"path": "/shared/admin/*", "upstream": "app", "auth": {"roles": ["admin"]}, "cors": cors},
        ]))
        .start();
    gateway.register("alice");
    // Both at once: most of the time goes into starting.
    let (allowed, other) = (visit(ours.address, &gateway), visit(theirs.address, &gateway));

    let seen = report(&ours, &allowed);
    assert_eq!(seen["login"]["status"], 200, "{seen:#}");
    assert_eq!((&seen["good"]["status"], &seen["good"]["body"]["target"]), (&json!(200), &json!("/shared/good")));
    assert_eq!(seen["changing"]["body"]["method"], "DELETE", "{seen:#}");
    for (name, status, code) in
        [("missing", 401, "token_missing"), ("bad", 401, "token_malformed"), ("forbidden", 403, "forbidden")]
    {
        let answer = &seen[name];
        assert_eq!((&answer["status"], &answer["code"]), (&json!(status), &json!(code)), "{name}: {seen:#}");
        assert_eq!(answer["body"]["error"], code, "{name}: {seen:#}");
    }
    let hidden = json!({"failed": "TypeError"});
    for name in ["unshared", "nowhere"] {
        assert_eq!(seen[name], hidden, "no `cors`, so nothing to read: {seen:#}");
    }

    let seen = report(&theirs, &other);
    for (name, answer) in seen.as_object().unwrap() {
        assert_eq!(*answer, hidden, "{name}, from an origin that is not allowed: {seen:#}");
    }

    let reached: Vec<_> = app.seen().into_iter().map(|seen| (seen.method, seen.target)).collect();
    assert!(reached.iter().all(|(method, _)| method != "OPTIONS"), "a preflight is the gateway's: {reached:?}");
    for target in ["/shared/missing", "/shared/bad", "/shared/admin/x", "/secret/unshared"] {
        assert!(reached.iter().all(|(_, seen)| seen != target), "{reached:?}");
    }
}
