//! File permissions of the database: only its owner, or a group that may also write, has access.
//!
//! Files are changed by path and never opened here: closing one would drop the locks that SQLite holds on it in this
//! process.

use std::fmt;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The bits of a mode that chmod sets.
const MODE: u32 = 0o7777;

/// All rights of the group.
const GROUP: u32 = 0o070;

/// The right that makes a file shared with its group on purpose.
const GROUP_WRITE: u32 = 0o020;

/// All rights of users who are neither the owner nor in the group.
const OTHERS: u32 = 0o007;

/// A file of the database that gives more rights than it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// Which file: the database, its write-ahead log or the index of that.
    pub path: PathBuf,
    /// Its mode.
    pub mode: u32,
    /// The mode without the rights that are too many.
    pub wanted: u32,
    /// The user that may change it, beside root.
    pub owner: u32,
}

impl Exposed {
    /// `None` for a file that is missing, not regular, or as it should be.
    fn find(path: PathBuf) -> Option<Self> {
        let found = path.symlink_metadata().ok().filter(std::fs::Metadata::is_file)?;
        let (mode, owner) = (found.mode() & MODE, found.uid());
        let wanted = restrict(mode);
        (wanted != mode).then_some(Self { path, mode, wanted, owner })
    }

    /// Who has access that should not have it.
    pub fn readers(&self) -> &'static str {
        if self.mode & OTHERS == 0 { "the group of the file" } else { "every user of this machine" }
    }
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: mode {:04o} -> {:04o}", self.path.display(), self.mode, self.wanted)
    }
}

/// The mode without the rights of others, and without those of a group that may only read.
fn restrict(mode: u32) -> u32 {
    let excess = if mode & GROUP_WRITE == 0 { GROUP | OTHERS } else { OTHERS };
    mode & !excess
}

/// The write-ahead log (`-wal`) or its index (`-shm`).
pub(super) fn companion(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Files of the database that give too many rights. `database` must be canonical, so that it is no symbolic link.
pub(super) fn find_exposed(database: &Path) -> Vec<Exposed> {
    // The database first: SQLite gives its mode to the files that it makes beside it.
    let files = [database.to_owned(), companion(database, "-wal"), companion(database, "-shm")];
    files.into_iter().filter_map(Exposed::find).collect()
}

/// Takes the rights away that are too many; a warning for each thing that was done or could not be done.
pub(super) fn tighten(database: &Path) -> Vec<String> {
    let (mut changed, mut warnings) = (Vec::new(), Vec::new());
    for exposed in find_exposed(database) {
        match std::fs::set_permissions(&exposed.path, Permissions::from_mode(exposed.wanted)) {
            Ok(()) => changed.push(exposed.to_string()),
            Err(error) => {
                let (path, readers) = (exposed.path.display(), exposed.readers());
                let (mode, wanted) = (exposed.mode, exposed.wanted);
                warnings.push(format!(
                    "store.url: {readers} has access to {path} (mode {mode:04o}), and the mode cannot be changed: {error}; \
                     run `chmod {wanted:o} {path}` as its owner"
                ));
            }
        }
    }
    if !changed.is_empty() {
        let files = changed.join(", ");
        warnings.push(format!("store.url: other users had access to the database; modes were changed: {files}"));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_loses_the_rights_that_are_too_many() {
        for (mode, wanted) in [
            (0o600, 0o600),
            (0o400, 0o400),
            (0o644, 0o600),
            (0o640, 0o600),
            (0o604, 0o600),
            (0o602, 0o600),
            (0o755, 0o700),
            (0o660, 0o660),
            (0o664, 0o660),
            (0o666, 0o660),
            (0o777, 0o770),
            (0o2664, 0o2660),
        ] {
            assert_eq!(restrict(mode), wanted, "{mode:04o}");
        }
    }

    #[test]
    fn all_files_of_the_database_are_tightened_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().canonicalize().unwrap().join(name);
        let mode = |name: &str| at(name).metadata().unwrap().mode() & MODE;
        let all = ["a.db", "a.db-wal", "a.db-shm", "other"];
        for name in all {
            std::fs::write(at(name), "").unwrap();
            std::fs::set_permissions(at(name), Permissions::from_mode(0o664)).unwrap();
        }
        std::fs::set_permissions(at("a.db-wal"), Permissions::from_mode(0o644)).unwrap();
        tighten(&at("a.db"));
        assert_eq!(all.map(mode), [0o660, 0o600, 0o660, 0o664]);
        assert!(find_exposed(&at("a.db")).is_empty());
        // The target of a link is a file of another purpose.
        std::fs::remove_file(at("a.db-wal")).unwrap();
        std::os::unix::fs::symlink(at("other"), at("a.db-wal")).unwrap();
        tighten(&at("a.db"));
        assert_eq!(mode("other"), 0o664);
    }
}
