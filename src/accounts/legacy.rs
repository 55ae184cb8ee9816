//! Password hashes that other programs made, as an import brings them: passlib's and Werkzeug's. They are verified here,
//! never made: the next login replaces them.

use std::num::NonZeroU32;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::pbkdf2;
use base64::Engine;
use base64::alphabet::Alphabet;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::NO_PAD;

use crate::secret::Secret;

// While an account has an old hash, a wrong password costs that as well, whosever it is (see `password.rs`): so none may
// cost more than about a fifth of a second of a processor.

/// The most iterations of PBKDF2: twice what Werkzeug writes today.
const MOST_ITERATIONS: u32 = 2_000_000;

/// The same with SHA-512, of which each takes nearly four times as long: many times what passlib writes.
const MOST_ITERATIONS_SHA512: u32 = 600_000;

/// The most memory of scrypt, in bytes, and the most work (N · r · p): twice what Werkzeug writes.
const MOST_MEMORY: u64 = 64 << 20;
const MOST_WORK: u64 = 1 << 19;

/// The most that scrypt may spread out before and gather after that work (r · p), which N does not count.
const MOST_SPREAD: u64 = 1024;

/// Blocks of fewer parts cost as much as blocks of so many: most of it is the way to the memory.
const LEAST_BLOCK: u32 = 8;

/// The longest salt, in bytes: passlib's limit.
const MOST_SALT: usize = 1024;

/// The length of Werkzeug's scrypt digests, in bytes.
const SCRYPT_DIGEST: usize = 64;

/// passlib's `ab64`: base64 without padding, and with `.` in the place of `+`.
const AB64: Option<GeneralPurpose> =
    match Alphabet::new("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789./") {
        Ok(alphabet) => Some(GeneralPurpose::new(&alphabet, NO_PAD)),
        Err(_) => None,
    };

/// Why a hash cannot be used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Neither passlib's nor Werkzeug's, or one of theirs that is not made any more.
    #[error(
        "its password hash is of a kind that is not known here (known: $pbkdf2…$ of passlib, pbkdf2: and scrypt: of Werkzeug)"
    )]
    Unknown,
    /// Of a known kind, but cut off or damaged.
    #[error("its password hash is damaged")]
    Damaged,
    /// Verifying it would keep a hashing thread for too long.
    #[error(
        "its password hash costs too much to verify (at most {MOST_ITERATIONS} iterations, with SHA-512 \
         {MOST_ITERATIONS_SHA512}; of scrypt 64 MiB, and twice the work of 32768:8:1)"
    )]
    TooCostly,
}

/// How passwords are hashed.
enum Scheme {
    Pbkdf2 { algorithm: pbkdf2::Algorithm, iterations: NonZeroU32 },
    Scrypt(scrypt::Params),
}

/// One hash of another program, whole and within the limits.
pub struct Legacy {
    scheme: Scheme,
    salt: Vec<u8>,
    digest: Vec<u8>,
}

impl Legacy {
    /// Reads `$pbkdf2-sha256$29000$SALT$DIGEST` and the like (passlib), `pbkdf2:sha256:600000$SALT$HEX` and
    /// `scrypt:32768:8:1$SALT$HEX` (Werkzeug). A digest must be whole: a cut one would accept other passwords too.
    ///
    /// # Errors
    /// [`Unusable`], saying why.
    pub fn parse(text: &str) -> Result<Self, Unusable> {
        let found = match text.strip_prefix('$') {
            Some(rest) => Self::of_passlib(rest),
            None => Self::of_werkzeug(text),
        }?;
        if found.salt.len() > MOST_SALT {
            return Err(Unusable::Damaged);
        }
        Ok(found)
    }

    fn of_passlib(text: &str) -> Result<Self, Unusable> {
        let mut parts = text.split('$');
        let function = match parts.next() {
            Some("pbkdf2") => hmac("sha1"),
            Some(name) => name.strip_prefix("pbkdf2-").filter(|name| *name != "sha1").and_then(hmac),
            None => None,
        }
        .ok_or(Unusable::Unknown)?;
        let [Some(iterations), Some(salt), Some(digest), None] = [(); 4].map(|()| parts.next()) else {
            return Err(Unusable::Damaged);
        };
        let decode = |text| AB64.and_then(|engine| engine.decode(text).ok()).ok_or(Unusable::Damaged);
        let scheme = function.scheme(iterations)?;
        let (salt, digest) = (decode(salt)?, decode(digest)?);
        Self { scheme, salt, digest }.of_length(function.length)
    }

    fn of_werkzeug(text: &str) -> Result<Self, Unusable> {
        let (method, rest) = text.split_once('$').ok_or(Unusable::Unknown)?;
        let method: Vec<&str> = method.split(':').collect();
        let (scheme, length) = match method[..] {
            ["pbkdf2", name, iterations] => {
                let function = hmac(name).ok_or(Unusable::Unknown)?;
                (function.scheme(iterations)?, function.length)
            }
            ["scrypt", n, r, p] => (Scheme::Scrypt(cost(n, r, p)?), SCRYPT_DIGEST),
            _ => return Err(Unusable::Unknown),
        };
        let (salt, digest) = rest.split_once('$').ok_or(Unusable::Damaged)?;
        let digest = from_hex(digest).ok_or(Unusable::Damaged)?;
        Self { scheme, salt: salt.as_bytes().to_vec(), digest }.of_length(length)
    }

    fn of_length(self, length: usize) -> Result<Self, Unusable> {
        if self.digest.len() == length { Ok(self) } else { Err(Unusable::Damaged) }
    }

    /// Whether it is the hash of `password`. Takes as long as the hash wants: only for the hashing threads.
    pub fn verify(&self, password: &Secret) -> bool {
        match &self.scheme {
            Scheme::Pbkdf2 { algorithm, iterations } => {
                pbkdf2::verify(*algorithm, *iterations, &self.salt, password.expose(), &self.digest).is_ok()
            }
            Scheme::Scrypt(params) => {
                let mut out = [0; SCRYPT_DIGEST];
                let made = scrypt::scrypt(password.expose(), &self.salt, params, &mut out);
                made.is_ok() && verify_slices_are_equal(&out, &self.digest).is_ok()
            }
        }
    }
}

/// PBKDF2 over HMAC with some hash function.
struct Function {
    algorithm: pbkdf2::Algorithm,
    /// Of its digests, in bytes.
    length: usize,
    /// Iterations.
    most: u32,
}

impl Function {
    fn scheme(&self, iterations: &str) -> Result<Scheme, Unusable> {
        let iterations = number(iterations).and_then(NonZeroU32::new).ok_or(Unusable::Damaged)?;
        if iterations.get() > self.most {
            return Err(Unusable::TooCostly);
        }
        Ok(Scheme::Pbkdf2 { algorithm: self.algorithm, iterations })
    }
}

fn hmac(name: &str) -> Option<Function> {
    let (algorithm, length, most) = match name {
        "sha1" => (pbkdf2::PBKDF2_HMAC_SHA1, 20, MOST_ITERATIONS),
        "sha256" => (pbkdf2::PBKDF2_HMAC_SHA256, 32, MOST_ITERATIONS),
        "sha512" => (pbkdf2::PBKDF2_HMAC_SHA512, 64, MOST_ITERATIONS_SHA512),
        _ => return None,
    };
    Some(Function { algorithm, length, most })
}

/// Digits alone; what is larger than any cost counts as the largest.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u32::MAX))
}

fn cost(n: &str, r: &str, p: &str) -> Result<scrypt::Params, Unusable> {
    let (Some(n), Some(r), Some(p)) = (number(n), number(r), number(p)) else { return Err(Unusable::Damaged) };
    let memory = 128 * u128::from(n) * u128::from(r);
    let spread = u64::from(r) * u64::from(p);
    let work = u128::from(n) * u128::from(r.max(LEAST_BLOCK)) * u128::from(p);
    if memory > MOST_MEMORY.into() || spread > MOST_SPREAD || work > MOST_WORK.into() {
        return Err(Unusable::TooCostly);
    }
    if n < 2 || !n.is_power_of_two() {
        return Err(Unusable::Damaged);
    }
    let log_n = u8::try_from(n.trailing_zeros()).map_err(|_| Unusable::Damaged)?;
    scrypt::Params::new(log_n, r, p).map_err(|_| Unusable::Damaged)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let nibble = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| if let [high, low] = pair { Some(nibble(*high)? << 4 | nibble(*low)?) } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with hashlib.pbkdf2_hmac and hashlib.scrypt, and put together as passlib 1.7.4 and Werkzeug 3.1 do.
    const GOOD: [&str; 7] = [
        "$pbkdf2-sha256$29000$8PHy8/T19vf4.fr7/P3./w$1vtxuUz2sp6mwwtNtJmD/mtfTt5t3ftkomeWIUA/fx0",
        "$pbkdf2-sha512$1000$8PHy8/T19vf4.fr7/P3./w$Fna.4iVV3Ej4NF2Zxo5uo60CvS3HeuB3OtwNIYkkTOVLDNuVbsvjibMCYbGS0LCOdl.Gd3LT.tQ8liaLRnKijQ",
        "$pbkdf2$1000$8PHy8/T19vf4.fr7/P3./w$IgSp17ZhL75MlJYXFAXQMOH9g7A",
        "pbkdf2:sha256:1000$Zo9VqXbT2LkR7aCd$03025e528d43ad2284fca12acaecb5c2e241699ee82fefd10986cfcc8c0628a5",
        "pbkdf2:sha512:1000$Zo9VqXbT2LkR7aCd$585470673f5e0aa0d8a8ef9f2e37a8d9ddfa013b7c7b78a36c676641c3b933a01efe948c2074fcd71f6796818e9b16a190ff07c5fe6b9d1925ff64ff90e750c2",
        "pbkdf2:sha1:1000$Zo9VqXbT2LkR7aCd$209f8b2e7a742b0fcf641182267e2bc6da24561f",
        "scrypt:1024:8:1$Zo9VqXbT2LkR7aCd$e77601c8d4dfe2c0b890e842716575e7f8459cce4bbafabcc6320f37140ef2dab65f6bd7981b945c391c6b2bcce75bdef24e9ee68efa63f092e08ce9563300b9",
    ];

    fn parse(text: &str) -> Result<(), Unusable> {
        Legacy::parse(text).map(drop)
    }

    #[test]
    fn a_hash_knows_its_password() {
        for text in GOOD {
            let hash = Legacy::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert!(hash.verify(&Secret::new("pässword")), "{text}");
            for other in ["", "password", "pässword ", "pässwor"] {
                assert!(!hash.verify(&Secret::new(other)), "{text}, {other:?}");
            }
        }
    }

    #[test]
    fn a_digest_must_be_whole_and_nothing_follows_it() {
        for text in GOOD {
            for cut in 1..text.len() {
                if let Some(cut) = text.get(..cut) {
                    assert!(parse(cut).is_err(), "{cut}");
                }
            }
            for tail in ["A", "0", "00", "AAAA", "$", " ", "\n", "="] {
                assert_eq!(parse(&format!("{text}{tail}")), Err(Unusable::Damaged), "{text}{tail:?}");
            }
        }
    }

    #[test]
    fn other_kinds_are_named_as_such() {
        for text in [
            "",
            "plain",
            "plain$$password",
            "sha1$salt$da39a3ee5e6b4b0d3255bfef95601890afd80709",
            "pbkdf2:md5:1000$salt$00",
            "pbkdf2:sha256$salt$00",
            "scrypt$salt$00",
            "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
            "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
            "$pbkdf2-sha1$1000$c2FsdA$aGFzaA",
            "$pbkdf2-md5$1000$c2FsdA$aGFzaA",
            "!",
        ] {
            assert_eq!(parse(text), Err(Unusable::Unknown), "{text}");
        }
    }

    // What others write when nobody tells them a cost, and what they wrote before.
    #[test]
    fn usual_costs_are_within_the_limits() {
        for iterations in ["150000", "260000", "600000", "870000", "1000000"] {
            assert_eq!(parse(&GOOD[3].replacen("1000", iterations, 1)), Ok(()), "Werkzeug, Django: {iterations}");
        }
        assert_eq!(parse(GOOD[0]), Ok(()), "passlib, sha256");
        assert_eq!(parse(&GOOD[1].replacen("1000", "25000", 1)), Ok(()), "passlib, sha512");
        assert_eq!(parse(&GOOD[2].replacen("1000", "131000", 1)), Ok(()), "passlib, sha1");
        assert_eq!(parse(&GOOD[4].replacen("1000", "600000", 1)), Ok(()), "Werkzeug 2.3, sha512");
        assert_eq!(parse(&GOOD[6].replacen("1024:8:1", "32768:8:1", 1)), Ok(()), "Werkzeug, scrypt");
    }

    #[test]
    fn cost_is_limited() {
        let (passlib, pbkdf2, scrypt) = (GOOD[0], GOOD[3], GOOD[6]);
        for iterations in ["2000001", "4294967296", "99999999999999999999"] {
            assert_eq!(parse(&passlib.replacen("29000", iterations, 1)), Err(Unusable::TooCostly));
            assert_eq!(parse(&pbkdf2.replacen("1000", iterations, 1)), Err(Unusable::TooCostly));
        }
        for (text, iterations, result) in [
            (GOOD[0], "2000000", Ok(())),
            (GOOD[1], "600000", Ok(())),
            (GOOD[1], "600001", Err(Unusable::TooCostly)),
            (GOOD[2], "2000000", Ok(())),
            (GOOD[3], "2000000", Ok(())),
            (GOOD[4], "600000", Ok(())),
            (GOOD[4], "600001", Err(Unusable::TooCostly)),
            (GOOD[5], "2000000", Ok(())),
        ] {
            let before = if text == GOOD[0] { "29000" } else { "1000" };
            assert_eq!(parse(&text.replacen(before, iterations, 1)), result, "{iterations} of {text}");
        }
        for iterations in ["0", "-1", "+5", "", "1e3", " 5"] {
            assert_eq!(parse(&passlib.replacen("29000", iterations, 1)), Err(Unusable::Damaged), "{iterations:?}");
        }
        for (cost, result) in [
            ("32768:8:1", Ok(())),
            ("32768:8:2", Ok(())),
            ("65536:8:1", Ok(())),
            ("1024:16:16", Ok(())),
            ("512:1024:1", Ok(())),
            ("65536:8:2", Err(Unusable::TooCostly)),
            ("131072:8:1", Err(Unusable::TooCostly)),
            ("32768:8:3", Err(Unusable::TooCostly)),
            ("524288:1:1", Err(Unusable::TooCostly)),
            ("2:4096:64", Err(Unusable::TooCostly)),
            ("2:1:262144", Err(Unusable::TooCostly)),
            ("2:8:129", Err(Unusable::TooCostly)),
            ("4294967295:4294967295:4294967295", Err(Unusable::TooCostly)),
            ("2:4294967295:4294967295", Err(Unusable::TooCostly)),
            ("4294967296:8:1", Err(Unusable::TooCostly)),
            ("32767:8:1", Err(Unusable::Damaged)),
            ("1:8:1", Err(Unusable::Damaged)),
            ("0:8:1", Err(Unusable::Damaged)),
            ("32768:0:1", Err(Unusable::Damaged)),
            ("32768:8:0", Err(Unusable::Damaged)),
            ("32768:8:x", Err(Unusable::Damaged)),
        ] {
            assert_eq!(parse(&scrypt.replacen("1024:8:1", cost, 1)), result, "{cost}");
        }
        let salt = "A".repeat(1400);
        assert_eq!(parse(&GOOD[0].replacen("$29000$", &format!("$29000${salt}"), 1)), Err(Unusable::Damaged));
    }
}
