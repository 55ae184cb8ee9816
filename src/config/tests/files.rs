//! The files that a configuration names, and the file itself.

use std::fs;
use std::path::PathBuf;

use insta::assert_snapshot;

use super::{env, load, parse};

#[test]
fn secret_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.yaml");
    let read = |bytes: &[u8]| {
        fs::write(folder.path().join("jwt"), bytes).unwrap();
        super::super::parse("tokens: {secret_file: jwt}", &path, &env)
    };
    let secret = "s".repeat(40);
    for ending in ["", "\n", "\r\n"] {
        let config = read(format!("{secret}{ending}").as_bytes()).unwrap();
        assert_eq!(config.tokens.secret.unwrap().expose(), secret.as_bytes(), "{ending:?}");
    }
    let config = read(format!("{secret}\n\n").as_bytes()).unwrap();
    assert_eq!(config.tokens.secret.unwrap().len(), 41);
    assert!(read(b"\n").unwrap_err().to_string().contains("the secret is empty"));
    assert!(read(&[b's'; 5000]).unwrap_err().to_string().contains("is larger than 4096 bytes"));
    assert!(read(b"short\n").unwrap_err().to_string().contains("5 bytes"));
}

#[test]
fn all_other_files_are_named_also_by_a_wrong_one() {
    let text = "tokens: {secret_file: jwt}\n\
        server:\n  listen: [{address: '127.0.0.1:1', tls: true}]\n\
        \x20 tls: {certificates: [{cert: a.pem, key: a.key}, {cert: b.pem, key: b.key}], client_ca: ca.pem}\n\
        upstreams: {app: {servers: ['https://h'], tls: {ca: up.pem}}}\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.yaml");
    let names = |files: &[PathBuf]| {
        let mut names: Vec<_> = files.iter().map(|path| path.strip_prefix(&folder).unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let all = ["a.key", "a.pem", "b.key", "b.pem", "ca.pem", "jwt", "up.pem"].map(PathBuf::from);
    let error = super::super::parse(text, &path, &env).unwrap_err();
    assert!(error.to_string().contains("jwt cannot be read"), "{error}");
    assert_eq!(names(error.files()), all);
    fs::write(folder.path().join("jwt"), [b's'; 40]).unwrap();
    assert_eq!(names(&super::super::parse(text, &path, &env).unwrap().files), all);
}

/// Whatever is wrong with it, and wherever it comes from.
#[test]
fn a_secret_is_never_shown() {
    let good = load("tokens: {secret: \"${SECRET}\"}");
    assert_eq!(good.tokens.secret.as_ref().unwrap().len(), 40);
    assert!(!format!("{good:?}").contains("inherited"));
    let file = super::super::file::File::parse("tokens: {secret: hunter2hunter2}").unwrap();
    assert!(!format!("{file:?}").contains("hunter2"));
    for value in [
        "hunter2",
        "\"${NO_SUCH:-hunter2}\"",
        "[hunter2]",
        "{hunter2: 1}",
        "!hunter2 x",
        "!!int hunter2",
        "!!null hunter2",
        "*hunter2",
        "\"hunter2\\q\"",
        "!!binary hunter2",
        "|\n    hunter2\n  x",
        "[hunter2",
    ] {
        for text in [
            format!("tokens:\n  secret: {value}\n"),
            format!("tokens: {value}\n"),
            format!("x: &x {{}}\ntokens:\n  <<: *x\n  secret: {value}\n"),
        ] {
            // What stands where a key belongs is quoted as a key.
            if let Err(error) =
                parse(&text).map_err(|error| error.to_string().replace("tokens.hunter2: there is no key `hunter2`", ""))
            {
                assert!(!error.contains("hunter2"), "{text}\n{error}");
            }
        }
    }
}

#[test]
fn a_file_that_is_not_utf_8_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.yaml");
    let read = || super::super::load(&path, &env).unwrap_err().to_string().replace(folder.path().to_str().unwrap(), "");
    assert_snapshot!(read(), @"/gateway.yaml: No such file or directory (os error 2); name the file with --config FILE (examples/minimal.yaml is one to begin with)");
    fs::write(&path, b"log: {level: \xff}").unwrap();
    assert_snapshot!(read(), @"/gateway.yaml: stream did not contain valid UTF-8");
}
