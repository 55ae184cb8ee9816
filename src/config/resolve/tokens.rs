//! `tokens`: the secret and the lifetimes.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use crate::config::file;
use crate::config::key::Key;
use crate::config::reader::Reader;
use crate::config::scalar::{Hidden, Text};
use crate::config::units::show_duration;
use crate::config::{ResponseStyle, Tokens};
use crate::secret::Secret;

/// An HMAC key shorter than its hash weakens it (RFC 7518 3.2).
const LEAST: usize = 32;

/// The largest secret file, in bytes.
const LARGEST: usize = 4096;

const LONGER: &str = "Make one with `openssl rand -base64 48`, or leave it out to have one made and kept in the store";

/// `tokens`. The style of answers decides how a short secret is met.
pub(super) fn tokens(reader: &mut Reader<'_>, written: file::Tokens, style: ResponseStyle) -> Tokens {
    let key = Key::of("tokens");
    let secret = secret(reader, written.secret, written.secret_file, style);
    let second = Duration::from_secs(1);
    let access_ttl = reader.duration(&key.name("access_ttl"), written.access_ttl, 15 * 60 * second, second);
    let refresh_ttl = reader.duration(&key.name("refresh_ttl"), written.refresh_ttl, 30 * 86_400 * second, second);
    if access_ttl > refresh_ttl {
        let (access, refresh) = (show_duration(access_ttl), show_duration(refresh_ttl));
        let message = format!("{access} is longer than tokens.refresh_ttl, {refresh}");
        reader.refuse(&key.name("access_ttl"), message, "A refresh token outlives the access tokens that it gets");
    }
    let leeway = reader.duration(&key.name("leeway"), written.leeway, 30 * second, Duration::ZERO);
    if leeway > 300 * second {
        reader.refuse(
            &key.name("leeway"),
            "must be at most 5m",
            "It forgives clocks that differ; it is not a lifetime",
        );
    }
    Tokens {
        secret,
        access_ttl,
        refresh_ttl,
        leeway,
        issuer: reader.line_of_text(&key.name("issuer"), written.issuer.as_ref()),
        audience: reader.line_of_text(&key.name("audience"), written.audience.as_ref()),
    }
}

fn secret(reader: &mut Reader<'_>, secret: Option<Hidden>, file: Option<Text>, style: ResponseStyle) -> Option<Secret> {
    let (key, secret) = match (secret, file) {
        (None, None) => return None,
        (Some(_), Some(_)) => {
            let key = Key::of("tokens.secret_file");
            reader.refuse(&key, "stands beside tokens.secret", "Keep one of the two");
            return None;
        }
        (Some(Hidden(secret)), None) => {
            let key = Key::of("tokens.secret");
            let text = String::from_utf8_lossy(secret.expose());
            let expanded = reader.expand(&key, &text)?;
            (key, Secret::new(expanded))
        }
        (None, Some(path)) => {
            let key = Key::of("tokens.secret_file");
            let secret = read_file(reader, &key, &path)?;
            (key, secret)
        }
    };
    if secret.is_empty() {
        reader.refuse(&key, "the secret is empty", LONGER);
    } else if secret.len() < LEAST {
        let message = format!("the secret has {} bytes; HS256 needs {LEAST} at least", secret.len());
        match style {
            ResponseStyle::Standard => reader.refuse(&key, message, LONGER),
            ResponseStyle::Flask => {
                let why = "It is taken because identity.responses is flask and the tutorial's own is as short. \
                           Whoever has one token can guess such a secret offline, and then be anyone";
                reader.warn(&key, format!("{message}. {why}. {LONGER}"));
            }
        }
    }
    Some(secret)
}

fn read_file(reader: &mut Reader<'_>, key: &Key, path: &Text) -> Option<Secret> {
    let path = reader.line_of_text(key, Some(path))?;
    let path = reader.file(path);
    let shown = path.display();
    match read_bounded(&path) {
        Ok(all) if all.len() > LARGEST => {
            reader.refuse(
                key,
                format!("{shown} is larger than {LARGEST} bytes"),
                "It holds the secret and nothing else",
            );
            None
        }
        Ok(all) => {
            let line = all.expose();
            let line = line.strip_suffix(b"\n").map_or(line, |line| line.strip_suffix(b"\r").unwrap_or(line));
            Some(Secret::new(line))
        }
        Err(error) => {
            reader.refuse(key, format!("{shown} cannot be read: {error}"), "");
            None
        }
    }
}

/// At most a byte more than [`LARGEST`]: a device would never end.
fn read_bounded(path: &Path) -> std::io::Result<Secret> {
    let mut bytes = Vec::with_capacity(LARGEST + 1);
    File::open(path)?.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Secret::new(bytes))
}
