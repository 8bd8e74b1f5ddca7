//! A store with its place in the log: what a test talks to.

pub mod model;
pub mod random;

use quorate_core::crypto::Digest;
use quorate_core::ids::{Position, SessionId};
use quorate_core::machine::{At, Entropy, Output, Query as _, Sink, Snapshot, Source, StateMachine, View};
use quorate_core::time::WallTime;
use quorate_machines::Kv;
use quorate_machines::kv::*;

pub struct Bench {
    pub kv: Kv,
    position: u64,
    pub seconds: u64,
    pub batches: Vec<WatchBatch>,
}

impl Bench {
    pub fn new() -> Self {
        Self { kv: Kv::new(), position: 0, seconds: 1_000, batches: Vec::new() }
    }

    pub fn at(&mut self) -> At {
        self.position += 1;
        At {
            position: Position::new(self.position),
            time: WallTime::from_nanos(self.seconds * 1_000_000_000),
            session: SessionId::new(1),
            entropy: Entropy::Bytes(*Digest::of(&self.position.to_le_bytes()).as_bytes()),
        }
    }

    fn take(&mut self, out: Output) -> Vec<u8> {
        let (reply, events) = out.take();
        for (topic, bytes) in events {
            assert_eq!(topic, WATCH_TOPIC);
            self.batches.push(borsh::from_slice(&bytes).unwrap());
        }
        reply
    }

    pub fn raw(&mut self, bytes: &[u8]) -> Reply {
        let at = self.at();
        let mut out = Output::default();
        self.kv.apply(&at, bytes, &mut out);
        Reply::decode(&self.take(out)).unwrap()
    }

    /// Encodes past the client's own check, so that the machine's is what is tested.
    pub fn reply(&mut self, operation: &Operation) -> Reply {
        self.raw(&borsh::to_vec(operation).unwrap())
    }

    pub fn ok(&mut self, operation: Operation) -> Response {
        self.reply(&operation).result.unwrap()
    }

    /// A refusal, which must leave everything as it was.
    pub fn refused(&mut self, operation: Operation) -> KvError {
        let (digest, batches, revision) = (self.kv.digest(), self.batches.len(), self.revision());
        let contents = stream(&self.kv);
        let error = self.reply(&operation).result.unwrap_err();
        assert_eq!(self.kv.digest(), digest, "a refused operation changed the digest");
        assert_eq!(self.batches.len(), batches, "a refused operation published an event");
        assert_eq!(self.revision(), revision, "a refused operation made a revision");
        assert!(stream(&self.kv) == contents, "a refused operation changed the state");
        error
    }

    pub fn put(&mut self, key: &str, value: &str) -> i64 {
        let reply = self.reply(&put(key, value));
        reply.result.unwrap();
        reply.revision
    }

    pub fn txn(&mut self, txn: Txn) -> TxnResponse {
        self.reply(&Operation::Txn(txn)).txn().unwrap()
    }

    pub fn grant(&mut self, id: i64, ttl: i64) -> (i64, i64) {
        self.reply(&Operation::LeaseGrant { id, ttl }).lease().unwrap()
    }

    pub fn put_with_lease(&mut self, key: &str, lease: i64) {
        self.ok(Operation::Put(Put { lease, ..Put::new(key.to_owned(), "v") }));
    }

    pub fn query(&self, query: &Query) -> Reply {
        let mut reply = Vec::new();
        self.kv.view().query(&borsh::to_vec(query).unwrap(), &mut reply);
        Reply::decode(&reply).unwrap()
    }

    pub fn range(&self, range: Range) -> RangeResponse {
        self.query(&Query::Range(range)).range().unwrap()
    }

    pub fn range_error(&self, range: Range) -> KvError {
        self.query(&Query::Range(range)).result.unwrap_err()
    }

    pub fn get(&self, key: &str) -> Option<KeyValue> {
        self.query(&Query::get(key.to_owned())).get().unwrap()
    }

    pub fn get_at(&self, key: &str, revision: i64) -> Option<KeyValue> {
        self.range(Range { key: key.to_owned().into(), revision, ..Range::default() }).kvs.pop()
    }

    pub fn events(&self, events: Events) -> EventsResponse {
        self.query(&Query::Events(events)).events().unwrap()
    }

    pub fn ttl(&self, id: i64) -> LeaseTimeToLiveResponse {
        let now = WallTime::from_nanos(self.seconds * 1_000_000_000);
        match self.query(&Query::LeaseTimeToLive { id, keys: true, now }).result.unwrap() {
            Response::LeaseTimeToLive(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    pub fn status(&self) -> Status {
        self.query(&Query::Status).status().unwrap()
    }

    pub fn revision(&self) -> i64 {
        self.status().revision
    }

    pub fn compact(&mut self, revision: i64) {
        self.ok(Operation::Compact { revision });
    }

    /// Lets time pass, and the log tick if the store asked for it.
    pub fn pass(&mut self, seconds: u64) {
        self.seconds += seconds;
        let at = self.at();
        if self.kv.wake().is_some_and(|time| time <= at.time) {
            let mut out = Output::default();
            self.kv.tick(&at, &mut out);
            assert!(self.take(out).is_empty(), "a tick answers nobody");
        }
    }

    pub fn keys(&self) -> Vec<String> {
        keys_of(&self.range(all()))
    }
}

pub fn put(key: &str, value: &str) -> Operation {
    Operation::put(key.to_owned(), value.to_owned())
}

pub fn put_op(key: &str, value: &str) -> TxnOp {
    TxnOp::Put(Put::new(key.to_owned(), value.to_owned()))
}

pub fn delete_op(key: &str, range_end: &str) -> TxnOp {
    TxnOp::Delete(DeleteRange { key: key.to_owned().into(), range_end: range_end.to_owned().into(), prev_kv: false })
}

pub fn get_op(key: &str) -> TxnOp {
    TxnOp::Range(Range { key: key.to_owned().into(), ..Range::default() })
}

pub fn compare(key: &str, operator: Operator, operand: Operand) -> Compare {
    Compare { operator, ..Compare::equal(key.to_owned(), operand) }
}

pub fn all() -> Range {
    Range::prefix("")
}

pub fn keys_of(range: &RangeResponse) -> Vec<String> {
    range.kvs.iter().map(|kv| String::from_utf8(kv.key.to_vec()).unwrap()).collect()
}

pub fn stream(kv: &Kv) -> Vec<u8> {
    let (mut source, mut bytes) = (kv.snapshot(), Vec::new());
    while source.next(1000, &mut bytes) {}
    bytes
}

pub fn restore(bytes: &[u8]) -> Result<Kv, quorate_core::machine::Corrupt> {
    let mut sink = Kv::rebuild();
    sink.push(bytes)?;
    sink.finish()
}

pub fn nested(success: Vec<TxnOp>, failure: Vec<TxnOp>) -> TxnOp {
    TxnOp::Txn(Txn { success, failure, ..Txn::default() })
}
