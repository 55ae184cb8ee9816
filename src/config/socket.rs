//! The paths of UNIX sockets: `unix:/run/portcullis.sock`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::problem::{Fault, quote};

/// The longest path that the kernel takes, in bytes: one of its 108 is for the NUL at the end.
const LONGEST: usize = 107;

/// The path behind `unix:`, from `folder` when it is relative.
pub(super) fn parse(path: &str, folder: &Path) -> Result<PathBuf, Fault> {
    let write = "Write unix:PATH, such as unix:/run/app.sock";
    if path.starts_with("//") {
        return Err(Fault::new("`unix://` can be read in two ways", write));
    }
    if path.starts_with('@') {
        let message = format!("{} looks like an abstract socket, which anyone on the machine may open", quote(path));
        return Err(Fault::new(message, write));
    }
    if path.is_empty() || path.ends_with('/') || path.contains(char::is_control) {
        return Err(Fault::new("does not name a socket", write));
    }
    let path = folder.join(path);
    let length = path.as_os_str().as_bytes().len();
    if length > LONGEST {
        let message = format!("the path has {length} bytes; a UNIX socket has {LONGEST} at most");
        return Err(Fault::new(message, "Choose a shorter one, such as unix:/run/app.sock"));
    }
    Ok(path)
}
