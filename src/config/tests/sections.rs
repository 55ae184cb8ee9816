//! Errors of meaning outside the routes: all at once.

use insta::assert_snapshot;

use super::{errors, load, warnings};
use crate::config::AuditTarget;

#[test]
fn all_errors_of_meaning_come_at_once() {
    assert_snapshot!(errors("server:
  listen: nowhere
  timeouts:
    header: 0s
store:
  url: redis://x
tokens:
  leeway: 1h
identity_headers:
  email: Host
upstreams:
  app:
    servers: []
routes:
  - path: nowhere
    upstream: ap
  - path: /x
    upstream: apps"), @r"
    gateway.yaml:2: server.listen: `nowhere` is not an address with a port
        Write an address and port, such as 127.0.0.1:8080
    gateway.yaml:4: server.timeouts.header: must be at least 1ms
    gateway.yaml:6: store.url: is not the URL of a store
        Write sqlite:PATH, such as sqlite:portcullis.db or sqlite:/var/lib/portcullis/portcullis.db
    gateway.yaml:8: tokens.leeway: must be at most 5m
        It forgives clocks that differ; it is not a lifetime
    gateway.yaml:10: identity_headers.email: `Host` has a meaning of its own
        Choose another, such as X-Auth-Email
    gateway.yaml:13: upstreams.app.servers: is an empty list
        Give one server at least, such as http://127.0.0.1:5000
    gateway.yaml:15: routes[0].path: `nowhere` does not begin with `/`
        Write /nowhere
    gateway.yaml:16: routes[0].upstream: there is no upstream `ap`
        Did you mean `app`? There are: app
    gateway.yaml:18: routes[1].upstream: there is no upstream `apps`
        Did you mean `app`? There are: app
    ");
}

#[test]
fn addresses() {
    assert_snapshot!(errors("server: {listen: 8080x}"), @r"
    gateway.yaml:1: server.listen: `8080x` is not an address with a port
        Write an address and port, such as 127.0.0.1:8080
    ");
    assert_snapshot!(errors(r#"server: {listen: "8080"}"#), @r"
    gateway.yaml:1: server.listen: `8080` is not an address with a port
        Write 0.0.0.0:8080 for all addresses, or 127.0.0.1:8080
    ");
    assert_snapshot!(errors(r#"server: {listen: ":8080"}"#), @r"
    gateway.yaml:1: server.listen: `:8080` is not an address with a port
        Write 0.0.0.0:8080 for all addresses, or 127.0.0.1:8080
    ");
    assert_snapshot!(errors(r#"server: {listen: "localhost:8080"}"#), @r"
    gateway.yaml:1: server.listen: `localhost:8080` is not an address with a port
        Write 127.0.0.1:8080
    ");
    assert_snapshot!(errors("server: {listen: 127.0.0.1}"), @r"
    gateway.yaml:1: server.listen: `127.0.0.1` is not an address with a port
        The port is missing, as in 127.0.0.1:8080 or [::1]:8080
    ");
    assert_snapshot!(errors(r#"server: {listen: "127.0.0.1:99999"}"#), @r"
    gateway.yaml:1: server.listen: `127.0.0.1:99999` is not an address with a port
        Write an address and port, such as 127.0.0.1:8080
    ");
    assert_snapshot!(errors("server: {listen: []}"), @r"
    gateway.yaml:1: server.listen: is an empty list
        Give one address at least, such as 127.0.0.1:8080
    ");
    assert_snapshot!(errors("server:
  listen:
    - 127.0.0.1:80
    - 127.0.0.1:80"), @r"
    gateway.yaml:4: server.listen[1]: 127.0.0.1:80 stands twice
        Keep one of the two
    ");
    assert_snapshot!(errors(r#"server: {listen: ["0.0.0.0:80", "127.0.0.1:80"]}"#), @r"
    gateway.yaml:1: server.listen[1]: 127.0.0.1:80 is within 0.0.0.0:80
        Keep one of the two
    ");
    assert_snapshot!(errors("admin: {listen: 127.0.0.1:8080}"), @r"
    gateway.yaml:1: admin.listen: 127.0.0.1:8080 is taken by server.listen
        Give it a port of its own, or `listen: null` for none
    ");
    assert_snapshot!(errors(r#"server: {listen: "0.0.0.0:9180"}"#), @r"
    gateway.yaml: admin.listen: 127.0.0.1:9180 is taken by server.listen
        Give it a port of its own, or `listen: null` for none
    ");
    assert_snapshot!(errors("admin: {listen: nowhere}"), @r"
    gateway.yaml:1: admin.listen: `nowhere` is not an address with a port
        Write an address and port, such as 127.0.0.1:8080
    ");
}

#[test]
fn trusted_proxies() {
    assert_snapshot!(errors("server: {trusted_proxies: [10.0.0.0/33]}"), @r"
    gateway.yaml:1: server.trusted_proxies[0]: `10.0.0.0/33` is not an address or range
        Write such as 10.0.0.0/8, fd00::/8 or 192.0.2.7
    ");
    assert_snapshot!(errors("server: {trusted_proxies: [proxy.example]}"), @r"
    gateway.yaml:1: server.trusted_proxies[0]: `proxy.example` is not an address or range
        Write such as 10.0.0.0/8, fd00::/8 or 192.0.2.7
    ");
    assert_snapshot!(errors("server: {trusted_proxies: [10.0.0.0/+8]}"), @r"
    gateway.yaml:1: server.trusted_proxies[0]: `10.0.0.0/+8` is not an address or range
        Write such as 10.0.0.0/8, fd00::/8 or 192.0.2.7
    ");
}

#[test]
fn numbers_durations_and_sizes() {
    assert_snapshot!(errors("server: {workers: 5000}"), @"gateway.yaml:1: server.workers: must be from 0 to 1024");
    assert_snapshot!(errors(r#"server: {timeouts: {idle: "10"}}"#), @r"
    gateway.yaml:1: server.timeouts.idle: `10` is not a duration
        Write such as 500ms, 10s, 15m, 1h30m or 30d
    ");
    assert_snapshot!(errors("server: {timeouts: {idle: 1.5s}}"), @r"
    gateway.yaml:1: server.timeouts.idle: `1.5s` is not a duration
        Write such as 500ms, 10s, 15m, 1h30m or 30d
    ");
    assert_snapshot!(errors("server: {timeouts: {idle: 0s}}"), @"gateway.yaml:1: server.timeouts.idle: must be at least 1ms");
    assert_snapshot!(errors("server: {timeouts: {idle: 11000d}}"), @"gateway.yaml:1: server.timeouts.idle: must be at most ten years (3650d)");
    assert_snapshot!(errors("server: {timeouts: {idle: 5m1h}}"), @r"
    gateway.yaml:1: server.timeouts.idle: `5m1h` is not a duration
        Write such as 500ms, 10s, 15m, 1h30m or 30d
    ");
    assert_snapshot!(errors("server: {limits: {header_bytes: 4KiB}}"), @"gateway.yaml:1: server.limits.header_bytes: must be from 8KiB to 1MiB");
    assert_snapshot!(errors("server: {limits: {header_bytes: 2MiB}}"), @"gateway.yaml:1: server.limits.header_bytes: must be from 8KiB to 1MiB");
    assert_snapshot!(errors("server: {limits: {body: 64MB}}"), @r"
    gateway.yaml:1: server.limits.body: `64MB` is not a size
        Write such as 512B, 64KiB, 1MiB or 2GiB
    ");
    assert_snapshot!(errors("server: {limits: {body: 0}}"), @"gateway.yaml:1: server.limits.body: must be from 1B to 1TiB");
    assert_snapshot!(errors("server: {limits: {body: 99999999999GiB}}"), @r"
    gateway.yaml:1: server.limits.body: `99999999999GiB` is not a size
        Write such as 512B, 64KiB, 1MiB or 2GiB
    ");
    assert_snapshot!(errors("store: {max_stale: 10ms}"), @"gateway.yaml:1: store.max_stale: must be at least 1s");
    assert_snapshot!(errors("identity: {refresh_rotation: {grace: 301s}}"), @r"
    gateway.yaml:1: identity.refresh_rotation.grace: must be at most 5m
        It is for requests that race; a stolen token is good for as long
    ");
    assert_snapshot!(errors("identity: {password: {min_length: 0}}"), @"gateway.yaml:1: identity.password.min_length: must be from 1 to 1024");
    assert_snapshot!(errors("identity: {password: {min_length: 2000}}"), @"gateway.yaml:1: identity.password.min_length: must be from 1 to 1024");
    assert_snapshot!(errors("identity: {password: {argon2: {memory: 1KiB}}}"), @"gateway.yaml:1: identity.password.argon2.memory: must be from 8KiB to 4GiB");
    assert_snapshot!(errors("identity: {password: {argon2: {memory: 16KiB, parallelism: 4}}}"), @r"
    gateway.yaml:1: identity.password.argon2.memory: 16KiB is too little for 4 lanes
        Give 8KiB a lane at least: 32KiB
    ");
    assert_snapshot!(errors("identity: {password: {argon2: {iterations: 0}}}"), @"gateway.yaml:1: identity.password.argon2.iterations: must be from 1 to 1000");
    assert_snapshot!(errors("identity: {password: {argon2: {parallelism: 0}}}"), @"gateway.yaml:1: identity.password.argon2.parallelism: must be from 1 to 64");
    assert_snapshot!(errors("identity: {sessions_per_account: 0}"), @"gateway.yaml:1: identity.sessions_per_account: must be from 1 to 10000");
    assert_snapshot!(errors("identity: {sessions_per_account: 10001}"), @"gateway.yaml:1: identity.sessions_per_account: must be from 1 to 10000");
}

#[test]
fn stores() {
    assert_snapshot!(errors(r#"store: {url: "postgres://user:hunter2@h/db"}"#), @r"
    gateway.yaml:1: store.url: PostgreSQL is not supported by this version, which has SQLite only
        Write sqlite:PATH, such as sqlite:portcullis.db or sqlite:/var/lib/portcullis/portcullis.db
    ");
    assert_snapshot!(errors(r#"store: {url: "redis://user:hunter2@h"}"#), @r"
    gateway.yaml:1: store.url: is not the URL of a store
        Write sqlite:PATH, such as sqlite:portcullis.db or sqlite:/var/lib/portcullis/portcullis.db
    ");
    assert_snapshot!(errors("store: {url: portcullis.db}"), @r"
    gateway.yaml:1: store.url: does not begin with `sqlite:`
        Write sqlite:PATH, such as sqlite:portcullis.db or sqlite:/var/lib/portcullis/portcullis.db
    ");
    assert_snapshot!(errors(r#"store: {url: "sqlite::memory:"}"#), @r"
    gateway.yaml:1: store.url: a store in memory would forget every logout at a restart
        Write sqlite:PATH, such as sqlite:portcullis.db or sqlite:/var/lib/portcullis/portcullis.db
    ");
    assert_snapshot!(errors(r#"store: {url: "sqlite:"}"#), @r"
    gateway.yaml:1: store.url: does not name a file
        Write sqlite:PATH, such as sqlite:portcullis.db or sqlite:/var/lib/portcullis/portcullis.db
    ");
    assert_snapshot!(errors(r#"store: {url: "sqlite://x.db"}"#), @r"
    gateway.yaml:1: store.url: `sqlite://` can be read in two ways
        Write sqlite:PATH, such as sqlite:portcullis.db or sqlite:/var/lib/portcullis/portcullis.db
    ");
    assert_snapshot!(errors(r#"store: {url: "sqlite:x.db?mode=ro"}"#), @r"
    gateway.yaml:1: store.url: options for SQLite are not possible here
        Write sqlite:PATH, such as sqlite:portcullis.db or sqlite:/var/lib/portcullis/portcullis.db
    ");
    assert_snapshot!(errors(r#"store: {url: "sqlite:data/"}"#), @r"
    gateway.yaml:1: store.url: does not name a file
        Write sqlite:PATH, such as sqlite:portcullis.db or sqlite:/var/lib/portcullis/portcullis.db
    ");
}

#[test]
fn identities() {
    assert_snapshot!(errors("identity: {users: anyone}"), @r"
    gateway.yaml:1: identity.users: `anyone` is for flask mode only
        Write admin or off, or set identity.responses to flask
    ");
    assert_snapshot!(errors("identity: {prefix: auth}"), @r"
    gateway.yaml:1: identity.prefix: `auth` does not begin with `/`
        Write such as /auth
    ");
    assert_snapshot!(errors("identity: {prefix: /}"), @r"
    gateway.yaml:1: identity.prefix: is just `/`
        Leave it empty
    ");
    assert_snapshot!(errors("identity: {prefix: /auth/}"), @r"
    gateway.yaml:1: identity.prefix: `/auth/` ends with `/`
        Write `/auth`
    ");
    assert_snapshot!(errors("identity: {prefix: /a//b}"), @r"
    gateway.yaml:1: identity.prefix: `/a//b` is not a plain path
        Its segments have the characters A-Z a-z 0-9 - . _ ~ only, and are not `.` or `..`
    ");
    assert_snapshot!(errors("identity: {prefix: /a/../b}"), @r"
    gateway.yaml:1: identity.prefix: `/a/../b` is not a plain path
        Its segments have the characters A-Z a-z 0-9 - . _ ~ only, and are not `.` or `..`
    ");
    assert_snapshot!(errors(r#"identity: {prefix: "/a b"}"#), @r"
    gateway.yaml:1: identity.prefix: `/a b` is not a plain path
        Its segments have the characters A-Z a-z 0-9 - . _ ~ only, and are not `.` or `..`
    ");
}

#[test]
fn headers() {
    assert_snapshot!(errors(r#"identity_headers: {email: "X Email"}"#), @r"
    gateway.yaml:1: identity_headers.email: `X Email` is not the name of a header
        Write such as X-Auth-Email: letters, digits and -
    ");
    assert_snapshot!(errors(r#"identity_headers: {email: ""}"#), @r"
    gateway.yaml:1: identity_headers.email: an empty text is not the name of a header
        Write such as X-Auth-Email: letters, digits and -
    ");
    assert_snapshot!(errors("identity_headers: {email: Authorization}"), @r"
    gateway.yaml:1: identity_headers.email: `Authorization` has a meaning of its own
        Choose another, such as X-Auth-Email
    ");
    assert_snapshot!(errors("identity_headers: {email: Proxy_User}"), @r"
    gateway.yaml:1: identity_headers.email: `Proxy_User` has a meaning of its own
        Choose another, such as X-Auth-Email
    ");
    assert_snapshot!(errors("identity_headers: {email: X-Forwarded-Email}"), @r"
    gateway.yaml:1: identity_headers.email: `X-Forwarded-Email` has a meaning of its own
        Choose another, such as X-Auth-Email
    ");
    assert_snapshot!(errors("identity_headers: {email: Portcullis.Error}"), @r"
    gateway.yaml:1: identity_headers.email: `Portcullis.Error` has a meaning of its own
        Choose another, such as X-Auth-Email
    ");
    assert_snapshot!(errors("identity_headers: {email: X_Auth.Subject}"), @r"
    gateway.yaml:1: identity_headers.email: `X_Auth.Subject` is the same header as `X-Auth-Subject`
        Upstreams tell names apart by letters and digits only: choose another
    ");
    assert_snapshot!(errors("identity_headers:
  email: X-Email
  mail: x_email"), @r"
    gateway.yaml:3: identity_headers.mail: `x_email` is the same header as `X-Email`
        Upstreams tell names apart by letters and digits only: choose another
    ");
    assert_snapshot!(errors(r#"identity_headers: {"": X-Email}"#), @"gateway.yaml:1: identity_headers.: an empty text is not the name of a claim");
}

#[test]
fn expansion() {
    assert_snapshot!(errors(r#"tokens: {issuer: "${NO_SUCH}"}"#), @r"
    gateway.yaml:1: tokens.issuer: the environment variable NO_SUCH is not set
        Set NO_SUCH, or give a default: ${NO_SUCH:-default}
    ");
    assert_snapshot!(errors(r#"tokens: {issuer: "${EMPTY}"}"#), @r"
    gateway.yaml:1: tokens.issuer: the environment variable EMPTY is empty
        Set EMPTY, or give a default: ${EMPTY:-default}
    ");
    assert_snapshot!(errors(r#"tokens: {issuer: "${NO_SUCH} and ${EMPTY}"}"#), @r"
    gateway.yaml:1: tokens.issuer: the environment variable NO_SUCH is not set
        Set NO_SUCH, or give a default: ${NO_SUCH:-default}
    gateway.yaml:1: tokens.issuer: the environment variable EMPTY is empty
        Set EMPTY, or give a default: ${EMPTY:-default}
    ");
    assert_snapshot!(errors(r#"tokens: {issuer: "${NO_SUCH"}"#), @r"
    gateway.yaml:1: tokens.issuer: a `${` is never closed
        Write ${NAME} or ${NAME:-default}; a literal `${` is written `$${`
    ");
    assert_snapshot!(errors(r#"tokens: {issuer: "${NO SUCH}"}"#), @r"
    gateway.yaml:1: tokens.issuer: `${…}` does not hold a name of A-Z a-z 0-9 _
        Write ${NAME} or ${NAME:-default}; a literal `${` is written `$${`
    ");
    assert_snapshot!(errors(r#"tokens: {issuer: "${1X}"}"#), @r"
    gateway.yaml:1: tokens.issuer: `${…}` does not hold a name of A-Z a-z 0-9 _
        Write ${NAME} or ${NAME:-default}; a literal `${` is written `$${`
    ");
    assert_snapshot!(errors(r#"tokens: {issuer: "${}"}"#), @r"
    gateway.yaml:1: tokens.issuer: `${…}` does not hold a name of A-Z a-z 0-9 _
        Write ${NAME} or ${NAME:-default}; a literal `${` is written `$${`
    ");
    assert_snapshot!(errors(r#"log: {level: "${PORT}"}"#), @r"
    gateway.yaml:1: log.level: `8088` is not possible here
        Possible are: error, warn, info, debug, trace
    ");
    assert_snapshot!(errors(r#"log: {level: "${NO_SUCH}"}"#), @r"
    gateway.yaml:1: log.level: the environment variable NO_SUCH is not set
        Set NO_SUCH, or give a default: ${NO_SUCH:-default}
    ");
    assert_snapshot!(errors(r#"server: {timeouts: {idle: "${NO_SUCH}"}}"#), @r"
    gateway.yaml:1: server.timeouts.idle: the environment variable NO_SUCH is not set
        Set NO_SUCH, or give a default: ${NO_SUCH:-default}
    ");
    assert_snapshot!(errors(r#"server: {limits: {body: "${NO_SUCH}"}}"#), @r"
    gateway.yaml:1: server.limits.body: the environment variable NO_SUCH is not set
        Set NO_SUCH, or give a default: ${NO_SUCH:-default}
    ");
    assert_snapshot!(errors(r#"upstreams: {"${PORT}": {servers: [http://h]}}"#), @r"
    gateway.yaml:1: upstreams.${PORT}: `${PORT}` is not a name for an upstream
        It has letters, digits, - and _, and begins with a letter or digit
    ");
}

#[test]
fn warnings_are_loud() {
    assert_snapshot!(warnings(""), @"routes: there are none: every path but the gateway's own endpoints is 404");
    assert_snapshot!(warnings("tokens: {secret: jwt-secret-string}
identity: {responses: flask, users: anyone}"), @r"
    identity.users: anyone may list and delete all accounts, as in the tutorial
    tokens.secret: the secret has 17 bytes; HS256 needs 32 at least. It is taken because identity.responses is flask and the tutorial's own is as short. Whoever has one token can guess such a secret offline, and then be anyone. Make one with `openssl rand -base64 48`, or leave it out to have one made and kept in the store
    routes: there are none: every path but the gateway's own endpoints is 404
    ");
    assert_snapshot!(warnings("server: {trusted_proxies: [0.0.0.0/0]}"), @r"
    server.trusted_proxies[0]: every client is believed about who it is: X-Forwarded-For can be forged by anyone
    routes: there are none: every path but the gateway's own endpoints is 404
    ");
    assert_snapshot!(warnings("identity: {password: {argon2: {memory: 8MiB, iterations: 1}}}"), @r"
    identity.password.argon2: these passwords are cheap to guess for whoever gets the database; the default is 19MiB and 2 iterations
    routes: there are none: every path but the gateway's own endpoints is 404
    ");
    assert_snapshot!(warnings("upstreams:
  app:
    servers: [http://h:1]
"), @r"
    routes: there are none: every path but the gateway's own endpoints is 404
    upstreams.app: no route leads here
    ");
    assert_snapshot!(warnings("upstreams:
  app:
    servers: [http://h:1]
routes: [{path: /*, upstream: app, auth: public}]"), @"routes[0]: is public for every path, and no route requires a token: nothing is protected");
}

#[test]
fn the_audit_goes_to_the_log_or_to_a_file() {
    for (written, target) in [
        ("log", AuditTarget::Log),
        ("audit.log", AuditTarget::File("audit.log".into())),
        ("./log", AuditTarget::File("./log".into())),
        ("\"/var/log/${PORT}.log\"", AuditTarget::File("/var/log/8088.log".into())),
    ] {
        let config = load(&format!("log: {{audit: {written}}}"));
        assert_eq!(config.log.audit, target, "{written}");
        assert!(config.files.is_empty(), "a file that changes all the time is not watched");
    }
    for wrong in ["\"\"", "logs/", "\"a\\nb\""] {
        let told = errors(&format!("log: {{audit: {wrong}}}"));
        assert!(
            told.starts_with("gateway.yaml:1: log.audit: does not name a file\n    Write log, or a path"),
            "{told}"
        );
    }
}
