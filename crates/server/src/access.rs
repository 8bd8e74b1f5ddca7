//! Who asks: the user that a request's token names, and the store as that user may use it.
//!
//! A *token* is a sentence with a seal: a user's name, since when (the revision of users and roles at which the password was
//! checked), until when, and a keyed hash of the three. The key comes from the gateway's own key. So a gateway keeps no
//! list of tokens: they survive its restart, and hold at every gateway with the same key; nobody can fill its memory by
//! logging in. What ends a token before its time (a new password, a deletion, a time without users) the store notices, at each
//! request. Under a protocol whose replicas may lie, none of them ever sees a token.
//!
//! Nothing is decided here about rights. A request without a token is nobody's, one with a token that is not ours is
//! nobody's who could be trusted; the store refuses both if users count.

use crate::errors::EtcdError;
use crate::proto::etcdserverpb::ResponseHeader;
use crate::store::{Read, Store};
use quorate_machines::kv::{Labelled, Operation, Query, Response, Who};
use quorate_runtime::keys::KeyPair;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tonic::metadata::MetadataMap;

/// The purpose of the key with which tokens are sealed.
const CONTEXT: &str = "quorate 2026-11 etcd gateway: tokens of users";
/// Where clients put their token: etcd's names, the second for its JSON gateway.
const TOKEN_KEYS: [&str; 2] = ["token", "authorization"];

/// The store, as one caller may use it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Access {
    store: Arc<Store>,
    who: Who,
}

impl Access {
    /// Applies an operation with the caller's rights.
    ///
    /// # Errors
    /// As [`Store::apply`].
    pub async fn apply(&self, operation: Operation) -> Result<(ResponseHeader, Response), EtcdError> {
        let operation = Operation::As { who: self.who.clone(), operation: Labelled::new(operation) };
        self.store.apply(&operation).await
    }

    /// Asks a query with the caller's rights.
    ///
    /// # Errors
    /// As [`Store::apply`].
    pub async fn query(&self, read: Read, query: Query) -> Result<(ResponseHeader, Response), EtcdError> {
        let query = Query::As { who: self.who.clone(), query: Labelled::new(query) };
        self.store.query(read, &query).await
    }
}

/// Makes tokens, and recognises them.
#[derive(Debug)]
pub struct Tokens {
    key: [u8; 32],
    lifetime: Duration,
}

impl Tokens {
    /// The tokens of all gateways with this key.
    pub fn new(key: &KeyPair, lifetime: Duration) -> Self {
        Self { key: key.secret_for(CONTEXT), lifetime }
    }

    /// A token for a user whose password was right at a revision of users and roles.
    pub fn issue(&self, user: &str, since: u64) -> String {
        self.sealed(user, since, seconds().saturating_add(self.lifetime.as_secs()))
    }

    fn sealed(&self, user: &str, since: u64, until: u64) -> String {
        let sentence = [&since.to_be_bytes()[..], &until.to_be_bytes(), user.as_bytes()].concat();
        let seal = blake3::keyed_hash(&self.key, &sentence);
        format!("{}.{}", hex(&sentence), seal.to_hex())
    }

    /// Whose token it is; `None` if it is not one of ours, or its time is over.
    fn recognise(&self, token: &str) -> Option<Who> {
        let (sentence, seal) = token.split_once('.')?;
        let sentence = unhex(sentence)?;
        if blake3::Hash::from_hex(seal).ok()? != blake3::keyed_hash(&self.key, &sentence) {
            return None; // compared in constant time, by blake3
        }
        let (since, rest) = sentence.split_first_chunk::<8>()?;
        let (until, user) = rest.split_first_chunk::<8>()?;
        let user = String::from_utf8(user.to_vec()).ok()?;
        (u64::from_be_bytes(*until) > seconds()).then(|| Who { user, since: u64::from_be_bytes(*since) })
    }

    /// The store, for whoever sent this.
    pub fn access(&self, store: &Arc<Store>, metadata: &MetadataMap) -> Access {
        let token = TOKEN_KEYS.iter().find_map(|key| metadata.get(*key));
        let who = token.map_or_else(Who::default, |token| {
            let known = token.to_str().ok().and_then(|token| self.recognise(token));
            known.unwrap_or_else(untrusted)
        });
        Access { store: store.clone(), who }
    }
}

/// Somebody who has never proved anything: an invalid token, to a store where users count.
fn untrusted() -> Who {
    Who { user: "?".to_owned(), since: 0 }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            u8::try_from(digit(*high)?.checked_mul(16)?.checked_add(digit(*low)?)?).ok()
        }
        _ => None,
    });
    digits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        Tokens::new(&KeyPair::generate().expect("randomness"), Duration::from_secs(60))
    }

    fn who(user: &str, since: u64) -> Option<Who> {
        Some(Who { user: user.to_owned(), since })
    }

    #[test]
    fn a_token_is_recognised_by_every_gateway_with_the_key_and_by_no_other() {
        let key = KeyPair::generate().expect("randomness");
        let token = Tokens::new(&key, Duration::from_secs(60)).issue("zoë", 7);
        assert_eq!(Tokens::new(&key, Duration::from_secs(60)).recognise(&token), who("zoë", 7));
        assert_eq!(tokens().recognise(&token), None);
    }

    #[test]
    fn a_token_with_any_letter_changed_or_cut_is_none() {
        let tokens = tokens();
        let token = tokens.issue("ann", 7);
        for place in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'0' { b'1' } else { b'0' };
            assert_eq!(tokens.recognise(&String::from_utf8(changed).expect("ASCII")), None, "{place}");
            assert_eq!(tokens.recognise(&token[..place]), None, "{place}");
        }
    }

    #[test]
    fn a_token_ends_with_its_time() {
        let tokens = tokens();
        assert_eq!(tokens.recognise(&tokens.sealed("ann", 7, seconds() + 60)), who("ann", 7));
        assert_eq!(tokens.recognise(&tokens.sealed("ann", 7, seconds())), None);
    }

    #[test]
    fn what_is_no_token_is_refused_whatever_it_is() {
        let tokens = tokens();
        for token in ["", ".", "a.b", "00.00", "zz.zz", "é.é", "0.", &"00".repeat(1 << 16)] {
            assert_eq!(tokens.recognise(token), None);
        }
    }
}
