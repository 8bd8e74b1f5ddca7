//! The key-value store under HQ, on real sockets and disks: transactions over two keys beside each other, beside writes of one of
//! them, and beside reads of all, while a replica crashes.

use quorate::borsh::BorshDeserialize;
use quorate::kv::{
    Compare, Operand, Operation, Operator, Put, Query, Range, RangeResponse, Reply, Response, Txn, TxnOp,
};
use quorate::{BlockingClient, Consistency, Hq, Kv, Local, ReplicaId, hq};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const ACCOUNTS: usize = 4;
const BALANCE: u64 = 1000;
const TRANSFERS: u64 = 25;

fn account(index: usize) -> String {
    format!("account-{}", index % ACCOUNTS)
}

fn put(key: &str, value: String) -> Put {
    Put { key: key.to_owned().into(), value: value.into(), ..Put::default() }
}

fn apply(client: &BlockingClient, operation: &Operation) -> Reply {
    let answer = client.apply(operation.encode().expect("a good operation")).expect("an answer");
    Reply::try_from_slice(&answer.reply).expect("a reply")
}

/// `None` if no quorum was alike in time.
fn range(client: &BlockingClient, range: Range) -> Option<RangeResponse> {
    let query = Query::Range(range).encode().expect("a good query");
    let answer = client.read(Consistency::Linearizable, query).ok()?;
    match Reply::try_from_slice(&answer.reply).expect("a reply").result {
        Ok(Response::Range(found)) => Some(found),
        other => panic!("a range, not {other:?}"),
    }
}

/// What an account holds, and at which revision.
fn look(client: &BlockingClient, key: &str) -> Option<(u64, i64)> {
    let found = range(client, Range { key: key.to_owned().into(), ..Range::default() })?;
    let kv = found.kvs.first()?;
    Some((number(&kv.value), kv.mod_revision))
}

fn number(text: &[u8]) -> u64 {
    std::str::from_utf8(text).expect("text").parse().expect("a number")
}

fn all(client: &BlockingClient) -> Option<Vec<u64>> {
    let every = Range { key: "account-".into(), range_end: "account.".into(), ..Range::default() };
    Some(range(client, every)?.kvs.iter().map(|kv| number(&kv.value)).collect())
}

/// Moves one from an account to another, if both are still as they were seen; true if it was done.
fn transfer(client: &BlockingClient, from: &str, to: &str) -> bool {
    let (Some(one), Some(other)) = (look(client, from), look(client, to)) else { return false };
    let unchanged = |key: &str, revision| Compare {
        key: key.to_owned().into(),
        range_end: Default::default(),
        operator: Operator::Equal,
        operand: Operand::Mod(revision),
    };
    let txn = Txn {
        compare: vec![unchanged(from, one.1), unchanged(to, other.1)],
        success: vec![TxnOp::Put(put(from, (one.0 - 1).to_string())), TxnOp::Put(put(to, (other.0 + 1).to_string()))],
        failure: Vec::new(),
    };
    match apply(client, &Operation::Txn(txn)).result {
        Ok(Response::Txn(done)) => done.succeeded,
        other => panic!("a transaction, not {other:?}"),
    }
}

#[test]
fn transfers_between_two_keys_keep_the_sum_for_everybody_who_looks() {
    let mut local = Local::start::<Hq, _>(4, hq::Config::default(), Kv::new).expect("starts");
    let setup = local.client::<Hq>().expect("connects");
    for index in 0..ACCOUNTS {
        apply(&setup, &Operation::Put(put(&account(index), BALANCE.to_string())));
    }
    let (stop, looked, written) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let [one, other, reader, writer] = std::array::from_fn(|_| local.client::<Hq>().expect("connects"));
    thread::scope(|scope| {
        let movers = [(one, 0, 1), (other, 1, 2)].map(|(client, from, to)| {
            scope.spawn(move || {
                let mut done = 0;
                for attempt in 0.. {
                    done += u64::from(transfer(&client, &account(from + attempt), &account(to + attempt)));
                    if done >= TRANSFERS {
                        return;
                    }
                }
            })
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if let Some(balances) = all(&reader) {
                    assert_eq!(balances.iter().sum::<u64>(), ACCOUNTS as u64 * BALANCE, "{balances:?}");
                    looked.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        scope.spawn(|| {
            // A write of one key that changes nothing but its revision: transfers that have seen the one before fail.
            while !stop.load(Ordering::Relaxed) {
                if let Some((balance, revision)) = look(&writer, &account(0)) {
                    let compare = Compare {
                        key: account(0).into(),
                        range_end: Default::default(),
                        operator: Operator::Equal,
                        operand: Operand::Mod(revision),
                    };
                    let success = vec![TxnOp::Put(put(&account(0), balance.to_string()))];
                    apply(&writer, &Operation::Txn(Txn { compare: vec![compare], success, failure: Vec::new() }));
                    written.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(40));
            }
        });
        thread::sleep(Duration::from_millis(300));
        local.crash(ReplicaId::new(2));
        thread::sleep(Duration::from_millis(300));
        local.restart(ReplicaId::new(2)).expect("it comes back");
        let moved = movers.map(thread::ScopedJoinHandle::join);
        stop.store(true, Ordering::Relaxed);
        moved.into_iter().for_each(|it| it.expect("it has moved all"));
    });
    let balances = all(&setup).expect("nobody writes any more");
    assert_eq!(balances.iter().sum::<u64>(), ACCOUNTS as u64 * BALANCE, "{balances:?}");
    assert!(written.load(Ordering::Relaxed) > 0);
    println!("{} looks at all accounts, {} single writes", looked.into_inner(), written.into_inner());
}
