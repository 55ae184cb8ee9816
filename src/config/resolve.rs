//! From the file as written to a valid [`Config`], with every error of meaning on the way.

mod server;
mod listen;
mod secret;
mod tokens;
mod trusted;
mod proxy;
mod identity;
mod headers;
mod upstreams;
mod routes;
mod cors;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{self, File};
use super::key::Key;
use super::problem::{Fault, Problem};
use super::reader::{Notes, Reader};
use super::scalar::{Hidden, Text};
use super::{AuditTarget, Config, Log, LogFormat, LogLevel, OnStale, Store, StoreLocation};
use crate::secret::Secret;

/// Of `store.encryption_key`, in bytes.
const LEAST_ENCRYPTION_KEY: usize = 32;

/// Why there is no [`Config`].
pub(super) struct Wrong {
    /// All that is wrong, in the order of the file.
    pub problems: Vec<Problem>,
    /// The files that are named beside it.
    pub files: Vec<PathBuf>,
}

/// Checks `file`, whose text is `text`. Relative paths start from `folder`; `env` looks up variables.
///
/// # Errors
/// All that is wrong.
pub(super) fn resolve(
    file: File,
    text: &str,
    folder: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Wrong> {
    let mut reader = Reader::new(text, folder, env);
    let server = server::server(&mut reader, file.server.unwrap_or_default());
    let mut admin = file.admin.unwrap_or_default();
    let admin_access = server::admin_access(&mut reader, (admin.allow.take(), admin.hosts.take()));
    let admin = listen::admin(&mut reader, admin, &server.listen);
    let log = log(&mut reader, file.log.unwrap_or_default());
    let store = store(&mut reader, file.store.unwrap_or_default());
    let identity = identity::identity(&mut reader, file.identity.unwrap_or_default());
    let tokens = tokens::tokens(&mut reader, file.tokens.unwrap_or_default(), identity.responses);
    if server.limits.header_bytes <= tokens.max_bytes {
        let message =
            "tokens of this length do not fit into server.limits.header_bytes, which counts all header fields";
        reader.warn(&Key::of("tokens.max_bytes"), message);
    }
    let identity_headers = headers::identity_headers(&mut reader, file.identity_headers.unwrap_or_default());
    let upstreams = upstreams::upstreams(&mut reader, file.upstreams.unwrap_or_default());
    let around = routes::Around { upstreams: &upstreams, tokens: &tokens };
    let routes = routes::routes(&mut reader, file.routes.unwrap_or_default(), &around);
    let Notes { problems, warnings, files } = reader.finish();
    if !problems.is_empty() {
        return Err(Wrong { problems, files });
    }
    Ok(Config {
        server,
        admin,
        admin_access,
        log,
        store,
        tokens,
        identity,
        identity_headers,
        upstreams,
        routes,
        warnings,
        files,
    })
}

fn log(reader: &mut Reader<'_>, log: file::Log) -> Log {
    let format = reader.choice(&Key::of("log.format"), log.format, file::LogFormat::Auto);
    let level = reader.choice(&Key::of("log.level"), log.level, file::LogLevel::Info);
    Log {
        format: match format {
            file::LogFormat::Auto => LogFormat::Auto,
            file::LogFormat::Text => LogFormat::Text,
            file::LogFormat::Json => LogFormat::Json,
        },
        level: match level {
            file::LogLevel::Error => LogLevel::Error,
            file::LogLevel::Warn => LogLevel::Warn,
            file::LogLevel::Info => LogLevel::Info,
            file::LogLevel::Debug => LogLevel::Debug,
            file::LogLevel::Trace => LogLevel::Trace,
        },
        access: log.access.unwrap_or(true),
        audit: log.audit.map_or(AuditTarget::Log, |audit| audit_target(reader, &audit)),
    }
}

/// The file is not noted as one that makes the configuration: it changes all the time.
fn audit_target(reader: &mut Reader<'_>, audit: &Text) -> AuditTarget {
    let named = reader.parse(&Key::of("log.audit"), audit, |text| match text {
        "log" => Ok(None),
        _ if text.is_empty() || text.ends_with('/') || text.contains(char::is_control) => {
            Err(Fault::new("does not name a file", "Write log, or a path such as /var/log/portcullis/audit.log"))
        }
        _ => Ok(Some(text.to_owned())),
    });
    named.flatten().map_or(AuditTarget::Log, |path| AuditTarget::File(reader.folder().join(path)))
}

fn store(reader: &mut Reader<'_>, store: file::Store) -> Store {
    let url = store.url.unwrap_or_else(|| Text("sqlite:portcullis.db".into()));
    let path = reader.parse(&Key::of("store.url"), &url, sqlite_path).unwrap_or_default();
    let second = Duration::from_secs(1);
    Store {
        location: StoreLocation::Sqlite(reader.folder().join(path)),
        max_stale: reader.duration(&Key::of("store.max_stale"), store.max_stale, 30 * second, second),
        on_stale: match reader.choice(&Key::of("store.on_stale"), store.on_stale, file::OnStale::Refuse) {
            file::OnStale::Refuse => OnStale::Refuse,
            file::OnStale::Serve => OnStale::Serve,
        },
        encryption_key: encryption_key(reader, store.encryption_key, store.encryption_key_file),
    }
}

/// Too short a key could be guessed by whoever has the database.
fn encryption_key(reader: &mut Reader<'_>, value: Option<Hidden>, file: Option<Text>) -> Option<Secret> {
    let keys = (Key::of("store.encryption_key"), Key::of("store.encryption_key_file"));
    let (key, secret) = secret::either(reader, keys.0, keys.1, (value, file))?;
    if secret.len() < LEAST_ENCRYPTION_KEY {
        let message = format!("the key has {} bytes; it needs {LEAST_ENCRYPTION_KEY} at least", secret.len());
        reader.refuse(&key, message, "Make one with `openssl rand -base64 32`, and keep it apart from the database");
    }
    Some(secret)
}

/// The path in `sqlite:PATH`. The URL may hold a password, so that it is never repeated.
fn sqlite_path(url: &str) -> Result<String, Fault> {
    let write = "Write sqlite:PATH, such as sqlite:portcullis.db or sqlite:/var/lib/portcullis/portcullis.db";
    let Some((scheme, path)) = url.split_once(':') else {
        return Err(Fault::new("does not begin with `sqlite:`", write));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "sqlite" => {}
        "postgres" | "postgresql" => {
            return Err(Fault::new("PostgreSQL is not supported by this version, which has SQLite only", write));
        }
        _ => return Err(Fault::new("is not the URL of a store", write)),
    }
    if path == ":memory:" || path.contains("mode=memory") {
        return Err(Fault::new("a store in memory would forget every logout at a restart", write));
    }
    if path.starts_with("//") {
        return Err(Fault::new("`sqlite://` can be read in two ways", write));
    }
    if path.contains('?') || path.starts_with("file:") {
        return Err(Fault::new("options for SQLite are not possible here", write));
    }
    if path.is_empty() || path.ends_with('/') || path.contains(char::is_control) {
        return Err(Fault::new("does not name a file", write));
    }
    Ok(path.to_owned())
}
