//! The write-ahead log on the disk: noticed when it is truncated or overwritten under the running program.
//!
//! SQLite finds its place in the log by shared memory and trusts what it reads there. Until the log starts anew its
//! header and each frame that ends a transaction stay as they are, and the checksum of such a frame covers all frames before
//! it. So the header and the newest such frame are compared, and with them the header of the shared memory. SQLite's file
//! format, section 4, and its WAL-mode file format, section 2.1, have the layouts. No lock lies on the log: unlike the main
//! file it may be opened and closed. The file of the shared memory carries locks: it is opened once and closed when no
//! connection is open.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Where the parts lie in the two headers.
const PAGE_SIZE: std::ops::Range<usize> = 8..12;
const SALTS: std::ops::Range<usize> = 16..24;
const FRAME_PAGES: std::ops::Range<usize> = 4..8;
const FRAME_SALTS: std::ops::Range<usize> = 8..16;

/// The header of the shared memory stands there twice. Its numbers have the byte order of the machine, but the salts.
const INDEX_HEADER: usize = 48;
const INDEX_FRAMES: std::ops::Range<usize> = 16..20;
const INDEX_SALTS: std::ops::Range<usize> = 32..40;

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
    index: Option<File>,
    /// The salts and the number of frames in the shared memory.
    indexed: Option<(Vec<u8>, u32)>,
    header: Option<[u8; HEADER]>,
    commit: Option<Commit>,
    /// The end of a transaction that has failed after it was written: SQLite will write over it.
    void: Option<Commit>,
}

impl Log {
    /// Looks at the log and the shared memory at `paths`, with a connection open. What cannot be read is not judged: SQLite
    /// meets the error itself.
    pub fn look(&mut self, paths: &[PathBuf; 2]) -> Change {
        let [log, index] = paths;
        if self.open(log).is_err() {
            return Change::Continued;
        }
        if self.index.is_none() {
            self.index = File::open(index).ok();
        }
        let mut change = Change::Continued;
        for _ in 0..ATTEMPTS {
            let found = self.compare().unwrap_or(Change::Continued);
            if found == Change::Restarted {
                change = found;
            }
            let is_sound = found != Change::Overwritten && self.is_indexed().unwrap_or(true);
            if is_sound {
                return change;
            }
            std::thread::yield_now();
        }
        Change::Overwritten
    }

    /// Whether the shared memory belongs to the log as it is, and has all that it had. What a transaction under way has
    /// written is not in it yet.
    fn is_indexed(&mut self) -> io::Result<bool> {
        let (Some(file), Some(header)) = (&self.index, &self.header) else { return Ok(true) };
        let mut twice = [0; 2 * INDEX_HEADER];
        file.read_exact_at(&mut twice, 0)?;
        let (index, copy) = twice.split_at(INDEX_HEADER);
        let part = |range| index.get(range).unwrap_or_default();
        let frames = part(INDEX_FRAMES).try_into().map_or(0, u32::from_ne_bytes);
        // Where a log is about to start anew, there is no frame, and it may not have the salts yet.
        let is_of_log = frames == 0 || header.get(SALTS) == Some(part(INDEX_SALTS));
        let has_lost =
            self.indexed.as_ref().is_some_and(|(salts, known)| salts == part(INDEX_SALTS) && frames < *known);
        if index != copy || !is_of_log || has_lost {
            return Ok(false);
        }
        self.indexed = Some((part(INDEX_SALTS).to_vec(), frames));
        Ok(true)
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
            *self = Self { file: Some(File::open(path)?), index: self.index.take(), indexed: None, ..Self::default() };
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
