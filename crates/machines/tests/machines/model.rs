//! The store against the naive model, on random requests: every reply, every event, every answer to a query.

use crate::common::model::Model;
use crate::common::random;
use crate::common::*;
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_machines::kv::*;

/// Requests that the model has no answer to: a digest, a chosen id.
fn is_modelled(operation: &Operation) -> bool {
    !matches!(operation, Operation::LeaseGrant { id: 0, .. } | Operation::Read(Query::Status))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_answers_as_the_naive_model_does(
        steps in vec((random::operation().prop_filter("modelled", is_modelled), 0..3_u64), 0..60),
        queries in vec(random::query().prop_filter("modelled", |query| *query != Query::Status), 0..30),
    ) {
        let (mut bench, mut model) = (Bench::new(), Model::new());
        bench.seconds = 0;
        for (operation, seconds) in &steps {
            let digest = bench.status().digest;
            let before = stream(&bench.kv);
            let expected = model.apply(bench.seconds, operation);
            prop_assert_eq!(bench.reply(operation), expected, "{:?}", operation);
            let changed = before != stream(&bench.kv);
            prop_assert_eq!(bench.status().digest != digest, changed, "the digest changes iff the state does");
            bench.pass(*seconds);
            model.tick(bench.seconds);
            prop_assert_eq!(bench.revision(), model.revision());
        }
        prop_assert_eq!(&bench.batches, &model.batches());
        for query in &queries {
            prop_assert_eq!(bench.query(query).result, model.query(query), "{:?}", query);
        }
    }
}
