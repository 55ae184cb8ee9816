//! A wall clock that is wrong for a while: a logout that was answered 200 holds when the clock is right again.
//!
//! libfaketime moves the wall clock of the gateway alone; its monotonic clock goes on as it is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::harness::{BINARY, Gateway, Setup, Tokens, holds_within, run, said};
use crate::jwt;
use crate::origin::Origin;
use crate::wire::{Response, get, post};

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;

/// The wall clock of the processes that were started with its environment.
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// A clock that is right. `folder` holds the file that steers it.
    fn new(folder: &Path) -> Self {
        let library = std::fs::read_dir("/usr/lib")
            .unwrap()
            .map(|entry| entry.unwrap().path().join("faketime/libfaketimeMT.so.1"))
            .find(|library| library.exists())
            .expect("libfaketime is not installed; run tests/bootstrap test");
        let clock = Self { library, file: folder.join("clock") };
        clock.set(0);
        clock
    }

    /// Makes it wrong by `seconds`.
    fn set(&self, seconds: i64) {
        // In one step: the file is read at every look at the clock.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(&new, &self.file).unwrap();
    }

    fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            // The times of files stay as they are.
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
    }
}

/// A gateway with a clock of its own.
struct Scene {
    clock: Clock,
    setup: Setup,
    gateway: Gateway,
    _origin: Origin,
}

impl Scene {
    fn start() -> Self {
        let origin = Origin::start();
        let folder = Arc::new(tempfile::Builder::new().prefix("portcullis-").tempdir().unwrap());
        let clock = Clock::new(folder.path());
        let setup = Setup::new(origin.address);
        let setup = clock.environment().iter().fold(setup, |setup, (name, value)| setup.env(name, value));
        let gateway = setup.clone().start_in(folder);
        gateway.register("alice");
        Self { clock, setup, gateway, _origin: origin }
    }

    /// Moves the clock, and makes sure that the gateway sees it: a login says so by its `iat`.
    #[track_caller]
    fn set_clock(&self, seconds: i64) {
        self.clock.set(seconds);
        let moved = || {
            let shown = jwt::claims_of(&self.gateway.login("alice").access)["iat"].as_i64().unwrap();
            (shown - jwt::now() - seconds).abs() <= 10
        };
        assert!(moved(), "libfaketime does not move the gateway's clock");
    }

    /// Ends the gateway, and removes the shared memory of libfaketime, which would be in the way of a process with the same id.
    fn kill(&mut self) {
        let process = self.gateway.pid();
        self.gateway.kill();
        for name in [format!("faketime_shm_{process}"), format!("sem.faketime_sem_{process}")] {
            let _ = std::fs::remove_file(Path::new("/dev/shm").join(name));
        }
    }

    fn restart(&mut self) {
        self.kill();
        self.gateway = self.setup.clone().start_in(Arc::clone(&self.gateway.folder));
    }

    #[track_caller]
    fn log_out(&self, path: &str, token: &str) {
        let answer = post(path).bearer(token).send(self.gateway.public);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }

    /// The answer that shows whether a token lives, at the endpoint for its type.
    fn probe(&self, token: &str) -> Response {
        let is_refresh = jwt::claims_of(token)["type"] == "refresh";
        let ask = if is_refresh { post("/token/refresh") } else { get("/secret") };
        ask.bearer(token).send(self.gateway.public)
    }

    /// Those tokens that are not refused as revoked, and how they are answered.
    fn alive(&self, when: &str, tokens: &[(&'static str, String)]) -> Vec<String> {
        tokens
            .iter()
            .map(|(what, token)| (what, self.probe(token)))
            .filter(|(_, answer)| (answer.status, answer.code()) != (401, "token_revoked"))
            .map(|(what, answer)| format!("{when}, {what}: {} {}", answer.status, answer.code()))
            .collect()
    }

    /// Sets the clock right: now and after a restart every token of `dead` must be refused.
    #[track_caller]
    fn assert_revoked_when_right(mut self, dead: &[(&'static str, String)]) {
        self.set_clock(0);
        let mut alive = self.alive("when the clock is right again", dead);
        self.restart();
        alive.extend(self.alive("after a restart", dead));
        assert!(alive.is_empty(), "of {} revoked tokens are accepted: {alive:#?}", dead.len());
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A refresh token of `subject` as flask-jwt-extended makes it.
fn flask_refresh(subject: &str) -> String {
    jwt::token_with(subject, &json!({"type": "refresh", "exp": jwt::now() + 30 * DAY}))
}

/// Logs each token out at its endpoint while the clock is ahead; all that `dead` names must be refused when it is right.
#[track_caller]
fn logouts_hold(scene: Scene, ahead: i64, logouts: &[(&str, &str)], dead: &[(&'static str, String)]) {
    scene.set_clock(ahead);
    for (path, token) in logouts {
        scene.log_out(path, token);
    }
    scene.assert_revoked_when_right(dead);
}

#[test]
fn logout_of_access_tokens_while_the_clock_is_ahead() {
    let scene = Scene::start();
    let (own, flask) = (scene.gateway.login("alice").access, jwt::access("alice"));
    let logouts = [("/logout/access", own.as_str()), ("/logout/access", &flask)];
    let dead = [("a login's", own.clone()), ("one without session", flask.clone())];
    logouts_hold(scene, 20 * MINUTE, &logouts, &dead);
}

#[test]
fn logout_of_refresh_tokens_while_the_clock_is_ahead() {
    let scene = Scene::start();
    let (own, flask) = (scene.gateway.login("alice").refresh, flask_refresh("alice"));
    let logouts = [("/logout/refresh", own.as_str()), ("/logout/refresh", &flask)];
    let dead = [("a login's", own.clone()), ("one without session", flask.clone())];
    logouts_hold(scene, 31 * DAY, &logouts, &dead);
}

fn pair(tokens: &Tokens) -> [(&'static str, String); 2] {
    [("the pair's access token", tokens.access.clone()), ("the pair's refresh token", tokens.refresh.clone())]
}

#[test]
fn logout_of_a_session_while_the_clock_is_minutes_ahead() {
    let scene = Scene::start();
    let (tokens, flask) = (scene.gateway.login("alice"), jwt::access("alice"));
    let logouts = [("/logout", tokens.access.as_str()), ("/logout", &flask)];
    let mut dead = pair(&tokens).to_vec();
    dead.push(("one without session", flask.clone()));
    logouts_hold(scene, 20 * MINUTE, &logouts, &dead);
}

#[test]
fn logout_of_a_session_while_the_clock_is_a_month_ahead() {
    let scene = Scene::start();
    let (tokens, flask) = (scene.gateway.login("alice"), flask_refresh("alice"));
    let logouts = [("/logout", tokens.refresh.as_str()), ("/logout", &flask)];
    let mut dead = pair(&tokens).to_vec();
    dead.push(("one without session", flask.clone()));
    logouts_hold(scene, 31 * DAY, &logouts, &dead);
}

#[test]
fn purge_while_the_clock_is_ahead_forgets_no_logout() {
    /// A little more than the time between two purges.
    const PURGED: Duration = Duration::from_secs(75);
    let scene = Scene::start();
    let mut revoked = Vec::new();
    for _ in 0..7 {
        let tokens = scene.gateway.login("alice");
        scene.log_out("/logout/access", &tokens.access);
        revoked.push(("/logout/access of a login's, before", tokens.access));
        let flask = jwt::access("alice");
        scene.log_out("/logout/access", &flask);
        revoked.push(("/logout/access of one without session, before", flask));
        let tokens = scene.gateway.login("alice");
        scene.log_out("/logout", &tokens.access);
        revoked.extend(pair(&tokens).map(|(_, token)| ("/logout of a login's, before", token)));
    }
    let during: Vec<Tokens> = (0..4).map(|_| scene.gateway.login("alice")).collect();
    let flask: Vec<String> = (0..4).map(|_| jwt::access("alice")).collect();
    assert!(scene.alive("before the clock goes wrong", &revoked).is_empty());

    scene.set_clock(DAY);
    for tokens in &during[..2] {
        scene.log_out("/logout/access", &tokens.access);
    }
    flask[..2].iter().for_each(|token| scene.log_out("/logout/access", token));
    // A row that is long over, so that its end shows that there was a purge; a gateway that distrusts the clock keeps it.
    let database = rusqlite::Connection::open(scene.gateway.folder.path().join("portcullis.db")).unwrap();
    database.busy_timeout(Duration::from_secs(5)).unwrap();
    let row = "INSERT INTO revocation (key, kind, generation, at, keep_until) VALUES (zeroblob(16), 1, 0, 0, 1000)";
    database.execute(row, []).unwrap();
    let is_there = || {
        let sql = "SELECT count(*) FROM revocation WHERE key = zeroblob(16)";
        database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() > 0
    };
    let purged = holds_within(PURGED, || {
        std::thread::sleep(Duration::from_millis(100));
        !is_there()
    });
    println!("the row that is long over was {}", if purged { "purged" } else { "kept" });
    for tokens in &during[2..] {
        scene.log_out("/logout/access", &tokens.access);
    }
    flask[2..].iter().for_each(|token| scene.log_out("/logout/access", token));
    revoked.extend(during.into_iter().map(|tokens| ("/logout/access of a login's, during", tokens.access)));
    revoked.extend(flask.into_iter().map(|token| ("/logout/access of one without session, during", token)));

    scene.assert_revoked_when_right(&revoked);
}

#[test]
fn tokens_revoke_while_the_clock_of_the_command_is_ahead() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let own = gateway.register("alice").access;
    let clock = Clock::new(gateway.folder.path());
    clock.set(20 * MINUTE);
    for token in [own, jwt::access("alice")] {
        assert_eq!(gateway.try_token(&token), 200);
        let mut command = Command::new(BINARY);
        command.args(["tokens", "revoke", "-", "--config"]).arg(&gateway.config).envs(clock.environment());
        let done = run(command, &token);
        assert!(done.status.success(), "{}", said(&done));
        let heard = holds_within(Duration::from_secs(1), || gateway.try_token(&token) == 401);
        assert!(heard, "the command revoked nothing: {}", said(&done));
        assert_eq!(get("/secret").bearer(&token).send(gateway.public).code(), "token_revoked");
    }
}
