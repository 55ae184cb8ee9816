//! Whether the system can read the files of a database.
//!
//! They are opened once and never closed: closing any descriptor of a file drops the locks that SQLite holds on it.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How much of a file is read.
const READ_MAX: u64 = 256 << 20;

/// How much is read at once.
const CHUNK: usize = 1 << 20;

/// How many files may be kept open.
const FILES_MAX: usize = 16;

/// For how long an answer holds.
const ANSWER_AGE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Default)]
pub(super) struct Disk {
    files: Vec<File>,
    answer: Option<(Instant, Option<String>)>,
}

impl Disk {
    /// Reads the files at `paths`; the first error that the system gives.
    pub fn find_read_error<'a>(&mut self, paths: impl Iterator<Item = &'a PathBuf>, now: Instant) -> Option<String> {
        if let Some((at, answer)) = &self.answer
            && now.saturating_duration_since(*at) < ANSWER_AGE
        {
            return answer.clone();
        }
        let answer = paths.into_iter().find_map(|path| self.read(path).err()).map(|error| error.to_string());
        self.answer = Some((now, answer.clone()));
        answer
    }

    fn read(&mut self, path: &PathBuf) -> io::Result<()> {
        let Ok(found) = std::fs::metadata(path) else { return Ok(()) };
        let is_same =
            |file: &File| file.metadata().is_ok_and(|own| own.dev() == found.dev() && own.ino() == found.ino());
        if !self.files.iter().any(is_same) {
            if self.files.len() >= FILES_MAX {
                return Ok(());
            }
            self.files.push(File::open(path)?);
        }
        let Some(file) = self.files.iter().find(|file| is_same(file)) else { return Ok(()) };
        let (mut at, mut chunk) = (0, vec![0; CHUNK]);
        while at < READ_MAX {
            match file.read_at(&mut chunk, at)? {
                0 => break,
                length => at += length as u64,
            }
        }
        Ok(())
    }
}
