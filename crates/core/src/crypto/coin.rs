//! A common coin: a bit that everybody computes alike, and nobody before `f + 1` replicas have released their shares of it.
//!
//! A coin is the hash of a BLS signature over the coin's name, under a key of which every replica has a share (threshold BLS
//! over BLS12-381, signatures in G1: A. Boldyreva, PKC 2003; the coin of C. Cachin, K. Kursawe, V. Shoup, PODC 2000). Any
//! `f + 1` shares give the same signature, since the key is a polynomial of degree `f` at zero. The shares are made by a
//! *dealer* ([`CoinKeys::deal`]): who runs it could keep the polynomial, and would know all coins in advance.
//!
//! Shares are checked lazily: `f + 1` are combined unseen, and the result is checked once. Only if that fails is each share
//! looked at, and who lied is named.

use super::digest::Digest;
use crate::ids::ReplicaId;
use crate::quorum::ByzantineQuorums;
use blstrs::{G1Affine, G1Projective, G2Affine, G2Projective, Scalar, pairing};
use borsh::{BorshDeserialize, BorshSerialize};
use ff::Field;
use group::prime::PrimeCurveAffine;
use group::{Curve, Group};
use std::collections::BTreeMap;
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The suite of RFC 9380 by which a name becomes a point, with a prefix of ours.
const SUITE: &[u8] = b"QUORATE-COIN-V1-BLS12381G1_XMD:SHA-256_SSWU_RO_";

/// A replica's part of one coin: a compressed point of G1, or its stand-in in the simulator.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct CoinShare([u8; 48]);

impl CoinShare {
    /// Wraps 48 bytes. Whether they are a share is found out when the coin is tossed.
    pub const fn new(bytes: [u8; 48]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for CoinShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("share")
    }
}

/// How a coin fell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toss {
    /// There are fewer than `f + 1` shares.
    Waits,
    /// This way, for everybody.
    Fell(bool),
    /// These shares are none: who sent them lied. Without them there may be enough of the others.
    Lies(Vec<ReplicaId>),
}

/// One replica's keys for coins, as its key file holds them.
#[derive(Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize, ZeroizeOnDrop)]
pub struct CoinKeys {
    /// What the combined signature is checked with: a compressed point of G2.
    #[zeroize(skip)]
    group: [u8; 96],
    /// What each replica's share is checked with.
    #[zeroize(skip)]
    members: Vec<[u8; 96]>,
    /// This replica's share of the key, little-endian.
    secret: [u8; 32],
}

impl fmt::Debug for CoinKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keys for the coins of {} replicas", self.members.len())
    }
}

impl CoinKeys {
    /// Deals keys to a group: `f + 1` of the replicas can toss a coin together, `f` cannot. `draw` gives random bytes; the
    /// polynomial is forgotten. `None` for a group of impossible size.
    pub fn deal(replicas: usize, mut draw: impl FnMut() -> [u8; 32]) -> Option<Vec<Self>> {
        let degree = ByzantineQuorums::new(replicas)?.faults();
        let mut polynomial: Vec<Scalar> = (0..=degree).map(|_| scalar(&mut draw)).collect();
        let at = |x: u64| polynomial.iter().rev().fold(Scalar::ZERO, |sum, it| sum * Scalar::from(x) + it);
        let public = |secret: &Scalar| (G2Projective::generator() * secret).to_affine().to_compressed();
        let group = public(&at(0));
        let secrets: Vec<Scalar> = (1..).take(replicas).map(at).collect();
        let members: Vec<_> = secrets.iter().map(public).collect();
        let keys =
            secrets.iter().map(|it| Self { group, members: members.clone(), secret: it.to_bytes_le() }).collect();
        polynomial.fill(Scalar::ZERO);
        Some(keys)
    }
}

/// A number below the group's order, uniformly: bytes that are none are drawn again.
fn scalar(draw: &mut impl FnMut() -> [u8; 32]) -> Scalar {
    loop {
        let mut bytes = draw();
        bytes[31] &= 0x7f; // the order has 255 bits
        let found = Option::<Scalar>::from(Scalar::from_bytes_le(&bytes));
        bytes.zeroize();
        if let Some(found) = found {
            return found;
        }
    }
}

/// How coins are made.
enum Scheme {
    Bls {
        group: Box<G2Affine>,
        members: Vec<G2Affine>,
        secret: [u8; 32],
    },
    /// Keyed hashes in the place of signatures, with the same rules: for simulated worlds.
    Simulated {
        replicas: usize,
    },
}

/// A replica's hand in the coins of its cluster.
pub(super) struct Coin {
    me: ReplicaId,
    /// `f + 1`.
    threshold: usize,
    scheme: Scheme,
}

impl Drop for Coin {
    fn drop(&mut self) {
        if let Scheme::Bls { secret, .. } = &mut self.scheme {
            secret.zeroize();
        }
    }
}

impl Coin {
    /// `None` unless these are the keys of `me`.
    pub(super) fn bls(me: ReplicaId, keys: &CoinKeys) -> Option<Self> {
        let point = |bytes: &[u8; 96]| Option::<G2Affine>::from(G2Affine::from_compressed(bytes));
        let members: Vec<_> = keys.members.iter().map(point).collect::<Option<_>>()?;
        let secret: Scalar = Option::from(Scalar::from_bytes_le(&keys.secret))?;
        let own = (G2Projective::generator() * secret).to_affine();
        if members.get(me.index()) != Some(&own) {
            return None;
        }
        let threshold = ByzantineQuorums::new(members.len())?.vouch();
        let scheme = Scheme::Bls { group: Box::new(point(&keys.group)?), members, secret: keys.secret };
        Some(Self { me, threshold, scheme })
    }

    pub(super) fn simulated(me: ReplicaId, replicas: usize) -> Option<Self> {
        let threshold = ByzantineQuorums::new(replicas)?.vouch();
        Some(Self { me, threshold, scheme: Scheme::Simulated { replicas } })
    }

    /// How many replicas have shares.
    pub(super) fn replicas(&self) -> usize {
        match &self.scheme {
            Scheme::Bls { members, .. } => members.len(),
            Scheme::Simulated { replicas } => *replicas,
        }
    }

    pub(super) fn share(&self, name: &Digest) -> Option<CoinShare> {
        match &self.scheme {
            Scheme::Bls { secret, .. } => {
                let secret: Scalar = Option::from(Scalar::from_bytes_le(secret))?;
                Some(CoinShare((point_of(name) * secret).to_affine().to_compressed()))
            }
            Scheme::Simulated { .. } => Some(simulated_share(self.me, name)),
        }
    }

    /// Combines what is there.
    pub(super) fn toss(&self, name: &Digest, shares: &BTreeMap<ReplicaId, CoinShare>) -> Toss {
        if shares.len() < self.threshold {
            return Toss::Waits;
        }
        let some: Vec<(ReplicaId, CoinShare)> =
            shares.iter().take(self.threshold).map(|(replica, share)| (*replica, *share)).collect();
        if let Some(value) = self.combine(name, &some) {
            return Toss::Fell(value);
        }
        let lies = shares.iter().filter(|(replica, share)| !self.is_share(name, **replica, share));
        Toss::Lies(lies.map(|(replica, _)| *replica).collect())
    }

    fn combine(&self, name: &Digest, shares: &[(ReplicaId, CoinShare)]) -> Option<bool> {
        match &self.scheme {
            Scheme::Bls { group, .. } => {
                let points =
                    shares.iter().map(|(_, share)| Option::<G1Affine>::from(G1Affine::from_compressed(&share.0)));
                let points: Vec<G1Affine> = points.collect::<Option<_>>()?;
                let xs: Vec<Scalar> = shares.iter().map(|(replica, _)| place(*replica)).collect();
                let mut sum = G1Projective::identity();
                for (point, x) in points.iter().zip(&xs) {
                    sum += G1Projective::from(point) * weight(x, &xs)?;
                }
                let signature = sum.to_affine();
                let holds = pairing(&signature, &G2Affine::generator()) == pairing(&point_of(name).to_affine(), group);
                holds.then(|| bit(&Digest::of(&signature.to_compressed())))
            }
            Scheme::Simulated { .. } => {
                let all = shares.iter().all(|(replica, share)| self.is_share(name, *replica, share));
                all.then(|| bit(&Digest::of_parts(&[b"simulated coin", name.as_bytes()])))
            }
        }
    }

    fn is_share(&self, name: &Digest, by: ReplicaId, share: &CoinShare) -> bool {
        match &self.scheme {
            Scheme::Bls { members, .. } => {
                let point = Option::<G1Affine>::from(G1Affine::from_compressed(&share.0));
                let (Some(point), Some(member)) = (point, members.get(by.index())) else { return false };
                pairing(&point, &G2Affine::generator()) == pairing(&point_of(name).to_affine(), member)
            }
            Scheme::Simulated { replicas } => by.index() < *replicas && simulated_share(by, name) == *share,
        }
    }
}

/// Where a replica's share lies on the polynomial. Zero is the key itself.
fn place(replica: ReplicaId) -> Scalar {
    Scalar::from(u64::from(replica.get()) + 1)
}

/// Lagrange's weight of the place `x` at zero.
fn weight(x: &Scalar, all: &[Scalar]) -> Option<Scalar> {
    let others = || all.iter().filter(|it| *it != x);
    let above = others().fold(Scalar::ONE, |product, it| product * it);
    let below = others().fold(Scalar::ONE, |product, it| product * (*it - x));
    Some(above * Option::<Scalar>::from(below.invert())?)
}

fn point_of(name: &Digest) -> G1Projective {
    G1Projective::hash_to_curve(name.as_bytes(), SUITE, &[])
}

fn bit(digest: &Digest) -> bool {
    digest.as_bytes()[0] & 1 == 1
}

fn simulated_share(by: ReplicaId, name: &Digest) -> CoinShare {
    let mut bytes = [0; 48];
    let digest = Digest::of_parts(&[b"simulated coin share", &[by.get()], name.as_bytes()]);
    bytes[..32].copy_from_slice(digest.as_bytes());
    CoinShare(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dealt(replicas: usize) -> Vec<Coin> {
        let mut drawn = 0_u64;
        let draw = || {
            drawn += 1;
            *Digest::of(&drawn.to_le_bytes()).as_bytes()
        };
        let keys = CoinKeys::deal(replicas, draw).expect("a legal size");
        (0..).map(ReplicaId::new).zip(&keys).map(|(id, keys)| Coin::bls(id, keys).expect("its keys")).collect()
    }

    fn simulated(replicas: usize) -> Vec<Coin> {
        let ids = (0..).map(ReplicaId::new).take(replicas);
        ids.map(|id| Coin::simulated(id, replicas).expect("a legal size")).collect()
    }

    fn shares(coins: &[Coin], who: &[usize], name: &Digest) -> BTreeMap<ReplicaId, CoinShare> {
        who.iter().map(|index| (coins[*index].me, coins[*index].share(name).expect("a share"))).collect()
    }

    #[test]
    fn any_f_and_one_shares_give_the_same_coin_and_fewer_give_none() {
        for coins in [dealt(4), dealt(7), simulated(4)] {
            let (name, last) = (Digest::of(b"a"), coins.len() - 1);
            let needed = coins[0].threshold;
            let first: Vec<usize> = (0..needed).collect();
            let other: Vec<usize> = (0..needed).map(|index| last - index).collect();
            let fell = coins[0].toss(&name, &shares(&coins, &first, &name));
            assert!(matches!(fell, Toss::Fell(_)));
            assert_eq!(coins[last].toss(&name, &shares(&coins, &other, &name)), fell);
            assert_eq!(coins[0].toss(&name, &shares(&coins, &first[1..], &name)), Toss::Waits);
        }
    }

    #[test]
    fn who_sends_what_is_no_share_is_named_and_the_others_are_enough() {
        for coins in [dealt(4), simulated(4)] {
            let name = Digest::of(b"a");
            let fell = coins[3].toss(&name, &shares(&coins, &[2, 3], &name));
            let mut with_lies = shares(&coins, &[0, 1, 2, 3], &name);
            let of_another_coin = coins[0].share(&Digest::of(b"b")).expect("a share");
            with_lies.insert(coins[0].me, of_another_coin);
            with_lies.insert(coins[1].me, CoinShare::new([7; 48]));
            let Toss::Lies(liars) = coins[3].toss(&name, &with_lies) else { panic!("it must not fall") };
            assert_eq!(liars, [coins[0].me, coins[1].me]);
            with_lies.retain(|from, _| !liars.contains(from));
            assert_eq!(coins[3].toss(&name, &with_lies), fell);
        }
    }

    #[test]
    fn coins_of_different_names_differ() {
        let coins = dealt(4);
        let falls = |index: u8| {
            let name = Digest::of(&[index]);
            coins[0].toss(&name, &shares(&coins, &[0, 1], &name))
        };
        let fell: Vec<_> = (0..16).map(falls).collect();
        assert!(fell.contains(&Toss::Fell(true)) && fell.contains(&Toss::Fell(false)));
    }

    #[test]
    fn keys_of_another_replica_are_refused() {
        let keys = CoinKeys::deal(4, || [9; 32]).expect("a legal size");
        assert!(Coin::bls(ReplicaId::new(1), &keys[1]).is_some());
        assert!(Coin::bls(ReplicaId::new(2), &keys[1]).is_none());
    }
}
