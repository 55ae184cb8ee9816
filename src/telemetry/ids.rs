//! `X-Request-Id` and `traceparent` (W3C Trace Context): kept when they are well-formed, made when they are not there.

/// The longest request id that is kept, in bytes.
const LONGEST: usize = 128;

/// Whether an inbound request id may stand in headers and logs as it is: 1 to 128 visible ASCII characters.
pub fn is_request_id(value: &[u8]) -> bool {
    (1..=LONGEST).contains(&value.len()) && value.iter().all(|byte| (0x21..=0x7e).contains(byte))
}

/// Whether an inbound trace context has the form of version 00: `00-<32 hex>-<16 hex>-<2 hex>`, ids not zero. Later
/// versions may be longer, and are kept.
pub fn is_traceparent(value: &[u8]) -> bool {
    let mut parts = value.splitn(4, |byte| *byte == b'-');
    let hex = |part: Option<&[u8]>, length: usize| {
        part.is_some_and(|part| {
            part.len() == length && part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let nonzero = |part: Option<&[u8]>| part.is_some_and(|part| part.iter().any(|byte| *byte != b'0'));
    let (version, trace, parent, rest) = (parts.next(), parts.next(), parts.next(), parts.next());
    let flags = match version {
        Some(b"00") => hex(rest, 2),
        Some(b"ff") | None => false,
        Some(_) => rest.is_some_and(|rest| rest.len() >= 2),
    };
    hex(version, 2) && hex(trace, 32) && hex(parent, 16) && nonzero(trace) && nonzero(parent) && flags
}

/// A random request id: 32 hexadecimal digits. Unique, not secret.
pub fn new_request_id() -> [u8; 32] {
    let mut text = [0; 32];
    write_hex(&mut text, fastrand::u128(1..));
    text
}

/// A trace context that begins here; sampled, so that whoever traces sees the whole way.
pub fn new_traceparent() -> [u8; 55] {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
    if let Some(trace) = text.get_mut(3..35) {
        write_hex(trace, fastrand::u128(1..));
    }
    if let Some(parent) = text.get_mut(36..52) {
        write_hex(parent, u128::from(fastrand::u64(1..)));
    }
    text
}

/// Fills `text` with the last digits of `number`.
fn write_hex(text: &mut [u8], mut number: u128) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for digit in text.iter_mut().rev() {
        *digit = DIGITS.get((number & 0xf) as usize).copied().unwrap_or_default();
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert!(is_request_id(&new_request_id()) && is_request_id(b"a-b_c"));
        assert!(!is_request_id(b"") && !is_request_id(b"a b") && !is_request_id(&[b'a'; 129]));
        assert!(is_traceparent(&new_traceparent()));
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good.as_bytes()));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(!is_traceparent(bad.as_bytes()), "{bad}");
        }
    }
}
