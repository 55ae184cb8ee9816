//! Secrets: in the file itself, or in one of their own that a `…_file` key names.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::config::key::Key;
use crate::config::reader::Reader;
use crate::config::scalar::{Hidden, Text};
use crate::secret::Secret;

/// The largest secret file, in bytes.
const LARGEST: usize = 4096;

/// The secret that stands at `key`, or in the file that its twin `key_file` names; and which of the two it was.
pub(super) fn either(
    reader: &mut Reader<'_>,
    key: Key,
    twin: Key,
    (value, file): (Option<Hidden>, Option<Text>),
) -> Option<(Key, Secret)> {
    match (value, file) {
        (None, None) => None,
        (Some(_), Some(_)) => {
            reader.refuse(&twin, format!("stands beside {key}"), "Keep one of the two");
            None
        }
        (Some(Hidden(secret)), None) => {
            let text = String::from_utf8_lossy(secret.expose());
            let expanded = reader.expand(&key, &text)?;
            Some((key, Secret::new(expanded)))
        }
        (None, Some(path)) => {
            let secret = read_file(reader, &twin, &path)?;
            Some((twin, secret))
        }
    }
}

fn read_file(reader: &mut Reader<'_>, key: &Key, path: &Text) -> Option<Secret> {
    let written = reader.line_of_text(key, Some(path))?;
    let path = reader.file(&written);
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
        // Whoever takes this key for the other one should not find his secret in the log.
        Err(error) if is_like_a_secret(&written, &path) => {
            let remedy = "It takes the path of a file; a secret itself goes to the key without `_file`";
            reader.refuse(key, format!("the file that it names cannot be read: {error}"), remedy);
            None
        }
        Err(error) => {
            let remedy = reader.start_of(&written);
            reader.refuse(key, format!("{shown} cannot be read: {error}"), remedy);
            None
        }
    }
}

/// Long, in no folder that there is, and with the digits and letters of hex or base64 rather than words.
fn is_like_a_secret(written: &str, path: &Path) -> bool {
    let in_folder = written.contains('/') && path.parent().is_some_and(Path::is_dir);
    let has = |kind: fn(&u8) -> bool| written.as_bytes().iter().any(kind);
    let random = has(u8::is_ascii_digit) && (has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase));
    let hex = written.bytes().all(|byte| byte.is_ascii_hexdigit());
    written.len() >= 24 && !written.starts_with('/') && !written.contains('.') && !in_folder && (random || hex)
}

/// At most a byte more than [`LARGEST`]: a device would never end.
fn read_bounded(path: &Path) -> std::io::Result<Secret> {
    let mut bytes = Vec::with_capacity(LARGEST + 1);
    File::open(path)?.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Secret::new(bytes))
}
