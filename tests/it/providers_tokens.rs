//! One token shape a provider: header and claims as each writes them, and what of its tokens is refused.
//!
//! The shapes are those of the providers' own documentation; only names, times and keys are made here.

use std::sync::LazyLock;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::harness::{Gateway, Setup, await_that};
use crate::jwt::{self, now};
use crate::origin::Origin;
use crate::provider::{Key, Provider, ask};
use crate::wire::get;

/// A provider, configured as the README says.
struct Shape {
    name: &'static str,
    issuer: &'static str,
    algorithm: Algorithm,
    /// Beside `issuer` and `jwks_url`.
    trusted: Value,
    /// Beside `issuers`.
    rule: Value,
    /// Beside `alg` and `kid`.
    header: Value,
    claims: Value,
    subject: &'static str,
    /// X-Auth-Roles.
    roles: &'static str,
    /// Other tokens of it: what, changes of the claims (null takes one away), and the code of the refusal.
    refused: Vec<(&'static str, Value, &'static str)>,
}

const APP: &str = "api://orders";

fn users() -> Vec<Shape> {
    let guid = "11112222-bbbb-3333-cccc-4444dddd5555";
    vec![
        Shape {
            name: "Keycloak",
            issuer: "https://id.example.com/realms/shop",
            algorithm: Algorithm::RS256,
            trusted: json!({"audience": "orders", "subject_claim": "preferred_username",
                "roles_claim": "resource_access.orders.v2.roles"}),
            rule: json!({"roles": ["manager"], "scopes": ["email"], "claims": {"realm_access.roles": "staff"}}),
            header: json!({"typ": "JWT"}),
            claims: json!({
                "auth_time": now(), "jti": "onrtac:c5d7c3a1-3c59-4b5e-8f5e-2f0e6b6f3b9d", "aud": ["orders", "account"],
                "sub": "f:0d1c:alice", "typ": "Bearer", "azp": "web", "sid": "7c1b0d1f", "acr": "1",
                "allowed-origins": ["https://shop.example.com"],
                "realm_access": {"roles": ["offline_access", "staff"]},
                "resource_access": {
                    "orders.v2": {"roles": ["manager"]}, "orders": {"roles": ["reader"]},
                    "account": {"roles": ["manage-account"]},
                },
                "scope": "openid profile email", "email_verified": true, "preferred_username": "alice",
            }),
            subject: "alice",
            roles: "manager",
            refused: vec![
                ("an ID token", json!({"typ": "ID", "at_hash": "x", "aud": ["orders", "web"]}), "token_wrong_type"),
                (
                    "a refresh token",
                    json!({"typ": "Refresh", "aud": "https://id.example.com/realms/shop", "preferred_username": null}),
                    "token_wrong_type",
                ),
                ("an offline token", json!({"typ": "Offline"}), "token_wrong_type"),
                ("a logout token", json!({"typ": "Logout", "events": {}}), "token_invalid"),
                ("a token of another client", json!({"aud": "account"}), "token_invalid"),
            ],
        },
        Shape {
            name: "Auth0",
            issuer: "https://shop.eu.auth0.com/",
            algorithm: Algorithm::RS256,
            trusted: json!({"audience": APP, "roles_claim": "https://shop.example.com/roles"}),
            rule: json!({"scopes": ["read:orders"], "claims": {"permissions": "write:orders"}, "roles": ["manager"]}),
            header: json!({"typ": "at+jwt"}),
            claims: json!({
                "sub": "auth0|507f1f77bcf86cd799439020", "aud": [APP, "https://shop.eu.auth0.com/userinfo"],
                "client_id": "my_client", "scope": "openid profile read:orders", "jti": "73WakrfVbNJBaAmhQtEeDv",
                "permissions": ["write:orders"], "https://shop.example.com/roles": ["manager"],
            }),
            subject: "auth0|507f1f77bcf86cd799439020",
            roles: "manager",
            refused: vec![("an ID token", json!({"aud": "my_client", "nonce": "n"}), "token_invalid")],
        },
        Shape {
            name: "Entra v1",
            issuer: "https://sts.windows.net/aaaabbbb-0000-cccc-1111-dddd2222eeee/",
            algorithm: Algorithm::RS256,
            trusted: json!({"audience": [APP, guid], "subject_claim": "oid"}),
            rule: json!({"scopes": ["Orders.Read"], "roles": ["Orders.Manager"]}),
            header: json!({"typ": "JWT", "x5t": "i6lGk3FZzxRcUb2C3nEQ7syHJlY"}),
            claims: json!({
                "aud": APP, "acr": "1", "aio": "AXQAi/8IAAAA", "amr": ["pwd"], "appid": guid, "appidacr": "0",
                "ipaddr": "203.0.113.7", "name": "Alice", "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474", "rh": "0.AA",
                "scp": "Orders.Read Orders.Write", "roles": ["Orders.Manager"], "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222",
                "tid": "aaaabbbb-0000-cccc-1111-dddd2222eeee", "unique_name": "alice@contoso.com", "uti": "fqiBqXLPj0e",
                "ver": "1.0",
            }),
            subject: "690222be-ff1a-4d56-abd1-7e4f7d38e474",
            roles: "Orders.Manager",
            refused: vec![("an ID token", json!({"aud": "6e74172b-be56-4843", "nonce": "1"}), "token_invalid")],
        },
        Shape {
            name: "Entra v2",
            issuer: "https://login.microsoftonline.com/aaaabbbb-0000-cccc-1111-dddd2222eeee/v2.0",
            algorithm: Algorithm::RS256,
            trusted: json!({"audience": [guid], "subject_claim": "oid"}),
            rule: json!({"scopes": ["Orders.Read"]}),
            header: json!({"typ": "JWT"}),
            claims: json!({
                "aud": guid, "azp": "6e74172b-be56-4843", "azpacr": "0", "name": "Alice",
                "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474", "preferred_username": "alice@contoso.com", "rh": "0.AA",
                "scp": "Orders.Read", "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222",
                "tid": "aaaabbbb-0000-cccc-1111-dddd2222eeee", "uti": "fqiBqXLPj0e", "ver": "2.0",
            }),
            subject: "690222be-ff1a-4d56-abd1-7e4f7d38e474",
            roles: "",
            refused: vec![
                ("an ID token", json!({"aud": "6e74172b-be56-4843", "nonce": "1"}), "token_invalid"),
                ("an ID token of the same application", json!({"scp": null, "nonce": "1"}), "forbidden"),
            ],
        },
        Shape {
            name: "Cognito",
            issuer: "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_example",
            algorithm: Algorithm::RS256,
            trusted: json!({"audience": "xxxxxxxxxxxxexample", "audience_claim": "client_id",
                "subject_claim": "username", "roles_claim": "cognito:groups"}),
            rule: json!({"scopes": ["orders/read"], "roles": ["manager"]}),
            header: json!({}),
            claims: json!({
                "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "device_key": "aaaa", "cognito:groups": ["manager"],
                "version": 2, "client_id": "xxxxxxxxxxxxexample", "origin_jti": "bbbb", "event_id": "cccc",
                "token_use": "access", "scope": "phone openid orders/read", "auth_time": now(), "jti": "dddd",
                "username": "alice",
            }),
            subject: "alice",
            roles: "manager",
            refused: vec![
                (
                    "an ID token",
                    json!({"token_use": "id", "client_id": null, "aud": "xxxxxxxxxxxxexample", "username": null,
                        "cognito:username": "alice"}),
                    "token_wrong_type",
                ),
                ("a token of another client", json!({"client_id": "another"}), "token_invalid"),
            ],
        },
        Shape {
            name: "Okta",
            issuer: "https://shop.okta.com/oauth2/default",
            algorithm: Algorithm::RS256,
            trusted: json!({"audience": "api://default", "roles_claim": "groups"}),
            rule: json!({"scopes": ["orders:read"], "roles": ["Everyone"]}),
            header: json!({}),
            claims: json!({
                "ver": 1, "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE", "aud": "api://default",
                "cid": "nmdP1fcyvdVO11AL7ECm", "uid": "00ugrenMeqvYla4HW0g3", "scp": ["openid", "orders:read"],
                "auth_time": now(), "sub": "alice@example.com", "groups": ["Everyone"],
            }),
            subject: "alice@example.com",
            roles: "Everyone",
            refused: vec![(
                "an ID token",
                json!({"aud": "nmdP1fcyvdVO11AL7ECm", "jti": "ID.fL39", "scp": null, "at_hash": "x", "amr": ["pwd"]}),
                "token_invalid",
            )],
        },
        Shape {
            name: "Google",
            issuer: "https://accounts.google.com",
            algorithm: Algorithm::RS256,
            trusted: json!({"audience": "1234987819200.apps.googleusercontent.com", "subject_claim": "email"}),
            rule: json!({"claims": {"hd": "example.com", "email_verified": true}}),
            header: json!({"typ": "JWT"}),
            claims: json!({
                "azp": "1234987819200.apps.googleusercontent.com", "aud": "1234987819200.apps.googleusercontent.com",
                "sub": "10769150350006150715113082367", "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q", "hd": "example.com",
                "email": "alice@example.com", "email_verified": true, "nonce": "0394852-3190485-2490358",
            }),
            subject: "alice@example.com",
            roles: "",
            refused: vec![
                (
                    "a token for another client",
                    json!({"aud": "407408718192.apps.googleusercontent.com"}),
                    "token_invalid",
                ),
                ("a private account", json!({"hd": null, "email": "alice@gmail.com"}), "forbidden"),
            ],
        },
        Shape {
            name: "Firebase",
            issuer: "https://securetoken.google.com/shop-1a2b",
            algorithm: Algorithm::RS256,
            trusted: json!({"audience": "shop-1a2b"}),
            rule: json!({"claims": {"firebase.sign_in_provider": "password", "admin": true}}),
            header: json!({"typ": "JWT"}),
            claims: json!({
                "aud": "shop-1a2b", "auth_time": now(), "user_id": "g9mJSmSHwJ", "sub": "g9mJSmSHwJ", "admin": true,
                "email": "alice@example.com", "email_verified": true,
                "firebase": {"identities": {"email": ["alice@example.com"]}, "sign_in_provider": "password"},
            }),
            subject: "g9mJSmSHwJ",
            roles: "",
            refused: vec![
                ("a session cookie", json!({"iss": "https://session.firebase.google.com/shop-1a2b"}), "token_invalid"),
                ("a token of another project", json!({"aud": "shop-2"}), "token_invalid"),
            ],
        },
        Shape {
            name: "Supabase",
            issuer: "https://abcdefghijklmnop.supabase.co/auth/v1",
            algorithm: Algorithm::ES256,
            trusted: json!({"audience": "authenticated", "roles_claim": "role"}),
            rule: json!({"claims": {"aal": "aal1", "app_metadata.provider": "email", "is_anonymous": false}}),
            header: json!({"typ": "JWT"}),
            claims: json!({
                "aud": "authenticated", "sub": "123e4567-e89b-12d3-a456-426614174000", "email": "alice@example.com",
                "phone": "", "app_metadata": {"provider": "email", "providers": ["email"]}, "user_metadata": {},
                "role": "authenticated", "aal": "aal1", "amr": [{"method": "password", "timestamp": now()}],
                "session_id": "123e4567-e89b-12d3-a456-426614174000", "is_anonymous": false,
            }),
            subject: "123e4567-e89b-12d3-a456-426614174000",
            roles: "authenticated",
            refused: vec![
                ("the anon key", json!({"aud": null, "sub": null, "role": "anon"}), "token_invalid"),
                ("an anonymous user", json!({"is_anonymous": true}), "forbidden"),
            ],
        },
    ]
}

fn machines() -> Vec<Shape> {
    vec![
        Shape {
            name: "GitHub Actions",
            issuer: "https://token.actions.githubusercontent.com",
            algorithm: Algorithm::RS256,
            trusted: json!({"audience": APP}),
            rule: json!({"claims": {"repository": "octo-org/octo-repo", "ref": "refs/heads/main"}}),
            header: json!({"typ": "JWT", "x5t": "ykNaY4qM_ta4k2TgZOCEYLkcYlA"}),
            claims: json!({
                "jti": "example-id", "sub": "repo:octo-org/octo-repo:environment:prod", "environment": "prod",
                "aud": APP, "ref": "refs/heads/main", "sha": "example-sha", "repository": "octo-org/octo-repo",
                "repository_owner": "octo-org", "actor_id": "12", "repository_visibility": "private",
                "repository_id": "74", "repository_owner_id": "65", "run_id": "example-run-id", "run_number": "10",
                "run_attempt": "2", "runner_environment": "github-hosted", "actor": "octocat",
                "workflow": "example-workflow", "head_ref": "", "base_ref": "", "event_name": "workflow_dispatch",
                "ref_type": "branch",
                "job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main",
            }),
            subject: "repo:octo-org/octo-repo:environment:prod",
            roles: "",
            refused: vec![
                ("a token for others", json!({"aud": "https://github.com/octo-org"}), "token_invalid"),
                ("another branch", json!({"ref": "refs/heads/x"}), "forbidden"),
            ],
        },
        Shape {
            name: "GitLab",
            issuer: "https://gitlab.com",
            algorithm: Algorithm::RS256,
            trusted: json!({"audience": APP}),
            rule: json!({"claims": {"project_path": "my-group/my-project", "ref_protected": "true"}}),
            header: json!({"typ": "JWT"}),
            claims: json!({
                "namespace_id": "72", "namespace_path": "my-group", "project_id": "20",
                "project_path": "my-group/my-project", "user_id": "1", "user_login": "sample-user",
                "user_email": "sample-user@example.com", "user_identities": [{"provider": "github", "extern_uid": "2"}],
                "pipeline_id": "574", "pipeline_source": "push", "job_id": "302", "ref": "main", "ref_type": "branch",
                "ref_path": "refs/heads/main", "ref_protected": "true", "groups_direct": ["my-group/sub"],
                "environment": "test", "environment_protected": "false", "runner_id": 1, "sha": "714a629c0b401fdce83e",
                "runner_environment": "self-hosted", "project_visibility": "public",
                "jti": "235b3a54-b797-45c7-ae9a-f72d7bc6ef5b",
                "sub": "project_path:my-group/my-project:ref_type:branch:ref:main", "aud": APP,
            }),
            subject: "project_path:my-group/my-project:ref_type:branch:ref:main",
            roles: "",
            refused: vec![("a token for others", json!({"aud": "https://vault.example.com"}), "token_invalid")],
        },
        Shape {
            name: "Kubernetes",
            issuer: "https://kubernetes.default.svc.cluster.local",
            algorithm: Algorithm::RS256,
            trusted: json!({"audience": APP}),
            rule: json!({"claims": {"kubernetes.io.namespace": "shop", "kubernetes.io.serviceaccount.name": "web"}}),
            header: json!({}),
            claims: json!({
                "aud": [APP], "jti": "ea28ed49-2e11-4280-9ec5-bc3d1d84661a",
                "kubernetes.io": {
                    "namespace": "shop",
                    "node": {"name": "n1", "uid": "6b9b"},
                    "pod": {"name": "web-0", "uid": "5e0b"},
                    "serviceaccount": {"name": "web", "uid": "14ee"},
                    "warnafter": now() + 3607,
                },
                "sub": "system:serviceaccount:shop:web",
            }),
            subject: "system:serviceaccount:shop:web",
            roles: "",
            refused: vec![
                ("a token for the API server", json!({"aud": ["https://kubernetes.default.svc"]}), "token_invalid"),
                ("another namespace", json!({"kubernetes.io": {"namespace": "x"}}), "forbidden"),
            ],
        },
        Shape {
            name: "Zitadel",
            issuer: "https://shop-ab12cd.zitadel.cloud",
            algorithm: Algorithm::RS256,
            trusted: json!({"audience": "259242039378444290", "roles_claim": "urn:zitadel:iam:org:project:roles"}),
            rule: json!({"roles": ["manager"]}),
            header: json!({"typ": "JWT"}),
            claims: json!({
                "sub": "259241944654282754", "aud": ["259254020357488642@shop", "259242039378444290"],
                "client_id": "259254020357488642@shop", "jti": "V2_259259160431108098-at_259259160431173634",
                "urn:zitadel:iam:org:project:roles": {
                    "manager": {"259230188846104578": "shop.example.com"},
                    "reader": {"259230188846104578": "shop.example.com"},
                },
            }),
            subject: "259241944654282754",
            roles: "manager,reader",
            refused: vec![
                (
                    "an ID token, into which roles are not asserted",
                    json!({"jti": null, "at_hash": "x", "amr": ["pwd"], "urn:zitadel:iam:org:project:roles": null}),
                    "forbidden",
                ),
                ("a token of another project", json!({"aud": ["2", "3"]}), "token_invalid"),
            ],
        },
        Shape {
            name: "Casdoor",
            issuer: "https://door.example.com",
            algorithm: Algorithm::RS256,
            trusted: json!({"audience": "b6f9e2b5e4d3c2a1f0e9", "subject_claim": "name"}),
            rule: json!({"roles": ["manager"], "scopes": ["profile"]}),
            header: json!({"typ": "JWT"}),
            claims: json!({
                "owner": "shop", "name": "alice", "displayName": "Alice", "tag": "staff", "tokenType": "access-token",
                "roles": [
                    {"owner": "shop", "name": "manager", "isEnabled": true},
                    {"owner": "shop", "name": "retired", "isEnabled": false},
                ],
                "permissions": [{"owner": "shop", "name": "orders"}], "groups": ["shop/staff"], "scope": "openid profile",
                "sub": "e1c9e7b1-8b54-4f0a-9f5e-8d1f7b1c2a3d", "aud": ["b6f9e2b5e4d3c2a1f0e9"], "jti": "admin/8f2c",
            }),
            subject: "alice",
            roles: "manager",
            refused: vec![
                ("a refresh token", json!({"tokenType": "refresh-token"}), "token_wrong_type"),
                ("a token of another application", json!({"aud": ["x"]}), "token_invalid"),
            ],
        },
    ]
}

/// Made once: RSA keys take their time.
static KEYS: LazyLock<[Key; 2]> =
    LazyLock::new(|| [Key::new("key-1", Algorithm::RS256), Key::new("key-1", Algorithm::ES256)]);

fn key(shape: &Shape) -> &'static Key {
    KEYS.iter().find(|key| key.algorithm == shape.algorithm).unwrap()
}

fn token(shape: &Shape, changes: &Value) -> String {
    let mut header = json!({"alg": shape.algorithm, "kid": "key-1"});
    header.as_object_mut().unwrap().extend(shape.header.as_object().unwrap().clone());
    let mut claims = json!({"iss": shape.issuer, "iat": now(), "nbf": now(), "exp": now() + 3600});
    for part in [&shape.claims, changes] {
        claims.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    key(shape).sign_with(&header, &claims)
}

fn path(shape: &Shape) -> String {
    format!("/{}", shape.name.replace(' ', "-"))
}

/// A gateway that trusts all of them, each on a route of its own.
fn start(shapes: &[Shape], origin: &Origin) -> (Vec<Provider>, Gateway) {
    let (mut providers, mut trusted, mut routes) = (Vec::new(), Vec::new(), Vec::new());
    for shape in shapes {
        let provider = Provider::start(&[key(shape)]);
        let mut entry = json!({"issuer": shape.issuer, "jwks_url": provider.url()});
        entry.as_object_mut().unwrap().extend(shape.trusted.as_object().unwrap().clone());
        trusted.push(entry);
        let mut rule = json!({"issuers": [shape.issuer]});
        rule.as_object_mut().unwrap().extend(shape.rule.as_object().unwrap().clone());
        routes.push(json!({"path": path(shape), "upstream": "app", "auth": rule}));
        providers.push(provider);
    }
    let setup = Setup::new(origin.address).set("tokens.trusted", trusted.into()).and_routes(routes.into());
    (providers, setup.start())
}

#[test]
fn tokens_as_providers_write_them() {
    let origin = Origin::start();
    let shapes: Vec<Shape> = users().into_iter().chain(machines()).collect();
    let (_providers, gateway) = start(&shapes, &origin);
    for shape in &shapes {
        let (name, path, good) = (shape.name, path(shape), token(shape, &json!({})));
        await_that(name, || ask(&gateway, &path, &good).code() != "unavailable");
        let answer = ask(&gateway, &path, &good);
        assert_eq!((answer.status, answer.code()), (200, ""), "{name}: {}", answer.text());
        let seen = origin.last();
        let encoded = shape.subject.replace('%', "%25");
        assert_eq!(seen.all("x-auth-subject"), [encoded], "{name}");
        assert_eq!(seen.header("x-auth-roles").unwrap_or_default(), shape.roles, "{name}");
        assert_eq!(seen.all("x-auth-issuer"), [shape.issuer], "{name}");
        assert_eq!(get("/auth/verify").bearer(&good).send(gateway.public).status, 200, "{name}");
        assert_eq!(ask(&gateway, "/secret", &good).code(), "forbidden", "{name}: not for our own users");
        for (what, changes, code) in &shape.refused {
            let other = token(shape, changes);
            let answer = ask(&gateway, &path, &other);
            assert_eq!(answer.code(), *code, "{name}, {what}: {answer:?}");
            if *code != "forbidden" {
                assert_eq!(ask(&gateway, "/auth/verify", &other).code(), *code, "{name}, {what}");
            }
        }
        let expired = token(shape, &json!({"exp": now() - 60, "nbf": now() - 100, "iat": now() - 100}));
        assert_eq!(ask(&gateway, &path, &expired).code(), "token_expired", "{name}");
        let own = jwt::access("alice");
        assert_eq!(ask(&gateway, &path, &own).code(), "forbidden", "{name}: our own user");
    }
}

/// djangorestframework-simplejwt with `ISSUER` set: no `type`, no `sub`, and users by number.
#[test]
fn tokens_of_simplejwt() {
    const SECRET: &str = "django-insecure-a-signing-key-of-more-than-32-bytes";
    let origin = Origin::start();
    let trusted = json!([{"issuer": "django", "secret": SECRET, "subject_claim": "user_id"}]);
    let routes = json!([{"path": "/django", "upstream": "app", "auth": {"issuers": ["django"]}}]);
    let gateway = Setup::new(origin.address).set("tokens.trusted", trusted).and_routes(routes).start();
    let token = |kind: &str, user: Value| {
        let claims = json!({
            "token_type": kind, "exp": now() + 300, "iat": now(), "jti": jwt::fresh_id(), "user_id": user, "iss": "django",
        });
        let header = r#"{"alg":"HS256","typ":"JWT"}"#;
        jwt::sign_text(header, &claims.to_string(), SECRET.as_bytes(), aws_lc_rs::hmac::HMAC_SHA256)
    };
    for user in [json!(42), json!("42")] {
        assert_eq!(ask(&gateway, "/django", &token("access", user.clone())).status, 200);
        assert_eq!(origin.last().all("x-auth-subject"), ["42"]);
        let refresh = token("refresh", user);
        for place in ["/django", "/auth/verify"] {
            assert_eq!(ask(&gateway, place, &refresh).code(), "token_wrong_type", "{place}");
        }
    }
}

/// A gateway with one issuer, and a route a rule: `/0`, `/1` and so on.
fn with_rules(trusted: Value, rules: &[Value], headers: Value) -> (Origin, Provider, Gateway) {
    const ISSUER: &str = "https://id.example.com";
    let (origin, provider) = (Origin::start(), Provider::start(&[&KEYS[1]]));
    let mut entry = json!({"issuer": ISSUER, "jwks_url": provider.url(), "audience": "app"});
    entry.as_object_mut().unwrap().extend(trusted.as_object().unwrap().clone());
    let routes = rules.iter().enumerate().map(|(nth, rule)| {
        let mut rule = rule.clone();
        rule["issuers"] = json!([ISSUER, "local"]);
        json!({"path": format!("/{nth}"), "upstream": "app", "auth": rule})
    });
    let routes: Vec<Value> = routes.collect();
    let setup = Setup::new(origin.address)
        .set("tokens.trusted", json!([entry]))
        .set("identity_headers", headers)
        .and_routes(routes.into());
    let gateway = setup.start();
    await_that("the keys are fetched", || ask(&gateway, "/0", &es256(&json!({}))).code() != "unavailable");
    (origin, provider, gateway)
}

/// A token of that issuer.
fn es256(changes: &Value) -> String {
    let mut claims = json!({"iss": "https://id.example.com", "sub": "alice", "aud": "app", "exp": now() + 300});
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    KEYS[1].sign_with(&json!({"alg": "ES256", "kid": "key-1"}), &claims)
}

#[test]
fn scopes_are_words_or_lists() {
    let rules = [
        json!({"scopes": ["orders/read"]}),
        json!({"scopes": ["orders:read"]}),
        json!({"scopes": ["https://example.com/orders.read"]}),
        json!({"scopes": ["orders/read", "orders/write"]}),
    ];
    let (_origin, _provider, gateway) = with_rules(json!({}), &rules, json!({}));
    for (claims, met) in [
        (json!({}), [false; 4]),
        (json!({"scope": "openid orders/read"}), [true, false, false, false]),
        (json!({"scp": "orders/read orders:read"}), [true, true, false, false]),
        (json!({"scp": ["orders/read", "orders:read", 7, null]}), [true, true, false, false]),
        (json!({"scope": ["https://example.com/orders.read"]}), [false, false, true, false]),
        (json!({"scope": "orders/read", "scp": ["orders/write"]}), [true, false, false, true]),
        (json!({"scope": "orders/reader orders/rea Orders/read"}), [false; 4]),
        (json!({"scope": "orders/read,orders/write"}), [false; 4]),
        (json!({"scp": ["openid orders/read"]}), [false; 4]),
        (json!({"scope": {"orders/read": true}, "scp": 1}), [false; 4]),
    ] {
        for (nth, met) in met.into_iter().enumerate() {
            for token in [es256(&claims), jwt::token_with("alice", &claims)] {
                let answer = ask(&gateway, &format!("/{nth}"), &token);
                assert_eq!(answer.code(), if met { "" } else { "forbidden" }, "/{nth}, {claims}: {answer:?}");
            }
        }
    }
    let refused = ask(&gateway, "/3", &es256(&json!({"scope": "orders/read"})));
    assert_eq!(refused.message(), "This needs the scope orders/write");
    assert!(refused.header("www-authenticate").unwrap().contains("insufficient_scope"));
}

#[test]
fn claims_are_found_by_the_longest_name_that_exists() {
    let rules = [
        json!({"claims": {"resource_access.my.app.roles": "admin"}}),
        json!({"claims": {"kubernetes.io.namespace": "shop"}}),
        json!({"claims": {"https://example.com/dept": "ops"}}),
        json!({"roles": ["lead"]}),
    ];
    let headers = json!({"resource_access.my.app.roles": "X-App-Roles", "kubernetes.io.pod.name": "X-Pod"});
    let trusted = json!({"roles_claim": "app_metadata.v1.roles", "subject_claim": "who.is.it"});
    let (origin, _provider, gateway) = with_rules(trusted, &rules, headers);
    let who = json!({"is.it": 42, "is": {"it": "not this"}});
    for (claims, met) in [
        (json!({"resource_access": {"my.app": {"roles": ["admin", "x"]}}}), [true, false, false, false]),
        (json!({"resource_access": {"my": {"app": {"roles": "admin"}}}}), [true, false, false, false]),
        (json!({"resource_access.my.app.roles": "admin"}), [true, false, false, false]),
        (json!({"resource_access": {"my.app": {"roles": "x"}, "my": {"app": {"roles": "admin"}}}}), [false; 4]),
        (json!({"resource_access.my": {}, "resource_access": {"my.app": {"roles": "admin"}}}), [false; 4]),
        (json!({"kubernetes.io": {"namespace": "shop"}}), [false, true, false, false]),
        (json!({"kubernetes": {"io": {"namespace": "shop"}}}), [false, true, false, false]),
        (json!({"kubernetes.io": [{"namespace": "shop"}]}), [false; 4]),
        (json!({"https://example.com/dept": "ops"}), [false, false, true, false]),
        (json!({"app_metadata": {"v1": {"roles": "lead, other"}}}), [false, false, false, true]),
        (json!({"app_metadata": {"v1.roles": {"lead": {}}}}), [false, false, false, true]),
        (json!({"app_metadata": {"v1.roles": {"lead": false}}}), [false; 4]),
    ] {
        let mut all = claims.clone();
        all["who"] = who.clone();
        for (nth, met) in met.into_iter().enumerate() {
            let answer = ask(&gateway, &format!("/{nth}"), &es256(&all));
            assert_eq!(answer.code(), if met { "" } else { "forbidden" }, "/{nth}, {claims}: {answer:?}");
        }
    }
    let all = json!({
        "who": who, "kubernetes.io": {"namespace": "shop", "pod": {"name": "web-0"}},
        "resource_access": {"my.app": {"roles": ["a", "b"]}},
    });
    assert_eq!(ask(&gateway, "/1", &es256(&all)).status, 200);
    let seen = origin.last();
    assert_eq!(
        [seen.all("x-auth-subject"), seen.all("x-app-roles"), seen.all("x-pod")],
        [vec!["42"], vec!["a,b"], vec!["web-0"]]
    );
}

/// One of our own, of about this many bytes.
fn token_of(bytes: usize) -> String {
    let make = |pad: usize| jwt::token_with("alice", &json!({"groups": "g".repeat(pad)}));
    let pad = (bytes - make(0).len()) * 3 / 4;
    (0..4).map(|less| make(pad - less)).find(|token| token.len() <= bytes).unwrap()
}

#[test]
fn a_token_is_read_up_to_the_configured_length() {
    let origin = Origin::start();
    for (set, most) in [(None, 8 * 1024), (Some("12KiB"), 12 * 1024), (Some("32KiB"), 32 * 1024)] {
        let mut setup = Setup::new(origin.address);
        if let Some(most) = set {
            setup = setup.set("tokens.max_bytes", json!(most));
        }
        let gateway = setup.start();
        let (fits, long) = (token_of(most), token_of(most + 8));
        assert!(fits.len() > most - 4 && long.len() > most, "{} {}", fits.len(), long.len());
        let answer = get("/secret").bearer(&fits).send(gateway.public);
        assert_eq!((answer.status, answer.code()), (200, ""), "{set:?}");
        assert_eq!(origin.last().header("authorization").unwrap().len(), fits.len() + 7, "passed on whole");
        assert_eq!(over_http2(&gateway, &fits), 200, "{set:?}");
        assert_eq!(get("/auth/verify").bearer(&fits).send(gateway.public).status, 200);
        for place in ["/secret", "/auth/verify", "/sessions"] {
            let answer = get(place).bearer(&long).send(gateway.public);
            assert_eq!((answer.status, answer.code()), (401, "token_malformed"), "{place}, {set:?}");
            assert!(answer.message().contains("tokens.max_bytes"), "{}", answer.message());
        }
        assert_eq!(over_http2(&gateway, &long), 401, "{set:?}");
        assert_eq!(crate::wire::post("/logout/access").bearer(&fits).send(gateway.public).status, 200);
        assert_eq!(ask(&gateway, "/secret", &fits).code(), "token_revoked");
    }
}

/// The status of a request over HTTP/2.
fn over_http2(gateway: &Gateway, token: &str) -> u16 {
    let exchange = async {
        let stream = tokio::net::TcpStream::connect(gateway.public).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get(format!("http://{}/secret", gateway.public));
        let request = request.header("authorization", format!("Bearer {token}")).body(()).unwrap();
        let (response, _) = sender.ready().await.unwrap().send_request(request, true).unwrap();
        response.await.unwrap().status().as_u16()
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(exchange)
}
