//! Canonical paths: tables, properties, and what an RFC 3986 server could read.

use proptest::prelude::*;

use super::*;

fn refusal(raw: &str) -> PathError {
    match Path::parse(raw) {
        Err(error) => error,
        Ok(path) => panic!("{raw:?} became {path:?}"),
    }
}

#[test]
fn unchanged() {
    for raw in [
        "/",
        "/secret",
        "/secret/",
        "/a/b/c",
        "/a%20b",
        "/a;b=c",
        "/%E4%BD%A0",
        "/caf%C3%A9",
        "/caf%c3%a9",
        "/café",
        "/a+b",
        "/a:b@c",
        "/100%25",
        "/100%2525",
        "/100%25ff",
        "/100%25users",
        "/x%3Fy",
        "/x%23y",
        "/~user",
        "/a%26b",
        "/a%2Bb",
        "/file.name",
        "/.well-known/x",
        "/...",
        "/a..b",
        "/..a",
        "/a..",
        "/.a",
        "/;x",
        "/a;b/c",
        "/a%2fb",
        "/a%2Fb",
        "/{x}|^`",
        "/a/.+",
        "/v/.%2B",
        "/.+/x",
        "/你好。",
        "/%E4%BD%A0%E3%80%82",
        "/1⁄2",
        "/a+",
        "/+",
        "/%20",
        "/a!$&'()*,=b",
        "/%3b",
        "/https:%2F%2Fexample.com%2Fa",
        "/%F0%9F%98%80",
        "/.git%2fx",
        "/a%2f.git",
        "/a;",
        "/;",
        "/..a;b",
        "/%2f",
        "/a%2500",
    ] {
        let path = Path::parse(raw).unwrap_or_else(|error| panic!("{raw}: {error}"));
        assert_eq!(path.as_str(), raw);
        assert!(path.is_unchanged(), "{raw}");
    }
}

#[test]
fn canonical() {
    for (raw, canonical) in [
        ("//", "/"),
        ("///a//b//", "/a/b/"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/.", "/"),
        ("/a/b/../../c", "/c"),
        ("/a//../b", "/b"),
        ("/%73ecret", "/secret"),
        ("/%2e/a", "/a"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/file%2Ename", "/file.name"),
        ("/%7euser", "/~user"),
        ("/a%2db%5fc", "/a-b_c"),
        ("/%41%2f%c3%a9%2F", "/A%2f%c3%a9%2F"),
        ("/a%2fb/../c", "/c"),
        ("/a;x/../b", "/b"),
        ("/é//ü", "/é/ü"),
    ] {
        let path = Path::parse(raw).unwrap_or_else(|error| panic!("{raw}: {error}"));
        assert_eq!(path.as_str(), canonical, "{raw}");
        assert!(!path.is_unchanged(), "{raw}");
    }
    assert!(!Path::parse("/a%2fb/../c").unwrap().has_encoded_slash(), "what was removed is not sent");
}

#[test]
fn refused() {
    use PathError::*;
    for (why, targets) in [
        (NotRooted, &["", "a", "*", "./a", "%2fa", "http://a/b", ";", "\\a"] as &[_]),
        (AboveRoot, &["/..", "/../a", "/a/../..", "/%2e%2e/a", "/a/../../b", "//..", "/./../a"]),
        (
            HiddenDots,
            &["/..;", "/..;x/a", "/a/..;x=y", "/.;x", "/.;/a", "/a/..;/../b", "/%2e%2e;/a", "/..%3b/a", "/..%3bx"],
        ),
        (
            HiddenDots,
            &["/a%2f..", "/..%2fa", "/a%2F..%2Fb", "/a%2f.%2fb", "/a%2f..;b", "/;%2f..", "/..;%2fa", "/a%2f%2e%2e"],
        ),
        (
            HiddenDots,
            &["/..%20", "/%20..", "/..+/a", "/.+.", "/.%20.", "/..%2b", "/..%2520", "/..%2509", "/..%25ff", "/..%253b"],
        ),
        (HiddenDots, &["/。。/a", "/.。", "/%e3%80%82%E3%80%82", "/‥", "/․․", "/..∕a", "/a⁄..", "/..%2fa%2f..%2fb"]),
        (EncodedTwice, &["/%252e%252e/a", "/a%252fb", "/%255c", "/a%252Eb", "/%25252e", "/a%25%32fb", "/%25%2532fa"]),
        (EncodedTwice, &["/..%25c0%25af", "/a%25u002fb", "/%25uFF0E", "/a%25EF%25BC%258Fb", "/%2525252f"]),
        (Backslash, &["/\\", "/a\\..\\b", "/%5c", "/%5C", "/..%5ca"]),
        (
            Control,
            &["/%00", "/a%0a", "/%1f", "/%7f", "/a\0", "/a\n", "/\u{7f}", "/a b", "/%C2%85", "/\u{85}", "/%0D/.."],
        ),
        (Delimiter, &["/a?b", "/a#b", "/?"]),
        (PercentU, &["/%u002e", "/%U002F", "/a%u"]),
        (Percent, &["/%", "/%2", "/%zz", "/a%2", "/%%32e", "/%+1", "/%2 "]),
        (
            Utf8,
            &["/%ff", "/%c0%af", "/%c0%ae%c0%ae/a", "/%C3/%A9", "/%e0%80%af", "/%ED%A0%80", "/%C3", "/a%80", "/é%A9"],
        ),
        (Fullwidth, &["/．．/a", "/／", "/a＼b", "/%ef%bc%8e", "/%EF%BC%8F", "/a%EF%BC%BCb", "/a％．%25"]),
    ] {
        for raw in targets {
            assert_eq!(refusal(raw), why, "{raw:?}");
        }
    }
    assert_eq!(Path::parse_bytes(b"/\xc0\xaf"), Err(Utf8));
    assert_eq!(Path::parse_bytes(b"/\xff"), Err(Utf8));
    assert_eq!(Path::parse_bytes(b"/caf\xc3\xa9").unwrap().as_str(), "/café");
}

#[test]
fn readings() {
    for (raw, readings) in [
        ("/a", &[] as &[_]),
        ("/a/../b", &[]),
        ("/a;b", &["/a"]),
        ("/a;b/c;d/e", &["/a/c/e"]),
        ("/a;b/", &["/a/"]),
        ("/;/secret", &["/secret"]),
        ("/a/;x", &["/a/"]),
        ("/;", &["/"]),
        ("/a%3bb", &[]),
        ("/a%2fb", &["/a/b"]),
        ("/a%2F%2fb", &["/a/b"]),
        ("/a/%2f/b", &["/a/b"]),
        ("/%2fa%2F", &["/a/"]),
        ("/a%2fb;c", &["/a%2fb", "/a/b;c", "/a/b"]),
        ("/a;b%2fc", &["/a", "/a;b/c", "/a/c"]),
        ("/a%2fb;c%2fd", &["/a%2fb", "/a/b;c/d", "/a/b/d", "/a/b"]),
    ] {
        let path = Path::parse(raw).unwrap();
        assert_eq!(path.other_readings(), readings, "{raw}");
        assert_eq!(path.has_encoded_slash(), raw.to_lowercase().contains("%2f"), "{raw}");
    }
}

#[test]
fn long_paths_take_linear_time() {
    let nested = format!("/{}", "%25".repeat(20_000));
    let climbing = format!("{}{}", "/a".repeat(20_000), "/..".repeat(20_000));
    let slashes = format!("/{}", "%2f;".repeat(20_000));
    assert_eq!(Path::parse(&climbing).unwrap().as_str(), "/");
    assert!(Path::parse(&nested).is_ok());
    assert!(Path::parse(&slashes).unwrap().other_readings().len() <= 4);
}

/// Paths made of what matters to a path.
pub(in crate::gate) fn any_path() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "/",
        "/",
        "/",
        ".",
        "..",
        "a",
        "b",
        "secret",
        "%2e",
        "%2E",
        "%2f",
        "%2F",
        ";",
        ";x",
        "%3b",
        "%25",
        "2e",
        "25",
        "%20",
        "+",
        "%2b",
        "é",
        "%c3%a9",
        "%C3%A9",
        "%73",
        "。",
        "%E3%80%82",
        "%2509",
        "%5f",
        "~",
        "%7E",
    ]);
    prop::collection::vec(pieces, 0..10).prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn check_canonical(text: &str) {
    let segments: Vec<_> = text.split('/').collect();
    assert_eq!(segments.first(), Some(&""), "{text:?} is rooted");
    for segment in &segments {
        assert!(!matches!(*segment, "." | ".."), "a dot segment in {text:?}");
    }
    assert!(!text.contains("//"), "{text:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn never_panics(raw in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(path) = Path::parse_bytes(&raw) {
            path.other_readings();
        }
        let rooted = [b"/", raw.as_slice()].concat();
        if let Ok(path) = Path::parse_bytes(&rooted) {
            path.other_readings();
        }
    }

    #[test]
    fn canonical_is_canonical(raw in any_path()) {
        if let Ok(path) = Path::parse(&raw) {
            let text = path.as_str();
            check_canonical(text);
            let decodable = (0x21..0x7f).filter(|&byte| is_unreserved(byte)).any(|byte| {
                text.to_ascii_lowercase().contains(&format!("%{byte:02x}"))
            });
            prop_assert!(!decodable, "{}", text);
            prop_assert_eq!(path.is_unchanged(), text == raw);
            let again = Path::parse(text);
            prop_assert!(again.as_ref().is_ok_and(Path::is_unchanged), "{} became {:?}", text, again);
            for reading in path.other_readings() {
                check_canonical(&reading);
                prop_assert_ne!(reading, text);
            }
        }
    }

    /// However often a server decodes, whether it cuts or drops blanks: no dot segment is left to be found.
    #[test]
    fn no_dots_appear_later(raw in any_path()) {
        if let Ok(path) = Path::parse(&raw) {
            let mut text = path.as_str().as_bytes().to_vec();
            for _ in 0..4 {
                for segment in text.split(|byte| matches!(byte, b'/' | b'\\')) {
                    let cut = segment.split(|&byte| byte == b';').next().unwrap();
                    prop_assert!(!matches!(cut, b"." | b".."), "{} in {}", text.escape_ascii(), path.as_str());
                    let packed: Vec<u8> = cut.iter().copied().filter(|byte| !b"\0\t\n\r +\xff".contains(byte)).collect();
                    prop_assert_ne!(packed.as_slice(), b"..", "{} in {}", text.escape_ascii(), path.as_str());
                }
                text = decode(&text);
            }
        }
    }
}
