//! `identity`: the endpoints that the gateway answers itself.

use std::time::Duration;

use crate::config::file;
use crate::config::key::Key;
use crate::config::problem::{Fault, quote};
use crate::config::reader::Reader;
use crate::config::{Argon2, Attempts, Identity, Password, RefreshRotation, Registration, ResponseStyle, UsersAccess};

/// Below this product of KiB and passes a hash is weaker than what OWASP asks (7 MiB with 5 passes is the least).
const LEAST_WORK: u64 = 7 * 1024 * 5;

/// `identity`.
pub(super) fn identity(reader: &mut Reader<'_>, written: file::Identity) -> Identity {
    let key = Key::of("identity");
    let responses = match reader.choice(&key.name("responses"), written.responses, file::Responses::Standard) {
        file::Responses::Standard => ResponseStyle::Standard,
        file::Responses::Flask => ResponseStyle::Flask,
    };
    let registration = match reader.choice(&key.name("registration"), written.registration, file::Registration::Open) {
        file::Registration::Open => Registration::Open,
        file::Registration::Closed => Registration::Closed,
    };
    let users = match reader.choice(&key.name("users"), written.users, file::Users::Admin) {
        file::Users::Admin => UsersAccess::Admin,
        file::Users::Off => UsersAccess::Off,
        file::Users::Anyone => UsersAccess::Anyone,
    };
    if users == UsersAccess::Anyone {
        if responses == ResponseStyle::Flask {
            reader.warn(&key.name("users"), "anyone may list and delete all accounts, as in the tutorial");
        } else {
            let remedy = "Write admin or off, or set identity.responses to flask";
            reader.refuse(&key.name("users"), "`anyone` is for flask mode only", remedy);
        }
    }
    let prefix = written.prefix.and_then(|text| reader.parse(&key.name("prefix"), &text, parse_prefix));
    let password = password(reader, written.password.unwrap_or_default());
    let attempts = attempts(reader, written.attempts.unwrap_or_default());
    let cors =
        written.cors.and_then(|cors| super::cors::cors(reader, &key.name("cors").name("origins"), &cors.origins));
    let refresh_rotation = refresh_rotation(reader, written.refresh_rotation.unwrap_or_default());
    let prefix = prefix.unwrap_or_default();
    let sessions = reader.number(&key.name("sessions_per_account"), written.sessions_per_account, 100, 1..=10_000);
    let sessions_per_account = u32::try_from(sessions).unwrap_or(100);
    Identity {
        prefix,
        responses,
        registration,
        users,
        refresh_rotation,
        password,
        attempts,
        sessions_per_account,
        cors,
    }
}

fn parse_prefix(text: &str) -> Result<String, Fault> {
    let fits = |segment: &str| {
        let plain = segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
        plain && !matches!(segment, "" | "." | "..")
    };
    match text.strip_prefix('/') {
        None if text.is_empty() => Ok(String::new()),
        None => Err(Fault::new(format!("{} does not begin with `/`", quote(text)), "Write such as /auth")),
        Some("") => Err(Fault::new("is just `/`", "Leave it empty")),
        Some(rest) if rest.ends_with('/') => {
            let shorter = text.trim_end_matches('/');
            Err(Fault::new(format!("{} ends with `/`", quote(text)), format!("Write {}", quote(shorter))))
        }
        Some(rest) if rest.split('/').all(fits) => Ok(text.to_owned()),
        Some(_) => {
            let remedy = "Its segments have the characters A-Z a-z 0-9 - . _ ~ only, and are not `.` or `..`";
            Err(Fault::new(format!("{} is not a plain path", quote(text)), remedy))
        }
    }
}

fn refresh_rotation(reader: &mut Reader<'_>, written: file::RefreshRotation) -> Option<RefreshRotation> {
    let key = Key::of("identity.refresh_rotation.grace");
    let second = Duration::from_secs(1);
    let grace = reader.duration(&key, written.grace, 10 * second, Duration::ZERO);
    if grace > 300 * second {
        reader.refuse(&key, "must be at most 5m", "It is for requests that race; a stolen token is good for as long");
    }
    written.enabled.unwrap_or(false).then_some(RefreshRotation { grace })
}

fn password(reader: &mut Reader<'_>, written: file::Password) -> Password {
    let key = Key::of("identity.password");
    let min_length = reader.number(&key.name("min_length"), written.min_length, 8, 1..=1024);
    Password {
        min_length: usize::try_from(min_length).unwrap_or(8),
        argon2: argon2(reader, &key.name("argon2"), written.argon2.unwrap_or_default()),
    }
}

fn attempts(reader: &mut Reader<'_>, written: file::Attempts) -> Attempts {
    let key = Key::of("identity.attempts");
    Attempts {
        per_account: reader.rate_or_off(&key.name("per_account"), written.per_account, "5/15m"),
        per_address: reader.rate_or_off(&key.name("per_address"), written.per_address, "50/5m"),
    }
}

fn argon2(reader: &mut Reader<'_>, key: &Key, written: file::Argon2) -> Argon2 {
    let memory = reader.size(&key.name("memory"), written.memory, 19 << 20, 8 << 10..=4 << 30) / 1024;
    let iterations = reader.number(&key.name("iterations"), written.iterations, 2, 1..=1000);
    let parallelism = reader.number(&key.name("parallelism"), written.parallelism, 1, 1..=64);
    if memory < 8 * parallelism {
        let message = format!("{memory}KiB is too little for {parallelism} lanes");
        reader.refuse(&key.name("memory"), message, format!("Give 8KiB a lane at least: {}KiB", 8 * parallelism));
    } else if memory * iterations < LEAST_WORK {
        reader.warn(
            key,
            "these passwords are cheap to guess for whoever gets the database; the default is 19MiB and 2 iterations",
        );
    }
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Argon2 { memory_kib: small(memory), iterations: small(iterations), parallelism: small(parallelism) }
}
