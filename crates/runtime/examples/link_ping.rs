//! What a link costs: two replicas on loopback, on one thread or in two processes.
//!
//! ```text
//! cargo run --release -p quorate-runtime --example link_ping            # both ends on one event loop
//! cargo run --release -p quorate-runtime --example link_ping -- two     # two processes
//! ```

use bytes::Bytes;
use quorate_core::ids::{ClusterId, Epoch, Peer, ReplicaId};
use quorate_runtime::config::{Limits, Member, ReplicaConfig, Timing};
use quorate_runtime::keys::KeyPair;
use quorate_runtime::link::{Incoming, Links, Pace, Sent, listen};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error>>;

const ROUND_TRIPS: usize = 20_000;
const WARM_UP: usize = 2_000;
const PING_BYTES: usize = 64;
/// Message size and how many are sent one way: small ones as a protocol's votes, large ones as batches.
const STREAMS: [(usize, usize); 3] = [(64, 2_000_000), (4 * 1024, 200_000), (64 * 1024, 16_000)];
const CALLER: ReplicaId = ReplicaId::new(0);
const ECHO: ReplicaId = ReplicaId::new(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => one_process().await,
        ["two"] => two_processes().await,
        ["echo", folder] => echo(start(Path::new(folder), ECHO).await?).await,
        _ => Err("usage: link_ping [two]".into()),
    }
}

async fn one_process() -> Outcome<()> {
    let folder = prepare().await?;
    let answering = tokio::spawn(serve(folder.clone()));
    measure(start(&folder, CALLER).await?).await?;
    answering.abort();
    Ok(std::fs::remove_dir_all(folder)?)
}

async fn serve(folder: PathBuf) {
    if let Ok(links) = start(&folder, ECHO).await.map_err(|error| error.to_string()) {
        let _ = echo(links).await;
    }
}

async fn two_processes() -> Outcome<()> {
    struct Echo(Child);
    impl Drop for Echo {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let folder = prepare().await?;
    let _echo = Echo(Command::new(std::env::current_exe()?).arg("echo").arg(&folder).spawn()?);
    measure(start(&folder, CALLER).await?).await?;
    Ok(std::fs::remove_dir_all(folder)?)
}

/// Sends small messages back, swallows streams, and answers the last message of a stream, which is empty.
async fn echo(mut links: Links) -> Outcome<()> {
    loop {
        for item in links.recv().await {
            if let Incoming::Message { from, body } = item
                && (body.is_empty() || body[0] == 1)
            {
                links.send(from, body);
            }
        }
    }
}

async fn measure(mut links: Links) -> Outcome<()> {
    while !links.recv().await.contains(&Incoming::Connected(Peer::Replica(ECHO))) {}
    let ping = Bytes::from_static(&[1; PING_BYTES]);
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS + WARM_UP {
        let start = Instant::now();
        links.send(Peer::Replica(ECHO), ping.clone());
        links.recv().await;
        times.push(start.elapsed());
    }
    times.drain(..WARM_UP);
    times.sort_unstable();
    let percentile = |percent: usize| times[times.len() * percent / 100].as_nanos() as f64 / 1e3;
    println!("round trip of {PING_BYTES} B: p50 {:.1} µs, p99 {:.1} µs", percentile(50), percentile(99));
    for (size, count) in STREAMS {
        stream(&mut links, size, count).await;
    }
    Ok(())
}

async fn stream(links: &mut Links, size: usize, count: usize) {
    let body = Bytes::from(vec![0; size]);
    let start = Instant::now();
    for _ in 0..count {
        send(links, body.clone()).await;
    }
    send(links, Bytes::new()).await;
    links.recv().await;
    let seconds = start.elapsed().as_secs_f64();
    let megabytes = (size * count) as f64 / 1e6;
    println!("one way, {size:>5} B: {:>6.0} MB/s, {:>9.0} messages/s", megabytes / seconds, count as f64 / seconds);
}

async fn send(links: &Links, body: Bytes) {
    while links.send(Peer::Replica(ECHO), body.clone()) == Sent::Full {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

/// A folder with the files of a cluster of two.
async fn prepare() -> Outcome<PathBuf> {
    let folder = std::env::temp_dir().join(format!("quorate-link-ping-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let mut members = Vec::new();
    for replica in [CALLER, ECHO] {
        let key = KeyPair::generate()?;
        key.save(&folder.join(format!("{replica}.key")))?;
        let address = listen("127.0.0.1:0").await?.local_addr()?.to_string();
        members.push(Member { replica, address, public_key: key.public() });
    }
    for (id, member) in [CALLER, ECHO].into_iter().zip(&members) {
        let config = ReplicaConfig {
            cluster: ClusterId::new(1),
            epoch: Epoch::ZERO,
            protocol: "vr".into(),
            machine: "kv".into(),
            replica: id,
            key_file: format!("{id}.key").into(),
            data_dir: "data".into(),
            listen: member.address.clone(),
            clients: Vec::new(),
            members: members.clone(),
            criticality: None,
            tentative_requests: None,
            broker: None,
            limits: Limits::default(),
            timing: Timing::default(),
        };
        config.save(&folder.join(format!("{id}.toml")))?;
    }
    Ok(folder)
}

async fn start(folder: &Path, id: ReplicaId) -> Outcome<Links> {
    let config = ReplicaConfig::load(&folder.join(format!("{id}.toml")))?;
    let key = KeyPair::load(&config.key_file)?.key;
    let listener = listen(&config.listen).await?;
    Ok(Links::start(&config, &key, listener, Pace::default())?)
}
