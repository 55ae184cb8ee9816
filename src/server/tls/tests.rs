//! Pairs good and bad, and which certificate a name gets.

use std::fs;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use rustls::sign::CertifiedKey;
use tempfile::TempDir;

use super::*;

struct Pair {
    cert: String,
    key: String,
}

fn pair_with(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    change(&mut params);
    Pair { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

fn pair(names: &[&str]) -> Pair {
    pair_with(names, |_| {})
}

fn tls(folder: &TempDir, files: &[(&str, &str)], certificates: &[(&str, &str)], client_ca: Option<&str>) -> Tls {
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let at = |name: &str| folder.path().join(name);
    let certificates = certificates.iter().map(|(cert, key)| Certificate { cert: at(cert), key: at(key) }).collect();
    Tls { certificates, client_ca: client_ca.map(at) }
}

/// What loading says, the folder's name left out.
fn refusal(files: &[(&str, &str)], certificates: &[(&str, &str)], client_ca: Option<&str>) -> String {
    let folder = tempfile::tempdir().unwrap();
    match Acceptor::load(&tls(&folder, files, certificates, client_ca)) {
        Ok(_) => "taken".into(),
        Err(error) => error.to_string().replace(&format!("{}/", folder.path().display()), ""),
    }
}

#[test]
fn an_error_names_key_file_and_remedy() {
    let (one, two) = (pair(&["one.test"]), pair(&["two.test"]));
    let files = [
        ("one.pem", one.cert.as_str()),
        ("one.key", one.key.as_str()),
        ("two.pem", two.cert.as_str()),
        ("two.key", two.key.as_str()),
        ("empty", ""),
        ("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n"),
        ("broken.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
    ];
    let good = ("one.pem", "one.key");
    assert_eq!(refusal(&files, &[good, ("two.pem", "two.key")], Some("two.pem")), "taken");
    let told = |certificates: &[(&str, &str)], client_ca| refusal(&files, certificates, client_ca);
    insta::assert_snapshot!(told(&[good, ("two.pem", "one.key")], None), @"server.tls.certificates[1].key: one.key: is not the key of two.pem; name the two files of one pair, the server's own certificate first in its file");
    insta::assert_snapshot!(told(&[("none.pem", "one.key")], None), @"server.tls.certificates[0].cert: none.pem: No such file or directory (os error 2); it must be there and readable by this process");
    insta::assert_snapshot!(told(&[("one.pem", "none.key")], None), @"server.tls.certificates[0].key: none.key: No such file or directory (os error 2); it must be there and readable by this process");
    insta::assert_snapshot!(told(&[("empty", "one.key")], None), @"server.tls.certificates[0].cert: empty: holds no certificate; give PEM, which begins with -----BEGIN CERTIFICATE-----");
    insta::assert_snapshot!(told(&[("cut.pem", "one.key")], None), @"server.tls.certificates[0].cert: cut.pem: holds no certificate; give PEM, which begins with -----BEGIN CERTIFICATE-----");
    insta::assert_snapshot!(told(&[("one.pem", "two.pem")], None), @"server.tls.certificates[0].key: two.pem: holds no private key; give one in PEM, without a passphrase (`openssl pkey -in KEY -out PLAIN` takes it off)");
    insta::assert_snapshot!(told(&[("one.pem", "broken.key")], None), @"server.tls.certificates[0].key: broken.key: unexpected error: failed to parse private key as RSA, ECDSA, or EdDSA; RSA of 2048 bits or more, ECDSA on P-256, P-384 or P-521, and Ed25519 are taken");
    insta::assert_snapshot!(told(&[("broken.pem", "one.key")], None), @"server.tls.certificates[0].cert: broken.pem: invalid peer certificate: BadEncoding; give an X.509 certificate of version 3");
    insta::assert_snapshot!(told(&[good], Some("empty")), @"server.tls.client_ca: empty: holds no certificate; give PEM, which begins with -----BEGIN CERTIFICATE-----");
    insta::assert_snapshot!(told(&[good], Some("broken.pem")), @"server.tls.client_ca: broken.pem: invalid peer certificate: BadEncoding; give the certificates of authorities, in PEM");
}

#[test]
fn a_certificate_out_of_its_time_is_taken() {
    let expired = pair_with(&["one.test"], |params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    assert_eq!(refusal(&[("c", &expired.cert), ("k", &expired.key)], &[("c", "k")], None), "taken");
    let der = CertificateDer::from_pem_slice(expired.cert.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(expired.key.as_bytes()).unwrap();
    let provider = aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(vec![der], key, &provider).unwrap();
    let (early, late) = (Some("is not valid yet"), Some("has expired"));
    for (seconds, expected) in [(978_307_199, early), (978_307_200, None), (1_009_843_200, None), (1_009_843_201, late)]
    {
        assert_eq!(misfit_in_time(&certified, clock::UnixTime::from_secs(seconds), &provider), expected, "{seconds}");
    }
}

fn certified(names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> Arc<CertifiedKey> {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let cert = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = aws_lc_rs::default_provider();
    Arc::new(CertifiedKey::from_der(vec![cert.der().clone()], key, &provider).unwrap())
}

#[test]
fn the_name_chooses_the_certificate() {
    let ecdsa = &PKCS_ECDSA_P256_SHA256;
    let all = Certificates(vec![
        certified(&["first.test"], ecdsa),
        certified(&["*.site.test"], ecdsa),
        certified(&["www.site.test", "site.test"], ecdsa),
        certified(&["both.test"], &PKCS_ED25519),
        certified(&["both.test"], ecdsa),
    ]);
    let index = |name: Option<&str>, scheme| {
        let found = all.find(name, &[scheme]).unwrap();
        all.0.iter().position(|one| Arc::ptr_eq(one, found)).unwrap()
    };
    let (p256, ed25519) = (SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519);
    for (name, scheme, expected) in [
        (None, p256, 0),
        (Some("first.test"), p256, 0),
        (Some("FIRST.test"), p256, 0),
        (Some("unknown.test"), p256, 0),
        (Some("a.site.test"), p256, 1),
        (Some("www.site.test"), p256, 2),
        (Some("site.test"), p256, 2),
        (Some("a.b.site.test"), p256, 0),
        (Some("localhost"), p256, 0),
        (Some("both.test"), ed25519, 3),
        (Some("both.test"), p256, 4),
        // Nothing fits: the handshake fails with the right certificate, not with a stranger's.
        (Some("both.test"), SignatureScheme::RSA_PSS_SHA256, 3),
    ] {
        assert_eq!(index(name, scheme), expected, "{name:?} {scheme:?}");
    }
    assert!(Certificates(Vec::new()).find(None, &[p256]).is_none());
}
