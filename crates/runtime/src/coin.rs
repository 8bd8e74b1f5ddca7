//! The dealer, and the files with keys for common coins. A protocol that tosses coins (`Protocol::TOSSES`) needs one beside
//! each replica's key file, with the same name and the extension `coin`.
//!
//! Whoever makes a cluster is its *trusted dealer*: for a moment it holds the key of which every replica gets a share, and
//! could know all coins in advance. With the coins known, agreement stays safe; an adversary that also controls the network
//! could keep it from ending.
//!
//! The file is text like a key file: comment lines beginning with `#`, then the keys in hexadecimal, and their digest, so
//! that a damaged file is noticed.

use crate::keys::{KeyError, hex, random, unhex};
use quorate_core::crypto::{CoinKeys, Digest};
use quorate_core::wire::Wire;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// No coin file that we write is longer than 4 KiB; reading stops here.
const COIN_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Where a replica's keys for coins are, by where its key is.
pub fn file_beside(key_file: &Path) -> PathBuf {
    key_file.with_extension("coin")
}

/// Deals keys to a group, from the system's randomness.
///
/// # Errors
/// If the system gives none, or the group's size is impossible.
pub fn deal(replicas: usize) -> Result<Vec<CoinKeys>, KeyError> {
    let mut failed = None;
    let draw = || match random() {
        Ok(bytes) => bytes,
        Err(error) => {
            failed = Some(error);
            [0; 32]
        }
    };
    let keys = CoinKeys::deal(replicas, draw);
    match (failed, keys) {
        (None, Some(keys)) => Ok(keys),
        (Some(error), _) => Err(error),
        (None, None) => Err(KeyError::NoRandomness), // no group of such a size gets here
    }
}

/// Writes a coin file, readable by its owner only, and syncs it. Refuses to overwrite one.
///
/// # Errors
/// What the system says.
pub fn save(keys: &CoinKeys, path: &Path) -> Result<(), KeyError> {
    let bytes = keys.encode();
    let text = format!(
        "# Quorate keys for common coins (threshold BLS, hexadecimal). Whoever can read one more of these files than may lie\n\
         # knows all coins in advance. Made by a trusted dealer, `quorate init` or `quorate dev`.\n{}\n{}\n",
        hex(&bytes),
        hex(Digest::of(&bytes).as_bytes())
    );
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.to_owned() },
        _ => KeyError::Io { action: "write", path: path.to_owned(), source },
    })
}

/// Reads a coin file.
///
/// # Errors
/// If it is missing, or holds something else.
pub fn load(path: &Path) -> Result<CoinKeys, KeyError> {
    let io_error = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => KeyError::Missing { path: path.to_owned() },
        _ => KeyError::Io { action: "read", path: path.to_owned(), source },
    };
    let malformed = |what| KeyError::Malformed { path: path.to_owned(), what };
    if fs::metadata(path).map_err(io_error)?.len() > COIN_FILE_BYTES_MAX {
        return Err(malformed("it is longer than any keys for coins"));
    }
    let text = fs::read_to_string(path).map_err(io_error)?;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect();
    let [digits, check] = lines[..] else {
        return Err(malformed("beside `#` lines it should hold two lines of hexadecimal digits"));
    };
    let decoded = unhex(digits).zip(unhex(check));
    let (bytes, check) = decoded.ok_or_else(|| malformed("beside `#` lines it should hold hexadecimal digits only"))?;
    if check != Digest::of(&bytes).as_bytes() {
        return Err(malformed("its digits do not match their digest"));
    }
    CoinKeys::decode(&bytes).map_err(|_| malformed("the digits are no keys for coins"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_dealt_comes_back_from_its_file_and_damage_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = file_beside(&folder.path().join("replica.key"));
        let keys = deal(4).expect("randomness").remove(2);
        save(&keys, &path).expect("written");
        assert_eq!(load(&path).expect("read"), keys);
        assert!(matches!(save(&keys, &path), Err(KeyError::Exists { .. })));
        let mut text = fs::read_to_string(&path).expect("text");
        let digit = text.rfind("\n").expect("an end") - 100;
        text.replace_range(digit..=digit, if text.as_bytes()[digit] == b'0' { "1" } else { "0" });
        fs::write(&path, text).expect("written");
        assert!(matches!(load(&path), Err(KeyError::Malformed { .. })));
    }
}
