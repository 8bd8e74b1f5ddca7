//! Clusters in this process whose clients publish through brokers at their worst: what is answered was applied once, in one
//! order.

use quorate::borsh::{BorshDeserialize, BorshSerialize};
use quorate::broker::{Broker, BrokerFaults, Direct, Faulty, InProcess};
use quorate::{At, BlockingClient, ClientOptions, Consistency, Local, Output, Reception, ReplicaId, Small, reception};
use std::sync::Arc;

/// What was applied, in order: a word each.
#[derive(Clone, Default, BorshSerialize, BorshDeserialize)]
struct Tape(Vec<String>);

impl Small for Tape {
    fn apply(&mut self, _at: &At, operation: &[u8], out: &mut Output) {
        self.0.push(String::from_utf8_lossy(operation).into_owned());
        out.reply(self.0.len().to_string().as_bytes());
    }

    fn query(&self, _query: &[u8], reply: &mut Vec<u8>) {
        reply.extend_from_slice(self.0.join(" ").as_bytes());
    }
}

const CALLS: usize = 60;

fn all(rate: u32) -> BrokerFaults {
    format!("all:{rate}").parse().expect("a list")
}

/// Calls, a crash in the middle of them, and what is there in the end.
fn survives(cluster: &mut Local, client: &BlockingClient) {
    for number in 0..CALLS {
        if number == CALLS / 3 {
            cluster.crash(ReplicaId::new(0));
        }
        if number == CALLS / 2 {
            cluster.restart(ReplicaId::new(0)).expect("it starts");
        }
        let answer = client.apply(format!("w{number}")).expect("an answer");
        assert_eq!(String::from_utf8_lossy(&answer.reply), (number + 1).to_string());
    }
    let expected: Vec<String> = (0..CALLS).map(|number| format!("w{number}")).collect();
    let read = client.read(Consistency::Linearizable, "").expect("an answer");
    assert_eq!(String::from_utf8_lossy(&read.reply), expected.join(" "));
}

#[test]
fn what_goes_through_a_broker_in_this_process_is_applied_once_whatever_it_does() {
    for faults in [BrokerFaults::default(), all(300)] {
        let broker: Arc<dyn Broker> = Arc::new(Faulty::new(Arc::new(InProcess::default()), faults, 7));
        let mut cluster =
            Local::start_with::<Reception, Tape>(4, reception::Config::default(), Tape::default, Some(broker))
                .expect("a cluster");
        let client = cluster.client::<Reception>().expect("a client");
        survives(&mut cluster, &client);
    }
}

#[test]
fn what_goes_over_links_that_lose_and_change_it_is_applied_once() {
    let mut cluster =
        Local::start::<Reception, Tape>(4, reception::Config::default(), Tape::default).expect("a cluster");
    let (config, key) = cluster.cluster();
    let client = BlockingClient::connect_through::<Reception>(config, key, ClientOptions::default(), |links| {
        Arc::new(Faulty::new(Arc::new(Direct::over(links)), all(300), 11))
    });
    survives(&mut cluster, &client.expect("a client"));
}

#[test]
fn a_broker_that_has_nothing_left_to_give_is_passed_by() {
    // Nobody brings what is left in this one: a queue that nobody empties takes what fits, and everything is submitted directly.
    let mut cluster =
        Local::start::<Reception, Tape>(4, reception::Config::default(), Tape::default).expect("a cluster");
    let (config, key) = cluster.cluster();
    let options = ClientOptions { retry: std::time::Duration::from_millis(20), ..ClientOptions::default() };
    let client = BlockingClient::connect_through::<Reception>(config, key, options, |_| Arc::new(InProcess::default()));
    survives(&mut cluster, &client.expect("a client"));
}
