//! Steps on objects: what a machine does for protocols that do not order everything ([`crate::objects`]).

use super::{Executor, QUICK_BYTES_MAX, QUICK_REQUESTS_MAX};
use crate::ids::{OpNumber, Position, SessionId};
use crate::machine::{At, Entropy, Machine, Output};
use crate::objects::{self, MISPLACED, Objects, REPLIES_BYTES_SOFT_MAX, Step, Stepped};
use crate::time::WallTime;
use bytes::Bytes;

impl<M: Machine> Executor<M> {
    /// Does a step; each follows the one before.
    pub(super) fn step(&mut self, op: OpNumber, step: Step) -> Stepped {
        assert_eq!(op, self.op.next(), "steps are done in order, each once");
        self.op = op;
        let machine = &mut self.state.machine;
        match step {
            Step::Apply { object, at, operations } => {
                let before = machine.image(&object);
                let (mut replies, mut bytes) = (Vec::with_capacity(operations.len()), 0_usize);
                for (index, operation) in operations.iter().enumerate() {
                    if bytes > REPLIES_BYTES_SOFT_MAX {
                        break;
                    }
                    let reply = Self::apply_alone(machine, (&object, at, index), operation);
                    bytes = bytes.saturating_add(reply.len());
                    replies.push(reply);
                }
                Stepped { replies, before }
            }
            Step::Across { objects: touched, operation } => {
                let names: Vec<Bytes> = touched.iter().map(|(name, _)| name.clone()).collect();
                if M::objects(&operation) != Objects::of(names.clone()) {
                    return Stepped { replies: vec![MISPLACED.into()], before: None };
                }
                let entropy = Entropy::Bytes(objects::entropy_across(&touched));
                let position = touched.iter().map(|(_, at)| *at).max().unwrap_or_default();
                let at = At { position, time: WallTime::default(), session: SessionId::ZERO, entropy };
                let mut output = Output::unheard();
                machine.apply_across(&names, &at, &operation, &mut output);
                Stepped { replies: vec![output.take().0.into()], before: None }
            }
            Step::Put { object, image } => {
                let before = machine.image(&object);
                let put = machine.put_image(&object, image.as_deref());
                assert!(
                    put.is_ok(),
                    "an image is this machine's own, or that of several replicas, one of which is correct"
                );
                Stepped { replies: Vec::new(), before }
            }
        }
    }

    /// Applies one operation of a write of this object; the machine's reply.
    fn apply_alone(machine: &mut M, (object, at, index): (&Bytes, Position, usize), operation: &Bytes) -> Bytes {
        if M::objects(operation) != Objects::One(object.clone()) {
            return MISPLACED.into();
        }
        let entropy = Entropy::Bytes(objects::entropy(object, at, index));
        let at = At { position: at, time: WallTime::default(), session: SessionId::ZERO, entropy };
        let mut output = Output::unheard();
        machine.apply_to(object, &at, operation, &mut output);
        output.take().0.into()
    }

    /// Does it take microseconds? As of a batch that is quick.
    pub(super) fn is_quick(&self, step: &Step) -> bool {
        let Step::Apply { operations, .. } = step else { return false };
        let bytes = operations.iter().map(Bytes::len).fold(0, usize::saturating_add);
        let is_short = operations.len() <= QUICK_REQUESTS_MAX && bytes <= QUICK_BYTES_MAX;
        is_short && operations.iter().all(|operation| self.state.machine.is_quick(operation))
    }
}
