//! Starts the built binary with a configuration of its own, in a folder of its own, on ports of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::wire::{Response, get, post};

/// The shared HS256 secret of most tests.
pub const SECRET: &str = "integration-tests-share-this-secret-of-48-bytes!";

/// A password that meets the rules.
pub const PASSWORD: &str = "correct horse battery";

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks `condition` every few milliseconds until it holds; `false` after `limit`.
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(4));
    }
    true
}

/// Waits for `condition`, and fails the test when it does not come.
#[track_caller]
pub fn await_that(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within(PATIENCE, condition), "waited {PATIENCE:?} in vain until {what}");
}

/// A port that nobody listens on. Below the range for outgoing connections, so that none of those takes it meanwhile.
pub fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| {
        let seed = std::process::id().wrapping_mul(37) % 20_000;
        AtomicU16::new(10_000 + u16::try_from(seed).unwrap())
    });
    loop {
        let port = 10_000 + next.fetch_add(1, Ordering::Relaxed) % 22_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A free address on the loopback interface.
pub fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

/// A configuration in the making, and how the program is started with it.
#[derive(Clone)]
pub struct Setup {
    config: Value,
    environment: Vec<(String, String)>,
    prelude: String,
    socket: Option<Arc<OwnedFd>>,
}

impl Setup {
    /// One upstream `app` at `origin` and a route of each kind:
    /// `/` and `/public/*` public, `/secret` and `/secret/*` required, `/optional/*`, and `/admin/*` for the role `admin`.
    pub fn new(origin: SocketAddr) -> Self {
        let config = json!({
            "server": {"workers": 2},
            "store": {"url": "sqlite:portcullis.db"},
            "tokens": {"secret": SECRET},
            "upstreams": {"app": {"servers": [format!("http://{origin}")]}},
            "routes": [
                {"path": "/", "upstream": "app", "auth": "public"},
                {"path": "/public/*", "upstream": "app", "auth": "public"},
                {"path": "/secret", "upstream": "app"},
                {"path": "/secret/*", "upstream": "app"},
                {"path": "/optional/*", "upstream": "app", "auth": "optional"},
                {"path": "/admin/*", "upstream": "app", "auth": {"roles": ["admin"]}},
            ],
        });
        Self { config, environment: Vec::new(), prelude: String::new(), socket: None }
    }

    /// In the style of the Flask tutorial.
    pub fn flask(origin: SocketAddr) -> Self {
        Self::new(origin).set("identity.responses", json!("flask"))
    }

    /// Sets the key at the dotted `path`.
    #[must_use]
    pub fn set(mut self, path: &str, value: Value) -> Self {
        let pointed = path.split('.').fold(&mut self.config, |at, key| &mut at[key]);
        *pointed = value;
        self
    }

    /// The routes so far.
    pub fn routes(&self) -> Value {
        self.config["routes"].clone()
    }

    /// Removes the key at the dotted `path`.
    #[must_use]
    pub fn unset(mut self, section: &str, key: &str) -> Self {
        self.config[section].as_object_mut().unwrap().remove(key);
        self
    }

    /// Puts routes after those that are there.
    #[must_use]
    pub fn and_routes(mut self, routes: Value) -> Self {
        let Value::Array(routes) = routes else { panic!("routes are an array") };
        self.config["routes"].as_array_mut().unwrap().extend(routes);
        self
    }

    /// A variable in the program's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Shell commands that run before the program takes the shell's place, for example `ulimit -f 100`.
    #[must_use]
    pub fn after(mut self, commands: &str) -> Self {
        self.prelude = format!("{commands}\n");
        self
    }

    /// A listening socket that is passed on as systemd does it.
    #[must_use]
    pub fn passing(mut self, socket: impl Into<OwnedFd>) -> Self {
        self.socket = Some(Arc::new(socket.into()));
        self.after("exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$")
    }

    /// Starts it in a fresh folder and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Gateway {
        let folder = tempfile::Builder::new().prefix("portcullis-").tempdir().unwrap();
        self.start_in(Arc::new(folder))
    }

    /// Starts it in `folder`, whose database it takes over, and waits until it is ready.
    #[track_caller]
    pub fn start_in(self, folder: Arc<TempDir>) -> Gateway {
        let mut gateway = self.spawn_in(folder);
        gateway.await_ready();
        gateway
    }

    /// Writes the configuration into `folder` and gives its path and the two addresses in it.
    pub fn write(mut self, folder: &Path) -> (PathBuf, SocketAddr, SocketAddr) {
        let (public, admin) = (free_address(), free_address());
        if self.config["server"]["listen"].is_null() {
            self.config["server"]["listen"] = json!([public.to_string()]);
        }
        if self.config["admin"].is_null() {
            self.config["admin"] = json!({"listen": admin.to_string()});
        }
        let path = folder.join("gateway.yaml");
        // JSON is YAML.
        std::fs::write(&path, serde_json::to_string_pretty(&self.config).unwrap()).unwrap();
        (path, public, admin)
    }

    /// Starts it without waiting.
    pub fn spawn_in(self, folder: Arc<TempDir>) -> Gateway {
        let (config, public, admin) = self.clone().write(folder.path());
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{}exec \"$0\" run --config \"$1\"", self.prelude)).arg(BINARY).arg(&config);
        command.env_remove("RUST_LOG").envs(self.environment.iter().cloned());
        let input = self.socket.as_ref().map_or_else(Stdio::null, |socket| socket.try_clone().unwrap().into());
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take().unwrap(), &output);
        collect(child.stderr.take().unwrap(), &output);
        Gateway { public, admin, config, folder, child, output, ended: None }
    }
}

/// Copies what `source` says into `output`, a line at a time so that the two streams do not mix within one.
fn collect(source: impl Read + Send + 'static, output: &Arc<Mutex<Vec<u8>>>) {
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        let mut reader = std::io::BufReader::new(source);
        let mut line = Vec::new();
        while std::io::BufRead::read_until(&mut reader, b'\n', &mut line).is_ok_and(|n| n > 0) {
            output.lock().unwrap().append(&mut line);
        }
    });
}

/// A running gateway. It is killed when this is dropped.
pub struct Gateway {
    /// Its public listener.
    pub public: SocketAddr,
    /// Its admin listener.
    pub admin: SocketAddr,
    /// Its gateway.yaml.
    pub config: PathBuf,
    /// Where that and the database lie.
    pub folder: Arc<TempDir>,
    child: Child,
    output: Arc<Mutex<Vec<u8>>>,
    ended: Option<ExitStatus>,
}

impl Gateway {
    /// Everything that it has written to stdout and stderr.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned()
    }

    /// The log so far: every line that is a JSON object.
    pub fn log(&self) -> Vec<Value> {
        self.output().lines().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect()
    }

    /// Waits until /readyz says yes; fails the test when the program ends or takes too long.
    #[track_caller]
    pub fn await_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready() {
            if let Some(status) = self.poll_end() {
                panic!("the gateway ended with {status}:\n{}", self.output());
            }
            assert!(Instant::now() < deadline, "not ready within {PATIENCE:?}:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether /readyz says yes.
    pub fn is_ready(&self) -> bool {
        get("/readyz").try_send(self.admin).is_ok_and(|answer| answer.status == 200)
    }

    /// The processor time that the program has used so far, in ticks of 10 ms.
    pub fn processor_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name, in parentheses, may hold blanks; utime and stime are the 12th and 13th behind it (proc(5)).
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, for example `TERM`.
    pub fn signal(&self, name: &str) {
        let done = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.pid())).status().unwrap();
        assert!(done.success());
    }

    /// Its exit status, if it has ended.
    pub fn poll_end(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended
    }

    /// Waits for its end.
    #[track_caller]
    pub fn await_end(&mut self) -> ExitStatus {
        let ended = holds_within(PATIENCE, || self.poll_end().is_some());
        assert!(ended, "still running after {PATIENCE:?}:\n{}", self.output());
        self.ended.unwrap()
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        if self.poll_end().is_none() {
            self.child.kill().unwrap();
            self.ended = Some(self.child.wait().unwrap());
        }
    }

    /// Runs the program beside it with the same configuration: a second process on the same store.
    pub fn cli(&self, arguments: &[&str], input: &str) -> Output {
        cli_with(&self.config, arguments, input)
    }

    /// Registers `name` and gives the tokens.
    #[track_caller]
    pub fn register(&self, name: &str) -> Tokens {
        let answer = post("/registration").json(&credentials(name, PASSWORD)).send(self.public);
        assert!(matches!(answer.status, 200 | 201), "registration: {answer:?}");
        Tokens::of(&answer)
    }

    /// Logs `name` in and gives the tokens.
    #[track_caller]
    pub fn login(&self, name: &str) -> Tokens {
        let answer = post("/login").json(&credentials(name, PASSWORD)).send(self.public);
        assert_eq!(answer.status, 200, "login: {answer:?}");
        Tokens::of(&answer)
    }

    /// Makes an account with `role` by the command line.
    #[track_caller]
    pub fn add_user(&self, name: &str, role: &str) {
        let done = self.cli(&["users", "add", name, "--role", role], &format!("{PASSWORD}\n"));
        assert!(done.status.success(), "users add: {done:?}");
    }

    /// What the access token opens: the status of GET /secret.
    #[track_caller]
    pub fn try_token(&self, token: &str) -> u16 {
        get("/secret").bearer(token).send(self.public).status
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<_> = output.lines().collect();
            eprintln!("--- the gateway's last lines\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
    }
}

/// Runs the program to its end; `input` is its stdin.
pub fn cli_with(config: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).arg("--config").arg(config);
    run(command, input)
}

/// Runs `command` to its end; `input` is its stdin.
pub fn run(mut command: Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that does not read its input closes the pipe: no failure of the test.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Both streams of a finished command.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A pair of tokens, as an endpoint gave them.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// For requests.
    pub access: String,
    /// For /token/refresh.
    pub refresh: String,
}

impl Tokens {
    #[track_caller]
    fn of(answer: &Response) -> Self {
        let body = answer.json();
        let token = |name: &str| body[name].as_str().unwrap_or_else(|| panic!("no {name}: {answer:?}")).to_owned();
        Self { access: token("access_token"), refresh: token("refresh_token") }
    }
}

/// The body of /registration and /login.
pub fn credentials(name: &str, password: &str) -> Value {
    json!({"username": name, "password": password})
}

/// Numbers that differ from run to run, for choosing moments.
pub struct Dice(u64);

impl Dice {
    /// Seeded by the clock.
    pub fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Self(u64::from(now.subsec_nanos()) << 20 | u64::from(std::process::id()) | 1)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
