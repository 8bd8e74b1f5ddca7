//! `quorate sim --calibrate FILE`: what the work of a replica costs on this machine.

use super::super::bench::{control, system::processor_time};
use crate::errors::Advise;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::crypto::{Digest, Keyring, PublicKey, Secret, Statement};
use quorate_core::executor::{Executor, Job};
use quorate_core::ids::{ClientId, ClusterId, Epoch, OpNumber, Peer, Position, ReplicaId, RequestNumber, SessionId};
use quorate_core::sessions::{Batch, Body, Request};
use quorate_core::time::WallTime;
use quorate_core::wire::Wire;
use quorate_machines::Kv;
use quorate_machines::kv::{Operation, Put};
use quorate_protocols::vr::{self, Vr};
use quorate_runtime::config::{Limits, Member, ReplicaConfig, Timing};
use quorate_runtime::keys::KeyPair;
use quorate_runtime::link::{Incoming, Links, Pace, Sent, listen};
use quorate_sim::model::{Costs, Question, find};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What one computer cannot say of itself.
const NETWORK: &str = "# From one machine to another: not measured, say what yours is. 50 µs one way, 10 Gbit/s.";
/// How long each thing is tried.
const EACH: Duration = Duration::from_millis(400);
/// Frames that are on their way at once: a few share a system call, as between replicas.
const TOGETHER: usize = 8;

/// A statement of no protocol.
#[derive(Clone, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
struct Sample(Digest);

impl Statement for Sample {
    const DOMAIN: &'static str = "calibration sample";
}

/// Runs `sim --calibrate`.
///
/// # Errors
/// What the disk, the network or the file says.
pub async fn run(file: &Path) -> anyhow::Result<ExitCode> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    println!("measuring for about ten seconds; the machine should have nothing else to do");
    let (sign_ns, verify_ns) = signatures()?;
    println!("signature      {sign_ns} ns to make, {verify_ns} ns to check");
    let (frame_ns, frame_byte_ps) = frames().await?;
    println!("frame          {frame_ns} ns on either side, {frame_byte_ps} ps a byte");
    let log_byte_ps = log_bytes();
    println!("log            {log_byte_ps} ps a byte");
    let apply_ns = applying();
    println!("operation      {apply_ns} ns");
    let turn_ns = turns()?;
    println!("turn           {turn_ns} ns");
    let raw = control::measure_each(folder, &[256, 1 << 20])
        .advise(format!("cannot measure the disk of {}", folder.display()), "name a file in a folder of yours")?;
    let micros = |index: usize| raw.get(index).map_or(0.0, |raw| raw.p50_us);
    let sync_ns = (micros(0) * 1e3) as u64;
    let sync_byte_ps = ((micros(1) - micros(0)).max(0.0) * 1e6 / f64::from(1 << 20)) as u64;
    println!("sync           {sync_ns} ns, {sync_byte_ps} ps a byte");
    let costs = Costs {
        sign_ns,
        verify_ns,
        frame_ns,
        frame_byte_ps,
        log_byte_ps,
        turn_ns,
        apply_ns,
        sync_ns,
        sync_byte_ps,
        ..Costs::MEASURED
    };
    let text = toml::to_string(&costs)?.replace("latency_ns", &format!("{NETWORK}\nlatency_ns"));
    fs::write(file, text).advise(format!("cannot write {}", file.display()), "name a file in a folder that exists")?;
    println!("written to {}; use it with: quorate sim --bench --costs {}", file.display(), file.display());
    Ok(ExitCode::SUCCESS)
}

/// How long one of something takes, nanoseconds: the best of several rounds, since other programs only ever slow it down.
fn best(mut work: impl FnMut(), each: u64) -> u64 {
    let begin = Instant::now();
    let mut best = u64::MAX;
    while begin.elapsed() < EACH {
        let start = Instant::now();
        work();
        best = best.min(control::nanos(start.elapsed()) / each.max(1));
    }
    best
}

fn signatures() -> anyhow::Result<(u64, u64)> {
    const ROUND: u64 = 50;
    let (cluster, epoch) = (ClusterId::new(1), Epoch::ZERO);
    let public: PublicKey = Secret::from_seed([7; 32]).public();
    let keyring = Keyring::ed25519(cluster, epoch, &[public], &[])?;
    let mine =
        Keyring::ed25519(cluster, epoch, &[public], &[])?.of_replica(ReplicaId::new(0), Secret::from_seed([7; 32]))?;
    let sample = Sample(Digest::of(b"calibration"));
    let make = || {
        for _ in 0..ROUND {
            std::hint::black_box(mine.sign(sample.clone()));
        }
    };
    let sign = best(make, ROUND);
    let bytes = mine.sign(sample).encode();
    let check = || {
        for _ in 0..ROUND {
            let decoded = quorate_core::crypto::Signed::<Sample>::decode(&bytes);
            let proven = decoded.map(|mut signed| signed.prove(&keyring).is_ok());
            assert_eq!(proven.ok(), Some(true), "a signature that was just made is good");
        }
    };
    Ok((sign, best(check, ROUND)))
}

fn log_bytes() -> u64 {
    const BYTES: usize = 64 << 10;
    let record = vec![0x5a_u8; BYTES];
    let mut log = Vec::with_capacity(BYTES);
    let nanos = best(
        || {
            for _ in 0..16 {
                log.clear();
                log.extend_from_slice(std::hint::black_box(&record));
                std::hint::black_box(crc32c::crc32c(&log));
            }
        },
        16,
    );
    nanos.saturating_mul(1000) / BYTES as u64
}

fn put(number: u64) -> anyhow::Result<Bytes> {
    let key = format!("key-{:08}", number % 10_000);
    let put = Put { key: key.into(), value: vec![b'x'; 256].into(), ..Put::default() };
    Ok(Operation::Put(put).encode()?.into())
}

fn applying() -> u64 {
    const REQUESTS: u64 = 100;
    let client = ClientId::new(1);
    let mut executor = Executor::new(Kv::default());
    let request = |session, number, body| Request {
        client,
        session: SessionId::new(session),
        number: RequestNumber::new(number),
        acknowledged: RequestNumber::new(u64::saturating_sub(number, 1)),
        body,
    };
    let mut op = OpNumber::ZERO;
    let mut apply = |requests: Vec<Request>| {
        op = op.next();
        let batch = Batch { time: WallTime::default(), tick: false, requests };
        std::hint::black_box(executor.run(Job::Execute { op, batch: batch.encode().into() }));
    };
    apply(vec![request(0, 0, Body::Register)]);
    let session = Position::new(1).get();
    let mut number = 0;
    let round = || {
        let requests = (0..REQUESTS).filter_map(|_| {
            number += 1;
            Some(request(session, number, Body::Apply(put(number).ok()?)))
        });
        apply(requests.collect());
    };
    best(round, REQUESTS)
}

/// A turn of Viewstamped Replication with everything around it: what the model itself takes for one.
fn turns() -> anyhow::Result<u64> {
    let free = Costs { turn_ns: 1, sync_ns: 1, latency_ns: 0, ..Costs::FREE };
    let question = Question::<Vr> {
        replicas: 3,
        clients: 4,
        in_flight: 4,
        payload: 256,
        answers: 5_000,
        config: vr::Config::default(),
        costs: free,
    };
    let mut best = u64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        let found = find(&question)?;
        let turns: u64 = found.replicas.iter().map(|work| work.turns).sum();
        best = best.min(control::nanos(start.elapsed()) / turns.max(1));
    }
    Ok(best)
}

/// Two replicas' links on loopback: processor time of one frame on one side, nanoseconds, and of a byte, picoseconds.
async fn frames() -> anyhow::Result<(u64, u64)> {
    let (mut one, mut other) = links().await?;
    for end in [&mut one, &mut other] {
        while !soon(end.recv()).await?.iter().any(|item| matches!(item, Incoming::Connected(_))) {}
    }
    let small = each_frame(&mut one, &mut other, 100, 100_000).await?;
    let large = each_frame(&mut one, &mut other, 64 << 10, 10_000).await?;
    let byte_ps = (large - small).max(0.0) * 1e3 / f64::from((64 << 10) - 100);
    Ok((small as u64, byte_ps as u64))
}

async fn soon<T>(what: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(Duration::from_secs(5), what).await.advise("nothing arrived on loopback", "try again")
}

async fn links() -> anyhow::Result<(Links, Links)> {
    let keys = [KeyPair::generate()?, KeyPair::generate()?];
    let listeners = [listen("127.0.0.1:0").await?, listen("127.0.0.1:0").await?];
    let mut members = Vec::new();
    for ((id, key), listener) in (0..).map(ReplicaId::new).zip(&keys).zip(&listeners) {
        let address = listener.local_addr()?.to_string();
        members.push(Member { replica: id, address, public_key: key.public() });
    }
    let mut links = Vec::new();
    for ((id, key), listener) in (0..).map(ReplicaId::new).zip(&keys).zip(listeners) {
        let config = ReplicaConfig {
            cluster: ClusterId::new(1),
            epoch: Epoch::ZERO,
            protocol: "vr".to_owned(),
            machine: "kv".to_owned(),
            replica: id,
            key_file: PathBuf::new(),
            data_dir: PathBuf::new(),
            listen: listener.local_addr()?.to_string(),
            clients: Vec::new(),
            members: members.clone(),
            criticality: None,
            tentative_requests: None,
            broker: None,
            limits: Limits::default(),
            timing: Timing::default(),
        };
        links.push(Links::start(&config, key, listener, Pace::default())?);
    }
    let (Some(other), Some(one)) = (links.pop(), links.pop()) else { anyhow::bail!("two links were made") };
    Ok((one, other))
}

async fn each_frame(one: &mut Links, other: &mut Links, bytes: usize, count: usize) -> anyhow::Result<f64> {
    let body = Bytes::from(vec![0x5a; bytes]);
    let to = Peer::Replica(ReplicaId::new(1));
    let (mut sent, mut received) = (0_usize, 0_usize);
    let before = processor_time("self");
    while received < count {
        while sent < count && sent.saturating_sub(received) < TOGETHER && one.send(to, body.clone()) == Sent::Queued {
            sent = sent.saturating_add(1);
        }
        let arrived = soon(other.recv()).await?;
        received += arrived.iter().filter(|item| matches!(item, Incoming::Message { .. })).count();
    }
    let took = processor_time("self").saturating_sub(before);
    Ok(took.as_secs_f64() * 1e9 / count as f64 / 2.0)
}
