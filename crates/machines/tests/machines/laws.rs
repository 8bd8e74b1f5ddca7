//! The laws of `quorate_core::laws`, on random operations and on garbage.

use crate::common::random;
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_core::laws;
use quorate_machines::kv::*;
use quorate_machines::{Counter, Kv};

/// An operation's bytes, a few of them spoilt: a byte changed, cut short, or all noise.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let good = random::operation().prop_map(|operation| borsh::to_vec(&operation).unwrap());
    (good, 0..12_u8, any::<prop::sample::Index>(), any::<u8>(), vec(any::<u8>(), 0..60)).prop_map(
        |(mut good, kind, index, byte, noise)| match kind {
            0 => noise,
            1 => {
                good.truncate(index.index(good.len()));
                good
            }
            2 | 3 => {
                let index = index.index(good.len());
                good[index] = byte;
                good
            }
            _ => good,
        },
    )
}

fn queries() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let good = vec(random::query().prop_map(|query| borsh::to_vec(&query).unwrap()), 0..6);
    (good, vec(vec(any::<u8>(), 0..40), 0..3)).prop_map(|(good, noise)| [good, noise].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_keeps_the_laws(operations in vec(bytes(), 0..40), queries in queries()) {
        prop_assert_eq!(laws::check(Kv::new, &operations, &queries), Ok(()));
    }

    #[test]
    fn the_counter_keeps_the_laws(operations in vec(vec(any::<u8>(), 0..30), 0..20)) {
        prop_assert_eq!(laws::check(Counter::default, &operations, &[vec![]]), Ok(()));
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(bytes in bytes()) {
        if let Ok(operation) = Operation::decode(&bytes) {
            prop_assert_eq!(operation.encode(), Ok(bytes));
        }
    }

    #[test]
    fn replies_from_liars_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Reply::decode(&bytes);
    }
}
