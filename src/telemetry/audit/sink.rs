//! Where audit lines go: through the log, or to the end of a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::config::AuditTarget;
use crate::telemetry::audit::Line;
use crate::telemetry::log::Shape;
use crate::telemetry::output::{self, Output, append_after};

/// Why the file of `log.audit` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system says no.
    #[error("log.audit: {}: {source}; the file and its folder must be writable", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is something else.
    #[error("log.audit: {}: this is no regular file; name another one", path.display())]
    NoFile {
        /// What there is.
        path: PathBuf,
    },
}

/// An open end.
pub struct Sink(Kind);

enum Kind {
    /// Where the log goes.
    Log(Output, Shape),
    /// Standard error: a command's output is for the one who gave it.
    Errors(Shape),
    /// JSON lines; whether the last one broke off.
    File { file: File, torn: bool },
}

impl Sink {
    /// That of the gateway; `output` and `shape` are its log's.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(target: &AuditTarget, output: &Output, shape: Shape) -> Result<Self, Error> {
        match target {
            AuditTarget::Log => Ok(Self(Kind::Log(output.clone(), shape))),
            AuditTarget::File(path) => Self::open_file(path),
        }
    }

    fn open_file(path: &Path) -> Result<Self, Error> {
        open(path, true).map(|file| Self(Kind::File { file, torn: false }))
    }

    /// That of a command.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn of_command(target: &AuditTarget, shape: Shape) -> Result<Self, Error> {
        match target {
            AuditTarget::Log => Ok(Self(Kind::Errors(shape))),
            AuditTarget::File(path) => Self::open_file(path),
        }
    }

    /// Writes one line, as a whole: other processes may write to the same end. The log's output counts its losses itself.
    ///
    /// # Errors
    /// The system's; a part of the line may have been written.
    pub fn write(&mut self, line: &Line) -> io::Result<()> {
        match &mut self.0 {
            Kind::Log(output, shape) => {
                output.write(output::Kind::Audit, line.write(*shape));
                Ok(())
            }
            Kind::Errors(shape) => io::stderr().lock().write_all(line.write(*shape).as_bytes()),
            Kind::File { file, torn } => {
                append_after(file, *torn, line.write(Shape::Json).as_bytes()).map_err(|(began, error)| {
                    *torn |= began;
                    error
                })?;
                *torn = false;
                Ok(())
            }
        }
    }
}

/// Whether the file can be opened, as far as that can be told without making it.
///
/// # Errors
/// It cannot.
pub fn check(target: &AuditTarget) -> Result<(), Error> {
    let AuditTarget::File(path) = target else { return Ok(()) };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    match open(path, false) {
        Err(Error::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound && folder.is_dir() => Ok(()),
        opened => opened.map(drop),
    }
}

fn open(path: &Path, make: bool) -> Result<File, Error> {
    // A FIFO would be waited for.
    if path.metadata().is_ok_and(|meta| !meta.is_file()) {
        return Err(Error::NoFile { path: path.into() });
    }
    // What it tells is for the operator alone.
    let opened = OpenOptions::new().append(true).create(make).mode(0o600).open(path);
    opened.map_err(|source| Error::Open { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixTime;
    use crate::telemetry::audit::{About, Actor, Event, Outcome};

    #[test]
    fn a_line_that_broke_off_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        std::fs::write(&path, r#"{"timest"#).unwrap();
        let file = open(&path, true).unwrap();
        let mut sink = Sink(Kind::File { file, torn: true });
        let about = About::default();
        for _ in 0..2 {
            let (event, actor) = (Event::UserAdd, Actor::Command("root"));
            sink.write(&Line::new(UnixTime::from_secs(0), event, Outcome::Success, actor, &about)).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines.len(), lines[0]), (3, r#"{"timest"#));
        assert!(lines[1..].iter().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{text}");
    }

    #[test]
    fn only_regular_files() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| AuditTarget::File(folder.path().join(name));
        assert!(check(&at("new.log")).is_ok() && !folder.path().join("new.log").exists());
        assert!(matches!(check(&at("none/new.log")), Err(Error::Open { .. })));
        assert!(matches!(check(&AuditTarget::File(folder.path().into())), Err(Error::NoFile { .. })));
        assert!(matches!(Sink::open_file(Path::new("/dev/null")), Err(Error::NoFile { .. })));
    }
}
