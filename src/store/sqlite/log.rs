//! The write-ahead log on the disk: noticed when it is truncated or overwritten under the running program.
//!
//! SQLite finds its place in the log by shared memory and trusts what it reads there. Until the log starts anew its
//! header and each frame that ends a transaction stay as they are, and the checksum of such a frame covers all frames before
//! it. So the header and the newest such frame are compared. SQLite's file format, section 4, has the layout. No lock
//! lies on this file: unlike the main file it may be opened and closed.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Where the parts lie in the two headers.
const PAGE_SIZE: std::ops::Range<usize> = 8..12;
const SALTS: std::ops::Range<usize> = 16..24;
const FRAME_PAGES: std::ops::Range<usize> = 4..8;
const FRAME_SALTS: std::ops::Range<usize> = 8..16;

/// How often a log is read that seems overwritten: SQLite may be writing these very bytes.
const ATTEMPTS: u32 = 3;

/// The frame that ends a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Commit {
    /// Counts frames from 0.
    number: u64,
    header: [u8; FRAME_HEADER],
}

/// What has become of the log since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// What it held is still there.
    Continued,
    /// It starts anew: what it held must be in the main file.
    Restarted,
    /// What it held is gone.
    Overwritten,
}

/// What the last look has found.
#[derive(Debug, Default)]
pub(super) struct Log {
    file: Option<File>,
    header: Option<[u8; HEADER]>,
    commit: Option<Commit>,
    /// The end of a transaction that has failed after it was written: SQLite will write over it.
    void: Option<Commit>,
}

impl Log {
    /// Looks at the log at `path`. One that cannot be read is not judged: SQLite meets the error itself.
    pub fn look(&mut self, path: &Path) -> Change {
        if self.open(path).is_err() {
            return Change::Continued;
        }
        let mut change = self.compare().unwrap_or(Change::Continued);
        for _ in 1..ATTEMPTS {
            if change != Change::Overwritten {
                break;
            }
            std::thread::yield_now();
            change = self.compare().unwrap_or(Change::Continued);
        }
        change
    }

    /// How many frames are in it, up to the end of the newest transaction.
    pub fn frames(&self) -> u64 {
        self.commit.map_or(0, |commit| commit.number + 1)
    }

    /// The frames of a transaction that has failed do not count; before it there were so many.
    pub fn forget_after(&mut self, frames: u64) {
        if self.frames() <= frames && self.advance().is_err() {
            return;
        }
        if let Some(failed) = self.commit.filter(|commit| commit.number >= frames) {
            self.void = Some(failed);
            self.commit = frames.checked_sub(1).and_then(|number| {
                let header = self.frame(number).ok().flatten()?;
                Some(Commit { number, header })
            });
        }
    }

    fn open(&mut self, path: &Path) -> io::Result<()> {
        let found = std::fs::metadata(path)?;
        let is_same =
            |file: &File| file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()));
        if !self.file.as_ref().is_some_and(is_same) {
            *self = Self { file: Some(File::open(path)?), ..Self::default() };
        }
        Ok(())
    }

    fn compare(&mut self) -> io::Result<Change> {
        let header: Option<[u8; HEADER]> = self.read(0)?;
        if header != self.header {
            let held_any = self.commit.is_some();
            (self.header, self.commit, self.void) = (header, None, None);
            self.advance()?;
            return Ok(if held_any { Change::Restarted } else { Change::Continued });
        }
        if let Some(commit) = self.commit
            && self.frame(commit.number)? != Some(commit.header)
        {
            return Ok(Change::Overwritten);
        }
        self.advance()?;
        Ok(Change::Continued)
    }

    /// Goes on to the end of the newest transaction.
    fn advance(&mut self) -> io::Result<()> {
        let Some(salts) = self.header.and_then(|header| header.get(SALTS).map(<[u8]>::to_vec)) else { return Ok(()) };
        let mut number = self.frames();
        while let Some(header) = self.frame(number)? {
            let found = Commit { number, header };
            // Behind the end lie frames from before the log started anew, which have other salts.
            if header.get(FRAME_SALTS) != Some(&salts) || self.void == Some(found) {
                break;
            }
            if header.get(FRAME_PAGES).is_some_and(|pages| pages != [0; 4]) {
                self.commit = Some(found);
            }
            number += 1;
        }
        Ok(())
    }

    fn frame(&self, number: u64) -> io::Result<Option<[u8; FRAME_HEADER]>> {
        let size = self.header.and_then(|header| header.get(PAGE_SIZE)?.try_into().ok().map(u32::from_be_bytes));
        let Some(size) = size else { return Ok(None) };
        self.read(HEADER as u64 + number * (FRAME_HEADER as u64 + u64::from(size)))
    }

    /// `None`: the file ends before.
    fn read<const N: usize>(&self, at: u64) -> io::Result<Option<[u8; N]>> {
        let Some(file) = &self.file else { return Ok(None) };
        let mut bytes = [0; N];
        match file.read_exact_at(&mut bytes, at) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}
