//! A real `nats-server` as the broker of a cluster in this process: what is answered was applied once, whatever becomes of it.

mod support;

use quorate::borsh::{BorshDeserialize, BorshSerialize};
use quorate::broker::{Broker, BrokerFaults, Faulty, Left};
use quorate::{At, BlockingClient, ClientOptions, ClusterId, Consistency, Local, Output, Reception, Small, reception};
use quorate_nats::Nats;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::Server;

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

const ID: ClusterId = ClusterId::new(7);

/// Four replicas that consume from the server.
fn cluster(server: &Server) -> Local {
    let broker: Arc<dyn Broker> = Arc::new(Nats::for_replica(&server.url(), ID).expect("an address"));
    Local::start_with::<Reception, Tape>(4, reception::Config::default(), Tape::default, Some(broker))
        .expect("a cluster")
}

/// A client that publishes through it, so patient that what the broker delivers is not submitted directly as well.
fn client(cluster: &Local, server: &Server, faults: &str) -> BlockingClient {
    let (config, key) = cluster.cluster();
    let faults: BrokerFaults = faults.parse().expect("a list");
    let options = ClientOptions { retry: Duration::from_millis(400), ..ClientOptions::default() };
    let client = BlockingClient::connect_through::<Reception>(config, key, options, |_| {
        let nats = Arc::new(Nats::for_client(&server.url(), ID).expect("an address"));
        Arc::new(Faulty::new(nats, faults, 5))
    });
    client.expect("a client")
}

fn apply(client: &BlockingClient, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let answer = client.apply(format!("w{number}")).expect("an answer");
        assert_eq!(String::from_utf8_lossy(&answer.reply), (number + 1).to_string());
    }
}

fn holds(client: &BlockingClient, count: usize) {
    let expected: Vec<String> = (0..count).map(|number| format!("w{number}")).collect();
    let read = client.read(Consistency::Linearizable, "").expect("an answer");
    assert_eq!(String::from_utf8_lossy(&read.reply), expected.join(" "));
}

/// Goes on until the server is used: each publication is four messages to it. The number of the next one.
fn apply_until_used(client: &BlockingClient, server: &Server, mut number: usize) -> usize {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let before = server.messages();
        apply(client, number..number + 10);
        number += 10;
        if server.messages() >= before + 40 {
            return number;
        }
        assert!(Instant::now() < until, "nothing goes through the server: {} then {before}", server.messages());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn publications_go_through_the_server_and_over_links_while_it_is_away() {
    let Some(mut server) = Server::start() else { return };
    let cluster = cluster(&server);
    let client = client(&cluster, &server, "");
    let next = apply_until_used(&client, &server, 0);
    server.kill();
    apply(&client, next..next + 20);
    server.spawn();
    let next = apply_until_used(&client, &server, next + 20);
    server.kill();
    server.lose_disk();
    server.spawn();
    let next = apply_until_used(&client, &server, next);
    holds(&client, next);
}

#[test]
fn a_server_at_its_worst_loses_nothing_that_was_answered() {
    let Some(mut server) = Server::start() else { return };
    let cluster = cluster(&server);
    let client = client(&cluster, &server, "all:300");
    apply(&client, 0..40);
    server.kill();
    apply(&client, 40..50);
    server.spawn();
    apply(&client, 50..60);
    holds(&client, 60);
}

#[test]
fn without_a_server_nothing_is_taken_and_an_address_that_is_none_is_named() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let nobody = Nats::for_client("nats://127.0.0.1:1", ID).expect("an address");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(nobody.publish(quorate::ReplicaId::new(0), "x".into()), Left::Unavailable);
        assert!(Nats::for_client("nats://", ID).is_err());
    });
}
