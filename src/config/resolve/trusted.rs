//! `tokens.trusted`: other issuers, and what verifies their tokens.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

use super::{proxy, secret, tokens};
use crate::config::file;
use crate::config::host;
use crate::config::key::Key;
use crate::config::problem::{Fault, quote};
use crate::config::reader::Reader;
use crate::config::scalar::{Hidden, Text};
use crate::config::shorthand::Texts;
use crate::config::{KeySetUrl, LOCAL, ResponseStyle, Trusted, TrustedKeys};

/// `alg` of tokens that are verified with a public key.
const PUBLIC: [&str; 10] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "Ed25519"];

/// `alg` of tokens that are verified with a shared secret.
const SHARED: [&str; 3] = ["HS256", "HS384", "HS512"];

/// The largest key set, in bytes.
const LARGEST: u64 = 1024 * 1024;

const ONE_SOURCE: &str = "Give one of jwks_url, jwks_file and secret";

/// `tokens.trusted`; `own` is what our tokens name as their issuer.
pub(super) fn trusted(
    reader: &mut Reader<'_>,
    written: Vec<file::Trusted>,
    own: Option<&str>,
    style: ResponseStyle,
) -> Vec<Trusted> {
    let mut all: Vec<Trusted> = Vec::new();
    for (index, entry) in written.into_iter().enumerate() {
        let key = Key::of("tokens.trusted").index(index);
        let taken = |name: &str| all.iter().any(|other| other.issuer == name);
        let issuer = reader.parse(&key.name("issuer"), &entry.issuer, |name| match name {
            "" => Err(Fault::new("is empty", "Write the `iss` of its tokens")),
            LOCAL => Err(Fault::new("`local` stands for the gateway's own tokens", "Write the `iss` of its tokens")),
            _ if name.contains(char::is_control) => Err(Fault::new("holds a control character", "")),
            _ if own == Some(name) => Err(Fault::new(
                format!("{} is tokens.issuer", quote(name)),
                "Nobody else may issue tokens in our name: give one of the two another name",
            )),
            _ if taken(name) => Err(Fault::new(format!("{} stands twice", quote(name)), "Keep one of the two")),
            _ => Ok(name.to_owned()),
        });
        let ca = reader.path(&key.name("ca"), entry.ca.as_ref());
        let keys = (entry.jwks_url.as_ref(), entry.jwks_file.as_ref());
        let mut keys = keys_of(reader, &key, keys, (entry.secret, entry.secret_file), style);
        match &mut keys {
            Some(TrustedKeys::Url(url)) if url.tls => url.ca = ca,
            Some(_) if ca.is_some() => {
                reader.refuse(&key.name("ca"), "has no effect", "It is for a jwks_url that begins with https://");
            }
            Some(_) | None => {}
        }
        let audience = audience(reader, &key, entry.audience, keys.is_some());
        let audience_claim = claim(reader, &key.name("audience_claim"), entry.audience_claim.as_ref(), "aud");
        if audience.is_empty() && entry.audience_claim.is_some() {
            let remedy = "Name the audience that its tokens must be for";
            reader.refuse(&key.name("audience_claim"), "has no effect without `audience`", remedy);
        }
        let possible: &[&str] = if matches!(keys, Some(TrustedKeys::Secret(_))) { &SHARED } else { &PUBLIC };
        let algorithms = algorithms(reader, &key.name("algorithms"), entry.algorithms, possible);
        let subject_claim = claim(reader, &key.name("subject_claim"), entry.subject_claim.as_ref(), "sub");
        let roles_claim = claim(reader, &key.name("roles_claim"), entry.roles_claim.as_ref(), "roles");
        if let (Some(issuer), Some(keys)) = (issuer, keys) {
            all.push(Trusted { issuer, keys, audience, audience_claim, algorithms, subject_claim, roles_claim });
        }
    }
    all
}

fn audience(reader: &mut Reader<'_>, key: &Key, written: Option<Texts>, has_keys: bool) -> Vec<String> {
    let place = key.name("audience");
    match written {
        None => {
            if has_keys {
                let why = "without `audience`, tokens that this issuer made for any other application are taken too";
                reader.warn(key, why);
            }
            Vec::new()
        }
        Some(Texts::One(text)) => reader.line_of_text(&place, Some(&text)).into_iter().collect(),
        Some(Texts::Many(texts)) => {
            if texts.is_empty() {
                let remedy = "Leave the key out for any audience";
                reader.refuse(&place, "is an empty list, so that no token could be good", remedy);
            }
            let each = texts.iter().enumerate();
            each.filter_map(|(index, text)| reader.line_of_text(&place.index(index), Some(text))).collect()
        }
    }
}

fn claim(reader: &mut Reader<'_>, key: &Key, written: Option<&Text>, default: &str) -> String {
    reader.line_of_text(key, written).unwrap_or_else(|| default.to_owned())
}

fn keys_of(
    reader: &mut Reader<'_>,
    key: &Key,
    (url, file): (Option<&Text>, Option<&Text>),
    (value, value_file): (Option<Hidden>, Option<Text>),
    style: ResponseStyle,
) -> Option<TrustedKeys> {
    let shared = value.is_some() || value_file.is_some();
    match (url, file, shared) {
        (Some(url), None, false) => {
            let key = key.name("jwks_url");
            let mut url = reader.parse(&key, url, parse_url)?;
            let loopback = url.host == "localhost" || url.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
            if !url.tls && !loopback {
                reader.warn(&key, "is fetched without TLS: whoever sits between can make tokens that are taken here");
            }
            if url.tls {
                url.proxy = proxy::proxy(reader, &key, (&url.host, url.port));
            }
            Some(TrustedKeys::Url(url))
        }
        (None, Some(file), false) => {
            let key = key.name("jwks_file");
            let path = reader.path(&key, Some(file))?;
            let set = reader.accept(&key, read_set(&path))?;
            Some(TrustedKeys::Set(set))
        }
        (None, None, true) => {
            let (key, secret) =
                secret::either(reader, key.name("secret"), key.name("secret_file"), (value, value_file))?;
            tokens::check_length(reader, &key, &secret, style);
            Some(TrustedKeys::Secret(secret))
        }
        (None, None, false) => {
            reader.refuse(key, "there is nothing to verify its tokens with", ONE_SOURCE);
            None
        }
        _ => {
            reader.refuse(key, "its tokens are verified with more than one thing", ONE_SOURCE);
            None
        }
    }
}

/// The text of a key set; whether its keys can be used is found out when they are.
fn read_set(path: &Path) -> Result<String, Fault> {
    let shown = path.display();
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text));
    match read {
        Err(error) => Err(Fault::new(format!("{shown} cannot be read: {error}"), "")),
        Ok(_) if text.len() as u64 > LARGEST => Err(Fault::new(format!("{shown} is larger than 1MiB"), "")),
        Ok(_) => match serde_json::from_str::<serde_json::Value>(text.trim_start_matches('\u{feff}')) {
            Ok(set) if set.get("keys").is_some_and(serde_json::Value::is_array) => Ok(text),
            _ => Err(Fault::new(format!("{shown} is no JSON Web Key Set"), "It looks like {\"keys\": [...]}")),
        },
    }
}

fn parse_url(text: &str) -> Result<KeySetUrl, Fault> {
    let write = "Write such as https://id.example.com/.well-known/jwks.json";
    let plain = text.bytes().all(|b| (0x21..0x7f).contains(&b) && !b"\"<>\\^`{|}#".contains(&b));
    let (scheme, rest) = text.split_once("://").filter(|_| plain).ok_or_else(|| Fault::new("is not a URL", write))?;
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(at);
    let (host, port, tls) = host::parse_server(&format!("{scheme}://{authority}"))?;
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    Ok(KeySetUrl { text: text.to_owned(), tls, host, port, target, ca: None, proxy: None })
}

fn algorithms(reader: &mut Reader<'_>, key: &Key, written: Option<Vec<Text>>, possible: &[&str]) -> Vec<String> {
    let Some(written) = written else { return Vec::new() };
    if written.is_empty() {
        reader.refuse(key, "is an empty list, so that no token could be good", "Leave it out for what fits the key");
    }
    let parse = |name: &str| match possible.contains(&name) {
        // RFC 9864: one algorithm, two names.
        true if name == "Ed25519" => Ok("EdDSA".to_owned()),
        true => Ok(name.to_owned()),
        false => {
            let message = format!("{} is not possible here", quote(name));
            Err(Fault::new(message, format!("Possible are: {}", possible.join(", "))))
        }
    };
    written.iter().enumerate().filter_map(|(index, text)| reader.parse(&key.index(index), text, parse)).collect()
}
