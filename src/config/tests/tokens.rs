//! Secrets, algorithms and lifetimes.

use insta::assert_snapshot;

use super::{errors, load};
use crate::config::Algorithm;

#[test]
fn secrets() {
    assert_snapshot!(errors("tokens: {secret: hunter2}"), @r"
    gateway.yaml:1: tokens.secret: the secret has 7 bytes; HS256 needs 32 at least
        Make one with `openssl rand -base64 48`, or leave it out to have one made and kept in the store
    ");
    assert_snapshot!(errors(r#"tokens: {secret: ""}"#), @r"
    gateway.yaml:1: tokens.secret: the secret is empty
        Make one with `openssl rand -base64 48`, or leave it out to have one made and kept in the store
    ");
    assert_snapshot!(errors(r#"tokens: {secret: "${SECRET}", secret_file: x}"#), @r"
    gateway.yaml:1: tokens.secret_file: stands beside tokens.secret
        Keep one of the two
    ");
    assert_snapshot!(errors("tokens: {secret_file: /nonexistent/jwt.key}"), @"gateway.yaml:1: tokens.secret_file: /nonexistent/jwt.key cannot be read: No such file or directory (os error 2)");
    let secret = "c2VjcmV0/c2VjcmV0c2VjcmV0c2VjcmV0";
    for secret in [secret, &secret.replace('/', "+"), "00112233445566778899aabbccddeeff"] {
        let said = errors(&format!("tokens: {{secret_file: {secret}}}"));
        assert!(said.contains("goes to the key without `_file`") && !said.contains(secret), "{said}");
    }
    let path = "run/secrets/portcullis_jwt_secret";
    assert!(errors(&format!("tokens: {{secret_file: {path}}}")).contains(&format!("{path} cannot be read")));
    assert_snapshot!(errors(r#"tokens: {secret_file: ""}"#), @r"
    gateway.yaml:1: tokens.secret_file: is empty
        Leave the key out instead
    ");
    assert_snapshot!(errors(r#"tokens: {secret: "${NO_SUCH}"}"#), @r"
    gateway.yaml:1: tokens.secret: the environment variable NO_SUCH is not set
        Set NO_SUCH, or give a default: ${NO_SUCH:-default}
    ");
}

#[test]
fn algorithms_and_the_encryption_key() {
    for (text, algorithm) in [
        ("", Algorithm::Hs256),
        ("algorithm: HS256", Algorithm::Hs256),
        ("algorithm: EdDSA", Algorithm::EdDsa),
        ("algorithm: ES256", Algorithm::Es256),
        ("algorithm: \"${NO_SUCH:-RS256}\", secret: \"${SECRET}\"", Algorithm::Rs256),
    ] {
        assert_eq!(load(&format!("tokens: {{{text}}}")).tokens.algorithm, algorithm);
    }
    assert_eq!((load("").tokens.max_bytes, load("tokens: {max_bytes: 32KiB}").tokens.max_bytes), (8192, 32768));
    assert_snapshot!(errors("tokens: {max_bytes: 64KiB}"), @"gateway.yaml:1: tokens.max_bytes: must be from 1KiB to 32KiB");
    assert_snapshot!(errors("tokens: {algorithm: none}"), @r"
    gateway.yaml:1:21: tokens.algorithm: `none` is not possible here
        Possible are: HS256, EdDSA, Ed25519, ES256, RS256
    ");
    let config = load("store: {encryption_key: \"${SECRET}\"}");
    assert_eq!(config.store.encryption_key.unwrap().len(), 40);
    assert!(load("store: {encryption_key: null}").store.encryption_key.is_none());
    assert_snapshot!(errors("store: {encryption_key: x}"), @r"
    gateway.yaml:1: store.encryption_key: the key has 1 bytes; it needs 32 at least
        Make one with `openssl rand -base64 32`, and keep it apart from the database
    ");
    assert_snapshot!(errors("store: {encryption_key: x, encryption_key_file: y}"), @r"
    gateway.yaml:1: store.encryption_key_file: stands beside store.encryption_key
        Keep one of the two
    ");
    assert_snapshot!(errors("store: {encryption_key_file: /nonexistent/key}"), @"gateway.yaml:1: store.encryption_key_file: /nonexistent/key cannot be read: No such file or directory (os error 2)");
}

#[test]
fn a_wrong_typed_secret_is_not_quoted() {
    assert_snapshot!(errors("tokens: {secret: 4711471147114711}"), @r"
    gateway.yaml:1:18: tokens.secret: expected text, found a number
        Put it in quotes
    ");
    assert_snapshot!(errors("tokens: {secret: [hunter2]}"), @"gateway.yaml:1:18: tokens.secret: expected text, found a list");
    assert_snapshot!(errors("tokens: {secret: {hunter2: x}}"), @"gateway.yaml:1:18: tokens.secret: expected text, found a mapping");
    assert_snapshot!(errors("tokens: {secret: true}"), @r"
    gateway.yaml:1:18: tokens.secret: expected text, found a truth value
        Put it in quotes
    ");
    assert_snapshot!(errors("tokens: {secret: !hunter2 x}"), @r"
    gateway.yaml:1:18: tokens.secret: expected text, found something else
        Put it in quotes
    ");
    assert_snapshot!(errors("tokens: {secret: !!int hunter2}"), @"gateway.yaml:1:18: tokens.secret: expected an integer, found text");
    assert_snapshot!(errors("tokens: {secret: *hunter2}"), @r"
    gateway.yaml:1:18: no anchor has the name that stands here after `*`
        Text that begins with `*` goes in quotes
    ");
    assert_snapshot!(errors("tokens: hunter2"), @"gateway.yaml:1:9: tokens: expected a mapping, found text");
    assert_snapshot!(errors("tokens: [hunter2]"), @"gateway.yaml:1:9: tokens: expected a mapping, found a list");
    assert_snapshot!(errors("store: hunter2"), @r"
    gateway.yaml:1:8: store: expected a mapping, found text
        Write such as {url: sqlite:portcullis.db}
    ");
    assert_snapshot!(errors("tokens: {secret: null x: hunter2}"), @"gateway.yaml:1:24: did not find expected ',' or '}', while parsing a flow mapping at line 1 column 9");
}

#[test]
fn lifetimes() {
    assert_snapshot!(errors("tokens: {access_ttl: 2d, refresh_ttl: 1d}"), @r"
    gateway.yaml:1: tokens.access_ttl: 2d is longer than tokens.refresh_ttl, 1d
        A refresh token outlives the access tokens that it gets
    ");
    assert_snapshot!(errors("tokens: {access_ttl: 500ms}"), @"gateway.yaml:1: tokens.access_ttl: must be at least 1s");
    assert_snapshot!(errors("tokens: {leeway: 6m}"), @r"
    gateway.yaml:1: tokens.leeway: must be at most 5m
        It forgives clocks that differ; it is not a lifetime
    ");
    assert_snapshot!(errors(r#"tokens: {issuer: ""}"#), @r"
    gateway.yaml:1: tokens.issuer: is empty
        Leave the key out instead
    ");
    assert_snapshot!(errors(r#"tokens: {audience: "a\nb"}"#), @"gateway.yaml:1: tokens.audience: holds a control character");
}
