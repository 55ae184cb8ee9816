//! Addresses as their owners hold them.

use std::net::IpAddr;

/// An address; of IPv6 its first 64 bits, because one customer has all the others. IPv4 within IPv6 is IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Household {
    /// One address.
    V4([u8; 4]),
    /// A network of them.
    V6([u8; 8]),
}

impl Household {
    /// Where `address` lives.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => Self::V6(address.octets().first_chunk().copied().unwrap_or_default()),
        }
    }

    /// Four or eight bytes, of which no two households have the same.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::V4(bytes) => bytes,
            Self::V6(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_one() {
        let of = |address: &str| Household::of(address.parse().unwrap());
        for (one, other, same) in [
            ("1.2.3.4", "1.2.3.4", true),
            ("1.2.3.4", "1.2.3.5", false),
            ("1.2.3.4", "::ffff:1.2.3.4", true),
            ("2001:db8::1", "2001:db8::ffff:0:0:2", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            // The same bits as an IPv4 address.
            ("1.2.3.4", "0:0:102:304::", false),
        ] {
            assert_eq!(of(one) == of(other), same, "{one} {other}");
            assert_eq!(of(one).bytes() == of(other).bytes(), same, "{one} {other}");
        }
    }
}
