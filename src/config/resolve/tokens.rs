//! `tokens`: the secret and the lifetimes.

use std::time::Duration;

use super::secret;
use crate::config::file;
use crate::config::key::Key;
use crate::config::reader::Reader;
use crate::config::scalar::{Hidden, Text};
use crate::config::units::show_duration;
use crate::config::{Algorithm, ResponseStyle, Tokens};
use crate::secret::Secret;

/// An HMAC key shorter than its hash weakens it (RFC 7518 3.2).
const LEAST: usize = 32;

/// The largest `tokens.max_bytes`.
const MAX_TOKEN_BYTES: u64 = 32 << 10;

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
    let algorithm = match reader.choice(&key.name("algorithm"), written.algorithm, file::Algorithm::Hs256) {
        file::Algorithm::Hs256 => Algorithm::Hs256,
        file::Algorithm::EdDsa | file::Algorithm::Ed25519 => Algorithm::EdDsa,
        file::Algorithm::Es256 => Algorithm::Es256,
        file::Algorithm::Rs256 => Algorithm::Rs256,
    };
    let max_bytes = reader.size(&key.name("max_bytes"), written.max_bytes, 8 << 10, 1 << 10..=MAX_TOKEN_BYTES);
    let issuer = reader.line_of_text(&key.name("issuer"), written.issuer.as_ref());
    let trusted = super::trusted::trusted(reader, written.trusted.unwrap_or_default(), issuer.as_deref(), style);
    Tokens {
        secret,
        algorithm,
        access_ttl,
        refresh_ttl,
        leeway,
        issuer,
        audience: reader.line_of_text(&key.name("audience"), written.audience.as_ref()),
        max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
        trusted,
    }
}

fn secret(reader: &mut Reader<'_>, value: Option<Hidden>, file: Option<Text>, style: ResponseStyle) -> Option<Secret> {
    let (key, secret) = secret::either(reader, Key::of("tokens.secret"), Key::of("tokens.secret_file"), (value, file))?;
    check_length(reader, &key, &secret, style);
    Some(secret)
}

/// Whether an HMAC secret is long enough, or as short as flask mode allows.
pub(super) fn check_length(reader: &mut Reader<'_>, key: &Key, secret: &Secret, style: ResponseStyle) {
    if secret.is_empty() {
        reader.refuse(key, "the secret is empty", LONGER);
    } else if secret.len() < LEAST {
        let message = format!("the secret has {} bytes; HS256 needs {LEAST} at least", secret.len());
        match style {
            ResponseStyle::Standard => reader.refuse(key, message, LONGER),
            ResponseStyle::Flask => {
                let why = "It is taken because identity.responses is flask and the tutorial's own is as short. \
                           Whoever has one token can guess such a secret offline, and then be anyone";
                reader.warn(key, format!("{message}. {why}. {LONGER}"));
            }
        }
    }
}
