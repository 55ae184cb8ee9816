//! Environments of Python packages in target/, for the programs in Python that the tests talk to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::harness::{run, said};

/// The Python of an environment that holds `tests/NAME/requirements.txt`; made when it is not there yet.
#[track_caller]
pub fn python(name: &'static str) -> PathBuf {
    static MADE: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    // Held while one is made: two tests at once would spoil each other's.
    let mut made = MADE.lock().unwrap();
    made.entry(name).or_insert_with(|| make(name)).clone()
}

/// A source of `tests/NAME/`.
pub fn source(name: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name).join(file)
}

fn make(name: &str) -> PathBuf {
    let requirements = source(name, "requirements.txt");
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let python = environment.join("bin/python");
    let stamp = environment.join("requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).unwrap();
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return python;
    }
    for (program, arguments) in [
        ("python3".as_ref(), vec!["-m", "venv", environment.to_str().unwrap()]),
        (python.as_os_str(), vec!["-m", "pip", "install", "--quiet", "-r", requirements.to_str().unwrap()]),
    ] {
        let mut command = Command::new(program);
        command.args(&arguments);
        let done = run(command, "");
        assert!(
            done.status.success(),
            "the tests of tests/{name} need python3 with venv, and PyPI; this failed: {} {}\n{}",
            program.display(),
            arguments.join(" "),
            said(&done)
        );
    }
    std::fs::write(&stamp, wanted).unwrap();
    python
}
