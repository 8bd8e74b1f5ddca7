//! Ed25519 identities. A replica or a client *is* its key: links are authenticated by it and by nothing else.
//!
//! A key file is text: comment lines beginning with `#`, then the PKCS#8 v2 document in hexadecimal (RFC 5958: private
//! and public half, so a damaged file is noticed). Public keys are written `ed25519:` followed by 64 hexadecimal digits.

use quorate_core::crypto::{self, Secret};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

const PREFIX: &str = "ed25519:";
/// What a PKCS#8 v2 document of an Ed25519 key begins with (RFC 8410 §7, with attributes behind); its seed follows.
const PKCS8_HEAD: &[u8] = &[0x30, 0x51, 2, 1, 1, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// No key file that we write is longer than 600 bytes; reading stops here.
const KEY_FILE_BYTES_MAX: u64 = 16 * 1024;

/// Half of an identity that everyone may know: 32 bytes, written `ed25519:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Wraps the 32 bytes of RFC 8032. Whether they are a point of the curve is found out at the first signature.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The same key, as signed statements know it.
    pub const fn for_statements(&self) -> crypto::PublicKey {
        crypto::PublicKey::new(self.0)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a public key is `ed25519:` followed by 64 hexadecimal digits")]
pub struct PublicKeyError;

impl FromStr for PublicKey {
    type Err = PublicKeyError;

    fn from_str(text: &str) -> Result<Self, PublicKeyError> {
        let digits = text.strip_prefix(PREFIX).ok_or(PublicKeyError)?;
        let bytes = unhex(digits).ok_or(PublicKeyError)?;
        Ok(Self(bytes.try_into().map_err(|_| PublicKeyError)?))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(PublicKeyVisitor)
    }
}

/// Parses inside the visit, so that an error carries the place of this very value.
struct PublicKeyVisitor;

impl de::Visitor<'_> for PublicKeyVisitor {
    type Value = PublicKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PublicKeyError}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PublicKey, E> {
        text.parse().map_err(E::custom)
    }
}

/// Both halves of an identity. `Debug` shows the public half only.
#[derive(Clone)]
pub struct KeyPair {
    pkcs8: Vec<u8>,
    public: PublicKey,
}

/// A key read from a file, and what is wrong with the file's permissions, if anything is.
#[derive(Debug)]
pub struct LoadedKey {
    /// The key.
    pub key: KeyPair,
    /// One sentence for the log when others than the owner may read the file; the key is used all the same.
    pub warning: Option<String>,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is not there.
    #[error("there is no key file {}; `quorate init` writes one, or correct `key_file`", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A new key must not overwrite an old one: whoever held the old identity would be locked out.
    #[error("{} exists already; move it away before a new key is written there", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read or written.
    #[error("cannot {action} the key file {}: {source}", path.display())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} is not a key file: {what}; restore it from a backup, or make a new key and tell the other members", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: &'static str,
    },
    /// The key cannot be used to sign statements.
    #[error("the private key has an unusual form; `quorate init` writes keys that can sign")]
    NoSeed,
    /// The system gave no random bytes.
    #[error("the system's random number generator failed; no key was made")]
    NoRandomness,
}

impl KeyPair {
    /// Draws a new identity from the system's randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::NoRandomness)?;
        Self::from_pkcs8(pkcs8.as_ref()).map_err(|_| KeyError::NoRandomness)
    }

    /// Reads a key file.
    pub fn load(path: &Path) -> Result<LoadedKey, KeyError> {
        let metadata = fs::metadata(path).map_err(|source| read_error(path, source))?;
        let malformed = |what| KeyError::Malformed { path: path.to_owned(), what };
        if metadata.len() > KEY_FILE_BYTES_MAX {
            return Err(malformed("it is longer than any key"));
        }
        let text = fs::read_to_string(path).map_err(|source| match source.kind() {
            io::ErrorKind::InvalidData => malformed("it is not text"),
            _ => read_error(path, source),
        })?;
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let digits: String = lines.collect();
        let pkcs8 =
            unhex(&digits).ok_or_else(|| malformed("beside `#` lines it should hold hexadecimal digits only"))?;
        let key = Self::from_pkcs8(&pkcs8).map_err(malformed)?;
        Ok(LoadedKey { key, warning: permission_warning(path, metadata.mode()) })
    }

    /// Writes a key file, readable by its owner only, and syncs it. Refuses to overwrite one.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(self.file_text().as_bytes())?;
            file.sync_all()
        };
        write().map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.to_owned() },
            _ => KeyError::Io { action: "write", path: path.to_owned(), source },
        })
    }

    /// The half that goes into the others' files.
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// The private half, for signed statements. One key serves links and statements: what either signs cannot be taken for
    /// what the other does (see `quorate_core::crypto`).
    pub(crate) fn secret(&self) -> Result<Secret, KeyError> {
        let seed = self.pkcs8.strip_prefix(PKCS8_HEAD).and_then(|rest| rest.first_chunk::<32>().copied());
        let secret = seed.map(Secret::from_seed).filter(|it| it.public() == self.public.for_statements());
        secret.ok_or(KeyError::NoSeed)
    }

    /// A secret for one purpose, that whoever holds the private half can find again. `context` names the purpose; another
    /// one gives another secret, and none of them tells of the key.
    pub fn secret_for(&self, context: &str) -> [u8; 32] {
        blake3::derive_key(context, &self.pkcs8)
    }

    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, &'static str> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| "the digits are no Ed25519 key, or were damaged")?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| "its public half is not 32 bytes long")?;
        Ok(Self { pkcs8: pkcs8.to_vec(), public: PublicKey(public) })
    }

    fn file_text(&self) -> String {
        format!(
            "# Quorate private key (Ed25519, PKCS#8, hexadecimal). Whoever can read it can speak in its owner's name.\n\
             # public key: {}\n{}\n",
            self.public,
            hex(&self.pkcs8)
        )
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.public)
    }
}

fn read_error(path: &Path, source: io::Error) -> KeyError {
    match source.kind() {
        io::ErrorKind::NotFound => KeyError::Missing { path: path.to_owned() },
        _ => KeyError::Io { action: "read", path: path.to_owned(), source },
    }
}

fn permission_warning(path: &Path, mode: u32) -> Option<String> {
    let open = mode & 0o077;
    let path = path.display();
    (open != 0).then(|| {
        let mode = mode & 0o777;
        format!("{path} can be read or changed by others than its owner (mode {mode:03o}); run `chmod 600 {path}`")
    })
}

/// `N` random bytes of the system.
pub fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::NoRandomness)?;
    Ok(bytes)
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that an even number of hexadecimal digits stands for.
pub(crate) fn unhex(digits: &str) -> Option<Vec<u8>> {
    let nibble = |digit: u8| char::from(digit).to_digit(16);
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| match *pair {
            [high, low] => u8::try_from(nibble(high)? << 4 | nibble(low)?).ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_link_signs_statements_too() {
        let key = KeyPair::generate().expect("randomness");
        let secret = key.secret().expect("its seed");
        assert_eq!(secret.public(), key.public().for_statements());
    }
}
