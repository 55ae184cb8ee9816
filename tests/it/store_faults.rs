//! A database that is locked, full, read-only or broken: 503 on what needs it, never a false answer, proxied traffic unharmed.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Gateway, PASSWORD, Setup, await_that, credentials, holds_within, said};
use crate::jwt;
use crate::origin::Origin;
use crate::store_file::{assert_unavailable, log_out};
use crate::wire::{get, post};

fn database(gateway: &Gateway) -> std::path::PathBuf {
    gateway.folder.path().join("portcullis.db")
}

#[test]
fn a_locked_database() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).start();
    let tokens = gateway.register("alice");
    let other = rusqlite::Connection::open(database(&gateway)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let doomed = jwt::access("alice");
    std::thread::scope(|scope| {
        let logout = scope.spawn(|| log_out(&gateway, &doomed));
        let login = scope.spawn(|| post("/login").json(&credentials("alice", PASSWORD)).send(gateway.public));
        let others = ["/logout", "/logout/all", "/token/refresh"].map(|path| {
            let token = if path == "/token/refresh" { &tokens.refresh } else { &tokens.access };
            (path, scope.spawn(|| post(path).bearer(token).send(gateway.public)))
        });
        let registration =
            scope.spawn(|| post("/registration").json(&credentials("bob", PASSWORD)).send(gateway.public));
        for _ in 0..50 {
            assert_eq!(gateway.try_token(&tokens.access), 200, "proxied traffic is unharmed");
        }
        assert_unavailable("logout", &logout.join().unwrap());
        assert_unavailable("login", &login.join().unwrap());
        assert_unavailable("registration", &registration.join().unwrap());
        for (path, asked) in others {
            assert_unavailable(path, &asked.join().unwrap());
        }
        let list = get("/sessions").bearer(&tokens.access).send(gateway.public);
        assert_eq!(list.json()["sessions"].as_array().map(Vec::len), Some(1), "reading works");
    });
    assert_eq!(gateway.try_token(&doomed), 200, "a logout that was refused did not happen");
    assert_eq!(gateway.try_token(&tokens.access), 200, "nor did that of a session");

    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(log_out(&gateway, &doomed).status, 200);
    assert_eq!(gateway.try_token(&doomed), 401);
    assert_eq!(gateway.register("bob").access.split('.').count(), 3);
}

#[test]
fn a_full_disk() {
    let origin = Origin::start();
    let setup = Setup::new(origin.address);
    // No file may grow over 256 KiB (dash counts 512 bytes, other shells 1024); the signal that would kill is ignored.
    let mut gateway = setup.clone().after("trap '' XFSZ; ulimit -f 512").start();
    let alice = gateway.register("alice");
    let mut revoked = Vec::new();
    let refused = (0..4000).find_map(|_| {
        let token = jwt::access("alice");
        let answer = log_out(&gateway, &token);
        if answer.status == 200 {
            revoked.push(token);
            return None;
        }
        Some((token, answer))
    });
    let (survivor, answer) = refused.expect("the limit is reached");
    assert_unavailable("logout", &answer);
    assert!(!revoked.is_empty());
    assert_eq!(gateway.try_token(&survivor), 200, "a logout that was refused did not happen");
    assert_eq!(gateway.try_token(&alice.access), 200, "proxied traffic is unharmed");
    assert_eq!(get("/public/a").send(gateway.public).status, 200);
    for token in &revoked {
        assert_eq!(gateway.try_token(token), 401);
    }
    let login = post("/login").json(&credentials("alice", PASSWORD)).send(gateway.public);
    assert!([200, 503].contains(&login.status), "never 401: {login:?}");
    gateway.kill();

    let again = setup.start_in(Arc::clone(&gateway.folder));
    for token in &revoked {
        assert_eq!(get("/secret").bearer(token).send(again.public).code(), "token_revoked");
    }
    assert_eq!(log_out(&again, &survivor).status, 200);
}

/// The errors in the log that name the database.
fn errors(gateway: &Gateway) -> Vec<Value> {
    let path = database(gateway).display().to_string();
    let mut log = gateway.log();
    log.retain(|line| line["level"] == "ERROR" && line.to_string().contains(&path));
    log
}

/// The gauge of the admin listener; `None` when it is missing.
fn writable(gateway: &Gateway) -> Option<String> {
    let metrics = get("/metrics").send(gateway.admin).text();
    metrics.lines().find_map(|line| line.strip_prefix("portcullis_store_writable ")).map(str::to_owned)
}

/// One line says that the store cannot be written and why, and the gauge is 0; nothing calls the database damaged.
#[track_caller]
fn assert_unwritable_is_said_once(gateway: &Gateway) {
    await_that("an error in the log names the database", || !errors(gateway).is_empty());
    let errors = errors(gateway);
    assert_eq!(errors.len(), 1, "one line, not one for each request: {errors:#?}");
    let text = errors[0].to_string().to_lowercase();
    assert!(text.contains("writ"), "it does not say that the store cannot be written: {text}");
    assert!(
        ["disk", "i/o", "read-only", "readonly", "permission"].iter().any(|cause| text.contains(cause)),
        "it does not say why: {text}"
    );
    assert_eq!(writable(gateway).as_deref(), Some("0"), "portcullis_store_writable");
    let output = gateway.output().to_lowercase();
    for wrong in ["damaged", "restore a backup"] {
        assert!(!output.contains(wrong), "a file system that takes no writes is no damage: {wrong:?} in {output}");
    }
}

#[test]
fn full_disk_is_logged_once_and_measured() {
    let origin = Origin::start();
    let gateway = Setup::new(origin.address).after("trap '' XFSZ; ulimit -f 512").start();
    gateway.register("alice");
    let before = writable(&gateway);
    let refused = (0..4000).find_map(|_| {
        let answer = log_out(&gateway, &jwt::access("alice"));
        (answer.status != 200).then_some(answer)
    });
    assert_unavailable("logout", &refused.expect("the limit is reached"));
    for _ in 0..20 {
        assert_unavailable("logout", &log_out(&gateway, &jwt::access("alice")));
    }
    assert_unwritable_is_said_once(&gateway);
    assert_eq!(before.as_deref(), Some("1"), "portcullis_store_writable before the disk was full");
}

/// Root may write anywhere: the program runs as another user then.
fn as_another_user(setup: Setup, binary: &std::path::Path) -> Setup {
    if !is_root() {
        return setup;
    }
    // The binary may lie where others cannot read it.
    std::fs::copy(crate::harness::BINARY, binary).unwrap();
    let program = binary.display();
    setup.after(&format!("exec setpriv --reuid=65534 --regid=65534 --clear-groups {program} run --config \"$1\""))
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// What of the database may only be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadOnly {
    /// The file alone: its folder takes new files.
    File,
    /// All files and their folder; the log is there, because the last gateway crashed.
    Folder,
}

impl ReadOnly {
    /// Gives it all to the user that the gateway runs as, who may write it, or not.
    fn set_writable(self, folder: &std::path::Path, writable: bool) {
        let set = |path: &std::path::Path, mode| {
            if is_root() {
                std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
            }
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        for entry in std::fs::read_dir(folder).unwrap() {
            set(&entry.unwrap().path(), if writable { 0o644 } else { 0o444 });
        }
        set(folder, if writable || self == Self::File { 0o755 } else { 0o555 });
    }

    /// Starts a gateway on such a database, and hands it over with a live token and one that was logged out. What was made
    /// for it is removed after `work`.
    fn with_gateway(self, work: impl FnOnce(&Gateway, &str, &str)) {
        let origin = Origin::start();
        if is_root() && std::process::Command::new("setpriv").arg("--version").output().is_err() {
            println!("skipped: root may write anywhere, and there is no setpriv");
            return;
        }
        let setup = Setup::new(origin.address);
        let mut gateway = setup.clone().start();
        let token = gateway.register("alice").access;
        let revoked = jwt::access("alice");
        assert_eq!(log_out(&gateway, &revoked).status, 200);
        if self == Self::Folder {
            gateway.kill();
        } else {
            gateway.signal("TERM");
            gateway.await_end();
        }
        self.set_writable(gateway.folder.path(), false);
        let binary = tempfile::Builder::new().prefix("portcullis-").tempdir().unwrap();
        std::fs::set_permissions(binary.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let setup = as_another_user(setup, &binary.path().join("portcullis"));
        let gateway = setup.start_in(Arc::clone(&gateway.folder));
        assert_eq!((gateway.try_token(&token), gateway.try_token(&revoked)), (200, 401));
        work(&gateway, &token, &revoked);
    }

    #[track_caller]
    fn heals(self) {
        self.with_gateway(|gateway, token, revoked| {
            assert_unavailable("logout", &log_out(gateway, token));
            let login = post("/login").json(&credentials("alice", PASSWORD));
            assert_unavailable("login", &login.send(gateway.public));
            assert_eq!(gateway.try_token(token), 200, "a logout that was refused did not happen");
            self.set_writable(gateway.folder.path(), true);
            let ask = || log_out(gateway, token).status == 200 && login.send(gateway.public).status == 200;
            assert!(holds_within(Duration::from_secs(10), ask), "still refused 10 s after it was made writable");
            assert_eq!((gateway.try_token(token), gateway.try_token(revoked)), (401, 401));
            await_that("the gateway is ready", || gateway.is_ready());
        });
    }
}

#[test]
fn read_only_database_file_becomes_writable() {
    ReadOnly::File.heals();
}

#[test]
fn read_only_database_folder_becomes_writable() {
    ReadOnly::Folder.heals();
}

#[test]
fn read_only_database_is_logged_once_and_measured() {
    ReadOnly::Folder.with_gateway(|gateway, token, _| {
        for _ in 0..5 {
            assert_unavailable("logout", &log_out(gateway, token));
        }
        assert_unwritable_is_said_once(gateway);
        ReadOnly::Folder.set_writable(gateway.folder.path(), true);
        await_that("the gauge says that the store is writable", || writable(gateway).as_deref() == Some("1"));
    });
}

#[test]
fn damaged_table_of_accounts_is_logged() {
    let origin = Origin::start();
    let setup = Setup::new(origin.address);
    let mut gateway = setup.clone().start();
    let token = gateway.register("alice").access;
    gateway.signal("TERM");
    gateway.await_end();
    let file = database(&gateway);
    let (root, size) = {
        let connection = rusqlite::Connection::open(&file).unwrap();
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap();
        (number("SELECT rootpage FROM sqlite_schema WHERE name = 'account'"), number("PRAGMA page_size"))
    };
    let mut bytes = std::fs::read(&file).unwrap();
    let (begin, size) = (usize::try_from((root - 1) * size).unwrap(), usize::try_from(size).unwrap());
    for byte in &mut bytes[begin..begin + size] {
        *byte = byte.wrapping_mul(31) ^ 0xa5;
    }
    std::fs::write(&file, &bytes).unwrap();

    let gateway = setup.start_in(Arc::clone(&gateway.folder));
    assert_eq!(gateway.try_token(&token), 200, "proxied traffic is unharmed");
    let login = post("/login").json(&credentials("alice", PASSWORD)).send(gateway.public);
    assert_unavailable("login", &login);
    await_that("an error in the log names the database", || !errors(&gateway).is_empty());
    let text = errors(&gateway)[0].to_string();
    assert!(text.contains("damaged"), "{text}");
    assert!(writable(&gateway).is_some(), "portcullis_store_writable is missing");
}

#[test]
fn a_database_that_is_no_database() {
    let origin = Origin::start();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    std::fs::write(
        folder.path().join("portcullis.db"),
        "this is not a database, and it is long enough to tell ".repeat(100),
    )
    .unwrap();
    let mut gateway = Setup::new(origin.address).spawn_in(Arc::clone(&folder));
    assert_eq!(gateway.await_end().code(), Some(78), "{}", gateway.output());
    await_that("it names the file", || gateway.output().contains("portcullis.db"));
    assert!(!gateway.output().contains("panicked"), "{}", gateway.output());
}

#[test]
fn a_corrupted_database() {
    let origin = Origin::start();
    let setup = Setup::new(origin.address);
    let mut gateway = setup.clone().start();
    gateway.register("alice");
    gateway.signal("TERM");
    gateway.await_end();
    // The header stays, the rest is noise.
    let file = database(&gateway);
    let mut bytes = std::fs::read(&file).unwrap();
    for byte in &mut bytes[100..] {
        *byte = byte.wrapping_mul(31) ^ 0xa5;
    }
    std::fs::write(&file, &bytes).unwrap();
    let mut gateway = setup.spawn_in(Arc::clone(&gateway.folder));
    assert_eq!(
        gateway.await_end().code(),
        Some(1),
        "revocations that cannot be read must not be taken for none:\n{}",
        gateway.output()
    );
    await_that("it names the file", || gateway.output().contains("portcullis.db"));
}

#[test]
fn a_folder_that_is_missing() {
    let origin = Origin::start();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let setup = Setup::new(origin.address).set("store.url", json!("sqlite:absent/folder/portcullis.db"));
    let mut gateway = setup.spawn_in(folder);
    assert_eq!(gateway.await_end().code(), Some(1), "{}", gateway.output());
    await_that("it names the file", || gateway.output().contains("absent/folder"));
}

#[test]
fn a_read_only_database() {
    let origin = Origin::start();
    // Root may write anywhere: the program runs as another user then.
    let is_root = is_root();
    if is_root && std::process::Command::new("setpriv").arg("--version").output().is_err() {
        println!("skipped: root may write anywhere, and there is no setpriv");
        return;
    }
    let setup = Setup::new(origin.address);
    let mut gateway = setup.clone().start();
    let token = gateway.register("alice").access;
    let revoked = gateway.login("alice").access;
    assert_eq!(log_out(&gateway, &revoked).status, 200);
    gateway.signal("TERM");
    gateway.await_end();

    let folder = Arc::clone(&gateway.folder);
    let (config, public, admin) = setup.write(folder.path());
    for (path, mode) in [(database(&gateway), 0o444), (config.clone(), 0o444), (folder.path().to_owned(), 0o555)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    // The binary may lie where others cannot read it.
    let binary = std::env::temp_dir().join(format!("portcullis-{}", std::process::id()));
    std::fs::copy(crate::harness::BINARY, &binary).unwrap();
    let mut command = std::process::Command::new(if is_root { "setpriv" } else { "env" });
    if is_root {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    command.arg(&binary).arg("run").arg("--config").arg(&config);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut ended = None;
    await_that("it is ready or has ended", || {
        ended = child.try_wait().unwrap();
        ended.is_some() || get("/readyz").try_send(admin).is_ok_and(|answer| answer.status == 200)
    });
    if ended.is_none() {
        // It serves what it can.
        let ask = |token: &str| get("/secret").bearer(token).send(public).status;
        assert_eq!((ask(&token), ask(&revoked)), (200, 401));
        assert_unavailable("logout", &post("/logout/access").bearer(&token).send(public));
        assert_eq!(ask(&token), 200);
        let login = post("/login").json(&credentials("alice", PASSWORD)).send(public);
        assert_unavailable("login", &login);
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    std::fs::remove_file(&binary).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    if ended.is_some() {
        // Or it says why it cannot.
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("portcullis.db"), "{}", said(&output));
    }
    assert!(!said(&output).contains("panicked"), "{}", said(&output));
}
