//! Who may say what: the public keys of an epoch, and one's own secret.

use super::coin::{Coin, CoinKeys, CoinShare, Toss};
use super::deferred::Deferred;
use super::digest::Digest;
use super::enough::Enough;
use super::heavy::{Heavy, Kind};
use super::remembered::Remembered;
use super::signed::{Signed, Statement};
use crate::fault::Fault;
use crate::ids::{ClientId, ClusterId, Epoch, ReplicaId, View};
use crate::quorum::REPLICAS_MAX;
use crate::wire::Wire;
use borsh::{BorshDeserialize, BorshSerialize};
use ed25519_zebra::{SigningKey, VerificationKey};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use thiserror::Error;
use zeroize::Zeroize;

/// What is signed begins with this and has [`PREIMAGE_BYTES`]. The links sign with the same keys: what TLS 1.3 signs begins
/// with 64 spaces and is longer (RFC 8446 §4.4.3), so neither signature can be shown as the other.
const PREFIX: &[u8; 28] = b"quorate signed statement v1\0";
const PREIMAGE_BYTES: usize = PREFIX.len() + 32;

/// What a signature is computed over: the prefix, and a digest of everything that the statement is bound to.
pub type Preimage = [u8; PREIMAGE_BYTES];

/// An Ed25519 public key (RFC 8032), or its stand-in in the simulator: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Wraps 32 bytes. Whether they are a key is found out by whoever makes a keyring of them.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// 64 bytes of signature. Two different ones may prove the same statement: never compare them to compare statements.
#[derive(Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Wraps 64 bytes.
    pub const fn new(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The signature's bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("signature")
    }
}

/// A client process: the key that it holds, and a number of its own, so that several processes may share a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct ClientKey {
    /// The key.
    pub key: PublicKey,
    /// Drawn by the process when it starts.
    pub nonce: u64,
}

impl ClientKey {
    /// The nonce of a replica that asks a protocol inside its own one for something, in its own name.
    const PROXY: u64 = u64::MAX;

    /// Is this a replica's key, in the place of a client's? Only a protocol inside another one takes its requests.
    pub const fn is_proxy(&self) -> bool {
        self.nonce == Self::PROXY
    }

    /// The address of this process: a digest of key and nonce, so nobody without the key can sign for the address.
    pub fn client(&self) -> ClientId {
        let digest = Digest::of_parts(&[b"quorate client", &self.key.0, &self.nonce.to_le_bytes()]);
        ClientId::new(u128::from_le_bytes(*digest.as_bytes().first_chunk().unwrap_or(&[0; 16])))
    }
}

/// The private half of a key: neither shown nor copied, and wiped when it is dropped.
pub struct Secret(Box<SigningKey>);

impl Secret {
    /// The key of RFC 8032 that this seed stands for; the seed is wiped.
    pub fn from_seed(mut seed: [u8; 32]) -> Self {
        let secret = Self(Box::new(SigningKey::from(seed)));
        seed.zeroize();
        secret
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(VerificationKey::from(&*self.0).into())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Why no keyring could be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyringError {
    /// A member's public key is none.
    #[error("the public key of {0} is not a point of the curve; ask its owner for the right one")]
    NoKey(ReplicaId),
    /// Two members have one key: one of them could vote twice.
    #[error("{0} and {1} have the same public key; each replica needs one of its own")]
    SharedKey(ReplicaId, ReplicaId),
    /// Too many members.
    #[error("{0} replicas are more than a group can have")]
    TooMany(usize),
    /// The secret is not that of the member.
    #[error("this is not the private key of {0}")]
    NotMine(ReplicaId),
    /// The keys for the coins are not those of the member, or of a group of another size.
    #[error("these are not the coin keys of {0} in this group")]
    NotMyCoin(ReplicaId),
}

/// How signatures are made and checked.
enum Scheme {
    /// No keys: nothing is signed, nothing is believed.
    None,
    /// Ed25519, with keys decompressed once.
    Ed25519 { replicas: Vec<VerificationKey>, clients: BTreeMap<PublicKey, VerificationKey> },
    /// A keyed hash in the place of signatures, for simulated worlds. A keyring signs as its owner only, so a simulated
    /// liar cannot sign for others either; but whoever holds this code can, so no host uses it.
    Simulated { replicas: usize, signed: AtomicU64, checked: AtomicU64 },
}

/// How often a keyring of a simulated world has signed and checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyWork {
    /// Signatures made.
    pub signed: u64,
    /// Signatures checked.
    pub checked: u64,
}

impl Scheme {
    const fn simulated(replicas: usize) -> Self {
        Self::Simulated { replicas, signed: AtomicU64::new(0), checked: AtomicU64::new(0) }
    }
}

/// Whose keyring it is.
enum Owner {
    Nobody,
    Replica(ReplicaId, Own),
    Client(ClientKey, Own),
}

enum Own {
    Ed25519(Secret),
    Simulated([u8; 32]),
}

/// The keys of one cluster in one epoch, and one's own secret. Bound to both: a statement of another cluster or epoch does
/// not verify, whatever it says.
pub struct Keyring {
    cluster: ClusterId,
    epoch: Epoch,
    scheme: Arc<Scheme>,
    owner: Owner,
    /// Signatures that are taken for good until [`Keyring::settle`] checks them all.
    deferred: Option<Deferred>,
    /// Its hand in the common coins, if its protocol tosses any.
    coin: Option<Coin>,
    /// What it knows of statements that hold many signatures.
    heavy: Arc<Heavy>,
    /// Signatures that were checked, and come again.
    remembered: Arc<Remembered>,
    /// What the owner needs no more votes for.
    pub(super) enough: Arc<Enough>,
    /// For what is inside a statement all of which is known to be good: takes every signature for good.
    trusting: bool,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Owner::Nobody => f.write_str("a keyring without a secret"),
            Owner::Replica(replica, _) => write!(f, "the keyring of {replica}"),
            Owner::Client(client, _) => write!(f, "the keyring of {}", client.client()),
        }
    }
}

/// Keyrings.
impl Keyring {
    /// No keys at all: for protocols that sign nothing.
    pub fn keyless(cluster: ClusterId, epoch: Epoch) -> Self {
        Self::holding(cluster, epoch, Arc::new(Scheme::None), Owner::Nobody)
    }

    fn holding(cluster: ClusterId, epoch: Epoch, scheme: Arc<Scheme>, owner: Owner) -> Self {
        let (heavy, remembered, enough) = (Arc::default(), Arc::default(), Arc::default());
        Self { cluster, epoch, scheme, owner, deferred: None, coin: None, heavy, remembered, enough, trusting: false }
    }

    /// The public keys of the replicas, by number, and of the clients that may send requests.
    ///
    /// # Errors
    /// A replica's key that is none, or is another's too. A client's key that is none is left out: nobody can sign with it.
    pub fn ed25519(
        cluster: ClusterId,
        epoch: Epoch,
        replicas: &[PublicKey],
        clients: &[PublicKey],
    ) -> Result<Self, KeyringError> {
        if replicas.len() > REPLICAS_MAX {
            return Err(KeyringError::TooMany(replicas.len()));
        }
        let mut seen = BTreeMap::new();
        let mut keys = Vec::new();
        for (id, key) in (0..).map(ReplicaId::new).zip(replicas) {
            if let Some(other) = seen.insert(*key, id) {
                return Err(KeyringError::SharedKey(other, id));
            }
            keys.push(VerificationKey::try_from(key.0).map_err(|_| KeyringError::NoKey(id))?);
        }
        let clients = clients.iter().filter_map(|key| Some((*key, VerificationKey::try_from(key.0).ok()?))).collect();
        let scheme = Arc::new(Scheme::Ed25519 { replicas: keys, clients });
        Ok(Self::holding(cluster, epoch, scheme, Owner::Nobody))
    }

    /// The same keys, in the hands of a replica.
    ///
    /// # Errors
    /// If the secret is not the one whose public half the keyring has for this replica.
    pub fn of_replica(self, me: ReplicaId, secret: Secret) -> Result<Self, KeyringError> {
        match &*self.scheme {
            Scheme::Ed25519 { replicas, .. } if replicas.get(me.index()).is_some_and(|key| is(key, &secret)) => {
                Ok(Self { owner: Owner::Replica(me, Own::Ed25519(secret)), ..self })
            }
            _ => Err(KeyringError::NotMine(me)),
        }
    }

    /// The same keyring, with a hand in the common coins.
    ///
    /// # Errors
    /// If the keys are not those of the owner in this group.
    pub fn with_coin(self, keys: &CoinKeys) -> Result<Self, KeyringError> {
        let me = self.replica().unwrap_or_default();
        let coin = self.replica().and_then(|me| Coin::bls(me, keys)).filter(|coin| coin.replicas() == self.replicas());
        let coin = Some(coin.ok_or(KeyringError::NotMyCoin(me))?);
        Ok(Self { coin, ..self })
    }

    /// The same keys, in the hands of a client process.
    #[must_use]
    pub fn of_client(self, nonce: u64, secret: Secret) -> Self {
        let client = ClientKey { key: secret.public(), nonce };
        Self { owner: Owner::Client(client, Own::Ed25519(secret)), ..self }
    }

    /// The keyring of a replica in a simulated world of `replicas`.
    pub fn simulated_replica(cluster: ClusterId, epoch: Epoch, replicas: usize, me: ReplicaId) -> Self {
        let own = Own::Simulated(simulated_secret(&simulated_key(me)));
        let coin = Coin::simulated(me, replicas);
        let (scheme, owner) = (Arc::new(Scheme::simulated(replicas)), Owner::Replica(me, own));
        Self { coin, ..Self::holding(cluster, epoch, scheme, owner) }
    }

    /// The keyring of a client in a simulated world of `replicas`. Its address is the world's to choose.
    pub fn simulated_client(cluster: ClusterId, epoch: Epoch, replicas: usize, me: ClientId) -> Self {
        let key = simulated_client_key(me);
        let own = Own::Simulated(simulated_secret(&key));
        let (scheme, owner) = (Arc::new(Scheme::simulated(replicas)), Owner::Client(ClientKey { key, nonce: 0 }, own));
        Self::holding(cluster, epoch, scheme, owner)
    }

    /// Which cluster's.
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Which epoch's.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many replicas it has keys of.
    pub fn replicas(&self) -> usize {
        match &*self.scheme {
            Scheme::None => 0,
            Scheme::Ed25519 { replicas, .. } => replicas.len(),
            Scheme::Simulated { replicas, .. } => *replicas,
        }
    }

    /// What it has done so far, in a simulated world: there signatures are cheap, and somebody may want to know what real
    /// ones would have cost. Real keyrings do not count.
    pub fn work(&self) -> KeyWork {
        match &*self.scheme {
            Scheme::Simulated { signed, checked, .. } => {
                KeyWork { signed: signed.load(Ordering::Relaxed), checked: checked.load(Ordering::Relaxed) }
            }
            _ => KeyWork::default(),
        }
    }

    /// Whose secret it holds, if a replica's.
    pub const fn replica(&self) -> Option<ReplicaId> {
        match &self.owner {
            Owner::Replica(replica, _) => Some(*replica),
            _ => None,
        }
    }

    /// Whose secret it holds, if a client's.
    pub const fn client(&self) -> Option<ClientKey> {
        match &self.owner {
            Owner::Client(client, _) => Some(*client),
            _ => None,
        }
    }

    /// The address that belongs to a client's key and nonce.
    pub fn address(&self, client: &ClientKey) -> ClientId {
        match &*self.scheme {
            Scheme::Simulated { .. } => {
                ClientId::new(u128::from_le_bytes(*client.key.0.first_chunk().unwrap_or(&[0; 16])))
            }
            _ => client.client(),
        }
    }
}

/// Signing and checking.
impl Keyring {
    /// Says something in the owner's name, as a replica.
    ///
    /// # Panics
    /// If the keyring is not a replica's: who starts a replica that signs gives it one that is.
    pub fn sign<T: Statement>(&self, statement: T) -> Signed<T> {
        let Owner::Replica(me, own) = &self.owner else {
            panic!("only a replica's keyring signs a replica's statement")
        };
        let preimage = self.preimage(me, &statement);
        let signature = own.sign(&preimage);
        self.has_signed();
        if statement.heavy().is_some() {
            self.heavy.good((T::DOMAIN, *me), named(&preimage, &signature)); // it comes back in others' proofs
        }
        if T::COMES_AGAIN {
            self.remembered.add(*me, named(&preimage, &signature));
        }
        Signed::own(*me, statement, signature)
    }

    /// Says something in the owner's name, as a client.
    ///
    /// # Panics
    /// If the keyring is not a client's.
    pub fn sign_as_client<T: Statement>(&self, statement: T) -> Signed<T, ClientKey> {
        let Owner::Client(me, own) = &self.owner else { panic!("only a client's keyring signs a client's statement") };
        let signature = own.sign(&self.preimage(me, &statement));
        self.has_signed();
        Signed::own(*me, statement, signature)
    }

    fn has_signed(&self) {
        if let Scheme::Simulated { signed, .. } = &*self.scheme {
            signed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says something in the owner's name to a protocol inside this one whose only clients are replicas.
    ///
    /// # Panics
    /// If the keyring is not a replica's.
    pub fn sign_as_proxy<T: Statement>(&self, statement: T) -> Signed<T, ClientKey> {
        let Some(by) = self.proxy() else { panic!("only a replica's keyring signs for a proxy") };
        let signature = match &self.owner {
            Owner::Replica(_, own) => own.sign(&self.preimage(&by, &statement)),
            _ => Signature([0; 64]),
        };
        Signed::own(by, statement, signature)
    }

    /// Under which name this replica asks a protocol inside its own one.
    pub fn proxy(&self) -> Option<ClientKey> {
        self.proxy_of(self.replica()?)
    }

    /// Under which name a replica does.
    pub fn proxy_of(&self, replica: ReplicaId) -> Option<ClientKey> {
        let key = match &*self.scheme {
            Scheme::Ed25519 { replicas, .. } => PublicKey(<[u8; 32]>::from(*replicas.get(replica.index())?)),
            Scheme::Simulated { replicas, .. } if replica.index() < *replicas => simulated_key(replica),
            _ => return None,
        };
        Some(ClientKey { key, nonce: ClientKey::PROXY })
    }

    pub(super) fn proves<T: Statement, S: Proves>(&self, by: &S, statement: &T, signature: &Signature) -> bool {
        if self.trusting {
            return true;
        }
        let preimage = self.preimage(by, statement);
        let Some(replica) = by.replica().filter(|_| T::COMES_AGAIN) else {
            return by.proves(self, &preimage, signature);
        };
        let name = named(&preimage, signature);
        if self.remembered.has(replica, &name) {
            return true;
        }
        if self.deferred.as_ref().is_some_and(|deferred| deferred.has_again(&name)) {
            return true; // twice among what is checked together: it is checked once
        }
        let good = by.proves(self, &preimage, signature);
        match &self.deferred {
            Some(deferred) if good => deferred.add_again(replica, name),
            None if good => self.remembered.add(replica, name),
            _ => {}
        }
        good
    }

    /// Checks a heavy statement's signature, at once; then whether what it holds may be checked. Gives its name, or `None` if
    /// all of it was checked before. `part`: it is inside another one, which was admitted.
    ///
    /// # Errors
    /// A bad signature, or why it is not looked at.
    pub(super) fn admits<T: Statement>(
        &self,
        by: ReplicaId,
        view: View,
        statement: &T,
        signature: &Signature,
        part: bool,
    ) -> Result<Option<Digest>, Fault> {
        if self.trusting {
            return Ok(None);
        }
        let Some(name) = self.claims(by, view, statement, signature)? else { return Ok(None) };
        if !part {
            statement.vouched(self)?;
            self.heavy.admits((T::DOMAIN, by), view, name, self.replicas()).map_err(Fault::NotNow)?;
        }
        Ok(Some(name))
    }

    /// Checks the signature of a heavy statement, at once, and notes that its signer has reached the view. Gives the
    /// statement's name, or `None` if all of it was checked before.
    ///
    /// # Errors
    /// A bad signature.
    pub(super) fn claims<T: Statement>(
        &self,
        by: ReplicaId,
        view: View,
        statement: &T,
        signature: &Signature,
    ) -> Result<Option<Digest>, Fault> {
        let preimage = self.preimage(&by, statement);
        let name = named(&preimage, signature);
        if self.heavy.is_good((T::DOMAIN, by), &name) {
            return Ok(None);
        }
        if !self.proves_now(by, &preimage, signature) {
            return Err(Fault::BadSignature(T::DOMAIN));
        }
        self.heavy.claims(by, view);
        Ok(Some(name))
    }

    /// The same keys, for what is inside a statement all of which was checked before.
    pub(super) fn trusting(&self) -> Self {
        Self { trusting: true, ..self.unowned() }
    }

    /// The same public keys, and what is known of heavy statements.
    fn unowned(&self) -> Self {
        let (heavy, remembered, enough) = (self.heavy.clone(), self.remembered.clone(), self.enough.clone());
        Self {
            heavy,
            remembered,
            enough,
            ..Self::holding(self.cluster, self.epoch, self.scheme.clone(), Owner::Nobody)
        }
    }

    /// All of a heavy statement is good, once what was deferred is.
    pub(super) fn is_good(&self, kind: Kind, name: Digest) {
        match &self.deferred {
            Some(deferred) => deferred.add_heavy(kind, name),
            None => self.heavy.good(kind, name),
        }
    }

    /// The owner is in this view: what others say about views far from it is not looked at (see [`Statement::heavy`]).
    pub fn reached(&self, view: View) {
        self.heavy.reached(view);
    }

    /// Domain, cluster, epoch and signer before the statement: a signature holds for exactly this and nothing else.
    fn preimage<T: Statement>(&self, by: &impl Wire, statement: &T) -> Preimage {
        let (cluster, epoch) = (self.cluster.get().to_le_bytes(), self.epoch.get().to_le_bytes());
        let parts: [&[u8]; 5] = [T::DOMAIN.as_bytes(), &cluster, &epoch, &by.encode(), &statement.encode()];
        let mut preimage = [0; PREIMAGE_BYTES];
        let (head, tail) = preimage.split_at_mut(PREFIX.len());
        head.copy_from_slice(PREFIX);
        tail.copy_from_slice(Digest::of_parts(&parts).as_bytes());
        preimage
    }

    /// The same public keys, taking every signature for good until [`Keyring::settle`]. `None` if there is nothing to gain.
    pub(crate) fn deferring(&self) -> Option<Self> {
        let is_worth_it = matches!(*self.scheme, Scheme::Ed25519 { .. });
        is_worth_it.then(|| Self { deferred: Some(Deferred::default()), ..self.unowned() })
    }

    /// Were all signatures good that were taken for good since the last time? If not, nothing may be believed that was proved
    /// with this keyring meanwhile.
    pub(crate) fn settle(&self) -> bool {
        let Some(deferred) = &self.deferred else { return true };
        let Some(depends) = deferred.settle() else { return false };
        depends.heavy.into_iter().for_each(|(kind, name)| self.heavy.good(kind, name));
        depends.again.into_iter().for_each(|(name, by)| self.remembered.add(by, name));
        true
    }

    fn verifies(&self, key: &VerificationKey, preimage: &Preimage, signature: &Signature) -> bool {
        match &self.deferred {
            Some(deferred) => {
                deferred.add(*key, *preimage, *signature);
                true
            }
            None => key.verify(&signature.into(), preimage).is_ok(),
        }
    }

    /// As [`Keyring::replica_proves`], also where signatures are deferred.
    fn proves_now(&self, by: ReplicaId, preimage: &Preimage, signature: &Signature) -> bool {
        match &*self.scheme {
            Scheme::Ed25519 { replicas, .. } => {
                replicas.get(by.index()).is_some_and(|key| key.verify(&signature.into(), preimage).is_ok())
            }
            _ => self.replica_proves(by, preimage, signature),
        }
    }

    fn replica_proves(&self, by: ReplicaId, preimage: &Preimage, signature: &Signature) -> bool {
        match &*self.scheme {
            Scheme::None => false,
            Scheme::Ed25519 { replicas, .. } => {
                replicas.get(by.index()).is_some_and(|key| self.verifies(key, preimage, signature))
            }
            Scheme::Simulated { replicas, checked, .. } => {
                checked.fetch_add(1, Ordering::Relaxed);
                by.index() < *replicas
                    && simulated_signature(&simulated_secret(&simulated_key(by)), preimage) == *signature
            }
        }
    }

    fn client_proves(&self, by: &ClientKey, preimage: &Preimage, signature: &Signature) -> bool {
        match &*self.scheme {
            Scheme::None => false,
            Scheme::Ed25519 { replicas, .. } if by.is_proxy() => {
                let key = replicas.iter().find(|key| PublicKey(<[u8; 32]>::from(**key)) == by.key);
                key.is_some_and(|key| self.verifies(key, preimage, signature))
            }
            Scheme::Simulated { replicas, checked, .. } if by.is_proxy() => {
                checked.fetch_add(1, Ordering::Relaxed);
                let members = (0..=u8::MAX).map(ReplicaId::new).take(*replicas);
                members.map(simulated_key).any(|key| key == by.key)
                    && simulated_signature(&simulated_secret(&by.key), preimage) == *signature
            }
            Scheme::Ed25519 { clients, .. } => {
                clients.get(&by.key).is_some_and(|key| self.verifies(key, preimage, signature))
            }
            Scheme::Simulated { checked, .. } => {
                checked.fetch_add(1, Ordering::Relaxed);
                by.nonce == 0
                    && by.key == simulated_client_key(self.address(by))
                    && simulated_signature(&simulated_secret(&by.key), preimage) == *signature
            }
        }
    }
}

/// Common coins.
impl Keyring {
    /// Can its owner toss coins?
    pub const fn tosses(&self) -> bool {
        self.coin.is_some()
    }

    /// The owner's share of a coin; the same whenever it is asked for. `None` without a hand in the coins.
    pub fn coin_share(&self, name: &Digest) -> Option<CoinShare> {
        self.coin.as_ref()?.share(&self.coin_name(name))
    }

    /// How a coin falls, by these shares.
    pub fn toss(&self, name: &Digest, shares: &BTreeMap<ReplicaId, CoinShare>) -> Toss {
        self.coin.as_ref().map_or(Toss::Waits, |coin| coin.toss(&self.coin_name(name), shares))
    }

    /// No coin of another cluster or epoch is this one.
    fn coin_name(&self, name: &Digest) -> Digest {
        let (cluster, epoch) = (self.cluster.get().to_le_bytes(), self.epoch.get().to_le_bytes());
        Digest::of_parts(&[b"quorate coin", &cluster, &epoch, name.as_bytes()])
    }
}

/// The name of a signed statement: a digest of all of it.
fn named(preimage: &Preimage, signature: &Signature) -> Digest {
    Digest::of_parts(&[b"quorate heavy", preimage, &signature.0])
}

/// Who can sign: a replica, by its number, or a client, by its key.
pub trait Proves: Wire + Clone + Copy + fmt::Debug + PartialEq {
    #[doc(hidden)]
    fn proves(&self, keyring: &Keyring, preimage: &Preimage, signature: &Signature) -> bool;

    /// The replica, if it is one.
    #[doc(hidden)]
    fn replica(&self) -> Option<ReplicaId> {
        None
    }
}

impl Proves for ReplicaId {
    fn proves(&self, keyring: &Keyring, preimage: &Preimage, signature: &Signature) -> bool {
        keyring.replica_proves(*self, preimage, signature)
    }

    fn replica(&self) -> Option<ReplicaId> {
        Some(*self)
    }
}

impl Proves for ClientKey {
    fn proves(&self, keyring: &Keyring, preimage: &Preimage, signature: &Signature) -> bool {
        keyring.client_proves(self, preimage, signature)
    }
}

impl Own {
    fn sign(&self, preimage: &Preimage) -> Signature {
        match self {
            Own::Ed25519(secret) => Signature(secret.0.sign(preimage).to_bytes()),
            Own::Simulated(secret) => simulated_signature(secret, preimage),
        }
    }
}

fn is(key: &VerificationKey, secret: &Secret) -> bool {
    PublicKey(<[u8; 32]>::from(*key)) == secret.public()
}

fn simulated_key(replica: ReplicaId) -> PublicKey {
    PublicKey(*Digest::of_parts(&[b"simulated replica", &[replica.get()]]).as_bytes())
}

fn simulated_client_key(client: ClientId) -> PublicKey {
    let mut key = [0; 32];
    let (head, _) = key.split_at_mut(16);
    head.copy_from_slice(&client.get().to_le_bytes());
    PublicKey(key)
}

fn simulated_secret(key: &PublicKey) -> [u8; 32] {
    *Digest::of_parts(&[b"simulated secret", &key.0]).as_bytes()
}

fn simulated_signature(secret: &[u8; 32], preimage: &Preimage) -> Signature {
    let mut signature = [0; 64];
    let (head, _) = signature.split_at_mut(32);
    head.copy_from_slice(blake3::keyed_hash(secret, preimage).as_bytes());
    Signature(signature)
}
