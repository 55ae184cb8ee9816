//! `tokens.trusted`, and the rules that name its issuers.

use super::{errors, load, warnings, with_app};
use crate::config::{Auth, TrustedKeys};

fn trusted(entry: &str) -> String {
    format!("tokens: {{issuer: us, trusted: [{entry}]}}\n")
}

/// The first line of what is wrong, without its place.
#[track_caller]
fn check(entry: &str, says: &str) {
    let found = errors(&trusted(entry));
    assert!(found.contains(says), "{entry}: expected {says:?} in\n{found}");
}

#[test]
fn sources_of_keys() {
    for (url, tls, host, port, target, authority) in [
        ("https://id.example/keys?a=b", true, "id.example", 443, "/keys?a=b", "id.example"),
        ("https://ID.example.:8443", true, "id.example", 8443, "/", "id.example:8443"),
        ("http://127.0.0.1/k", false, "127.0.0.1", 80, "/k", "127.0.0.1"),
        ("http://[::1]:81/k", false, "::1", 81, "/k", "[::1]:81"),
        ("https://id.example?k", true, "id.example", 443, "/?k", "id.example"),
    ] {
        let config = load(&trusted(&format!("{{issuer: i, jwks_url: \"{url}\", audience: a}}")));
        let TrustedKeys::Url(found) = &config.tokens.trusted[0].keys else { panic!("{url}") };
        let parts = (found.tls, found.host.as_str(), found.port, found.target.as_str(), found.authority());
        assert_eq!(parts, (tls, host, port, target, authority.to_owned()), "{url}");
    }
    let one = load(&trusted("{issuer: i, secret: \"${SECRET}\", algorithms: [HS512], roles_claim: a.b}")).tokens;
    let one = &one.trusted[0];
    assert!(matches!(&one.keys, TrustedKeys::Secret(secret) if secret.len() == 40));
    assert_eq!((one.subject_claim.as_str(), one.roles_claim.as_str(), one.audience.len()), ("sub", "a.b", 0));
    assert_eq!(one.audience_claim, "aud");
    for (audience, all) in [("a", &["a"][..]), ("[a, \"https://b\"]", &["a", "https://b"])] {
        let entry = format!("{{issuer: i, jwks_url: https://h/k, audience: {audience}, audience_claim: client_id}}");
        let one = load(&trusted(&entry)).tokens.trusted.remove(0);
        assert_eq!(
            (one.audience, one.audience_claim.as_str()),
            (all.iter().map(ToString::to_string).collect(), "client_id")
        );
    }
    assert_eq!(one.algorithms, ["HS512"]);
}

#[test]
fn what_is_wrong_with_a_trusted_issuer() {
    const URL: &str = "jwks_url: https://h/k, audience: a";
    for (entry, says) in [
        ("{issuer: i}", "tokens.trusted[0]: there is nothing to verify its tokens with"),
        (
            "{issuer: i, jwks_url: https://h/k, secret: x}",
            "tokens.trusted[0]: its tokens are verified with more than one",
        ),
        ("{issuer: i, secret: short}", "tokens.trusted[0].secret: the secret has 5 bytes"),
        (
            "{issuer: i, secret: x, secret_file: y}",
            "tokens.trusted[0].secret_file: stands beside tokens.trusted[0].secret",
        ),
        ("{issuer: i, jwks_file: /nonexistent/k}", "tokens.trusted[0].jwks_file: /nonexistent/k cannot be read"),
        ("{issuer: i, jwks_file: Cargo.toml}", "Cargo.toml is no JSON Web Key Set"),
        ("{issuer: i, jwks_url: ftp://h/k}", "tokens.trusted[0].jwks_url: `ftp` is not a possible scheme"),
        ("{issuer: i, jwks_url: /k}", "tokens.trusted[0].jwks_url: is not a URL"),
        ("{issuer: i, jwks_url: \"https://h/k#f\"}", "tokens.trusted[0].jwks_url: is not a URL"),
        ("{issuer: i, jwks_url: \"https://u:p@h/k\"}", "has no user or password"),
        ("{issuer: i, jwks_url: http://h/k, ca: a.pem}", "tokens.trusted[0].ca: has no effect"),
        ("{issuer: i, secret: \"${SECRET}\", ca: a.pem}", "tokens.trusted[0].ca: has no effect"),
        ("{issuer: i, jwks_url: https://h/k, ca: \"\"}", "tokens.trusted[0].ca: does not name a file"),
        ("{issuer: i, jwks_url: https://h/k, audience: []}", "tokens.trusted[0].audience: is an empty list"),
        ("{issuer: i, jwks_url: https://h/k, audience: [a, \"\"]}", "tokens.trusted[0].audience[1]: is empty"),
        ("{issuer: i, jwks_url: https://h/k, audience_claim: c}", "audience_claim: has no effect without `audience`"),
        (&format!("{{issuer: \"\", {URL}}}"), "tokens.trusted[0].issuer: is empty"),
        (&format!("{{issuer: us, {URL}}}"), "tokens.trusted[0].issuer: `us` is tokens.issuer"),
        (&format!("{{issuer: local, {URL}}}"), "tokens.trusted[0].issuer: `local` stands for"),
        (&format!("{{issuer: i, {URL}}}, {{issuer: i, {URL}}}"), "tokens.trusted[1].issuer: `i` stands twice"),
        (&format!("{{issuer: i, {URL}, algorithms: []}}"), "tokens.trusted[0].algorithms: is an empty list"),
        (
            &format!("{{issuer: i, {URL}, algorithms: [HS256]}}"),
            "tokens.trusted[0].algorithms[0]: `HS256` is not possible",
        ),
        (&format!("{{issuer: i, {URL}, algorithms: [none]}}"), "`none` is not possible here"),
        ("{issuer: i, secret: \"${SECRET}\", algorithms: [RS256]}", "`RS256` is not possible here"),
    ] {
        check(entry, says);
    }
}

#[test]
fn loose_trust_is_said_aloud() {
    let with = |entry: &str| warnings(&format!("{}{}", trusted(entry), with_app("  - {path: /, upstream: app}")));
    assert_eq!(with("{issuer: i, jwks_url: http://localhost/k, audience: a}"), "");
    assert_eq!(with("{issuer: i, secret: \"${SECRET}\", audience: a}"), "");
    for source in ["jwks_url: https://h/k", "secret: \"${SECRET}\""] {
        let said = with(&format!("{{issuer: i, {source}}}"));
        assert!(said.starts_with("tokens.trusted[0]: without `audience`"), "{source}: {said}");
    }
    let plain = with("{issuer: i, jwks_url: http://keycloak:8080/k, audience: a}");
    assert!(plain.starts_with("tokens.trusted[0].jwks_url: is fetched without TLS"), "{plain}");
}

#[test]
fn rules_name_issuers() {
    let with = |issuers: &str| {
        let routes = with_app(&format!("  - {{path: /, upstream: app, auth: {{issuers: {issuers}}}}}"));
        format!("{}{routes}", trusted("{issuer: idp, jwks_url: https://h/k, audience: a}"))
    };
    for (issuers, expected) in [("[idp]", &["idp"][..]), ("[local, idp]", &["local", "idp"]), ("[us]", &["local"])] {
        let Auth::Required(rule) = &load(&with(issuers)).routes[0].auth else { panic!("{issuers}") };
        assert_eq!(rule.issuers, expected);
    }
    let unknown = errors(&with("[ipd]"));
    assert!(unknown.contains("routes[0].auth.issuers[0]: `ipd` is not among tokens.trusted"), "{unknown}");
    assert!(unknown.contains("There are: idp, local"), "{unknown}");
    assert!(errors(&with("[]")).contains("routes[0].auth.issuers: is an empty list"));
}
