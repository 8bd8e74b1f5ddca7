//! `quorate events verify`: does what lies on the disks prove what the store says? No replica runs, and none is believed.
//!
//! For each replica: every byte is read; the signatures of clients and replicas and the certificates of quorums are checked; the
//! entries are followed along the chain that quorums have signed, and applied again to the state of the snapshot in which the log
//! begins; snapshots that a quorum has signed must be those, and the entries must lead to states that quorums have signed. What was cut
//! off the log cannot be checked entry by entry any more, and is named. Then the replicas are held against each other, entry by entry.

use crate::errors::{Advise, failure};
use crate::progress::Progress;
use crate::served::{Machine, Protocol, Served};
use crate::text::count;
use clap::Args;
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::executor::{Done, Executor, Job};
use quorate_core::ids::{OpNumber, RecordSeq, ReplicaId};
use quorate_core::machine::{Query as _, StateMachine as _, View as _};
use quorate_core::protocol::Checkpoint;
use quorate_core::wire::Wire;
use quorate_machines::Events;
use quorate_machines::events::{Query, Reply};
use quorate_protocols::audit::{Audit, Audited};
use quorate_protocols::pbft::Pbft;
use quorate_protocols::reception::Reception;
use quorate_runtime::config::ReplicaConfig;
use quorate_runtime::replica::belongs;
use quorate_store::{FolderLock, Item, Looked, RealDisk, look};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Check signatures, certificates, chain and state of replicas that are down, from the bytes on their disks
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate events verify --dir cluster              all replicas in it, and that they agree
  quorate events verify --dir cluster/replica-2    one replica alone

Exit status 1 if anything is not as it was written, not signed as it must be, or not the same on two replicas; what and where is
said. A publication's level is how many liars could not have chosen its time. A log whose beginning was cut is checked from there on, and what cannot be seen any more is said. Nothing is changed. The keys are those in the files replica.toml: keep a copy of one where nobody else can write. It needs a
protocol whose replicas sign: pbft or reception.")]
pub(super) struct Arguments {
    /// The cluster's folder, or a replica's
    #[arg(long)]
    dir: PathBuf,
}

/// What a replica's folder came to.
struct Verified {
    id: ReplicaId,
    findings: Vec<String>,
    /// What was not looked at, since it is not there any more.
    unseen: Option<String>,
    /// The digest of the store after each entry that was applied: a chain over everything that ever happened in it.
    states: BTreeMap<OpNumber, Digest>,
}

/// Runs the command.
///
/// # Errors
/// If there is no event store in the folder, its replicas run, or its protocol signs nothing.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut all = Vec::new();
    for file in replica_files(&arguments.dir)? {
        let config = ReplicaConfig::load(&file)?;
        if Machine::of(&config.machine) != Some(Machine::Events) {
            let what = format!("{} replicates `{}`, not an event store", arguments.dir.display(), config.machine);
            return Err(failure(what, "name the folder of a cluster that was started with --events"));
        }
        let verified = match Protocol::named(&config.protocol) {
            Some(Protocol::Pbft) => verify::<Pbft>(&config)?,
            Some(Protocol::Reception) => verify::<Reception>(&config)?,
            _ => {
                let what = format!("replicas that run `{}` sign nothing that could be checked", config.protocol);
                return Err(failure(what, "quorate verify --dir REPLICA looks for damage; pbft and reception sign"));
            }
        };
        all.push(verified);
    }
    let contradictions = compare(&all);
    let wrong = all.iter().map(|it| it.findings.len()).sum::<usize>().saturating_add(contradictions.len());
    for finding in all.iter().flat_map(|it| it.findings.iter().map(|what| format!("{}: {what}", it.id))) {
        println!("{finding}");
    }
    contradictions.iter().for_each(|what| println!("{what}"));
    if wrong == 0 {
        let cut = all.iter().filter(|it| it.unseen.is_some()).count() as u64;
        match cut {
            0 => println!("everything holds"),
            _ => println!("everything that is here holds; the logs of {} were cut: see above", count(cut, "replica")),
        }
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} NOT AS IT MUST BE", count(wrong as u64, "thing"));
    Ok(ExitCode::FAILURE)
}

/// The files of the replicas in a folder: of all of a cluster, or of one.
fn replica_files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let own = dir.join("replica.toml");
    if own.is_file() {
        return Ok(vec![own]);
    }
    let advice = "name the folder of a cluster, or of one of its replicas";
    let entries = std::fs::read_dir(dir).advise(format!("cannot read the folder {}", dir.display()), advice)?;
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path().join("replica.toml")).filter(|file| file.is_file()).collect();
    files.sort();
    if files.is_empty() {
        let what = format!("there is no replica in {}", dir.display());
        return Err(failure(what, advice));
    }
    Ok(files)
}

fn verify<P: Audited + Served>(config: &ReplicaConfig) -> anyhow::Result<Verified> {
    let mut progress = Progress::start("verify", "steps", 2);
    let disk = RealDisk::open(&config.data_dir)?;
    let _lock: FolderLock = disk.lock().advise(
        format!("{} cannot be looked at while it runs: what is just being written looks damaged", config.replica),
        "stop it, or copy its folder",
    )?;
    let Looked { belongs: found, items, snapshots, mut findings } = look::<_, Events>(&disk)?;
    if found != belongs(config) {
        findings.push(format!("superblock: it is the folder of {found}"));
    }
    progress.add(1);
    let mut records = Vec::new();
    for item in items {
        let Item::Found { seq, body, .. } = item else { continue }; // `look` has named the others
        match P::Record::decode(&body) {
            Ok(record) => records.push((RecordSeq::new(seq), record)),
            Err(error) => findings.push(format!("wal: record {seq} is not one of this protocol: {error}")),
        }
    }
    let replicas: Vec<_> = config.members.iter().map(|member| member.public_key.for_statements()).collect();
    let clients: Vec<_> = config.clients.iter().map(|key| key.for_statements()).collect();
    let keyring = Keyring::ed25519(config.cluster, config.epoch, &replicas, &clients)?;
    let audit = P::audit(records, &keyring, &P::configure_from(config));
    progress.add(1);
    findings.extend(audit.findings.iter().map(|finding| match finding.record {
        Some(seq) => format!("wal: record {seq}: {}", finding.what),
        None => format!("wal: {}", finding.what),
    }));
    let Replayed { states, unseen } = replay(&audit, snapshots, &mut findings);
    progress.finish();
    println!("{}", summary(config.replica, &audit, &states));
    if let Some(unseen) = &unseen {
        println!("{}: {unseen}", config.replica);
    }
    Ok(Verified { id: config.replica, findings, unseen, states })
}

fn summary(id: ReplicaId, audit: &Audit, states: &BTreeMap<OpNumber, Digest>) -> String {
    let (first, last) = (audit.begins.next(), states.keys().next_back().copied().unwrap_or(audit.begins));
    let mut text = format!("{id}: {} hold; entries {first} to {last} are certified", count(audit.proofs, "proof"));
    if audit.receptions > 0 {
        text.push_str(&format!(", with receptions of {}", count(audit.receptions, "publication")));
        let levels = audit.levels.iter().rev().map(|(level, publications)| format!("{publications} at level {level}"));
        text.push_str(&format!(" ({})", levels.collect::<Vec<_>>().join(", ")));
    }
    if audit.void > 0 {
        text.push_str(&format!(
            "; {} did not hold and was passed over: a primary lied",
            count(audit.void, "certificate")
        ));
    }
    if let Some(state) = states.values().next_back() {
        text.push_str(&format!("; state {}", state.short()));
    }
    text
}

/// What came of applying the entries again.
#[derive(Default)]
struct Replayed {
    /// The state after each entry.
    states: BTreeMap<OpNumber, Digest>,
    /// What happened before the log begins.
    unseen: Option<String>,
}

/// Applies the certified entries again, from the snapshot in which the log begins, and holds what comes out against the other
/// snapshots and against what quorums have signed.
fn replay(audit: &Audit, snapshots: Vec<(Checkpoint, Executor<Events>)>, findings: &mut Vec<String>) -> Replayed {
    let begins = audit.begins;
    let mut kept = BTreeMap::new();
    let mut start = (begins == OpNumber::ZERO).then(|| Executor::new(Events::new()));
    for (checkpoint, executor) in snapshots {
        if audit.states.get(&checkpoint.op).is_some_and(|signed| *signed != checkpoint.id) {
            findings.push(format!("{}: it is not the state that a quorum has signed", file_of(checkpoint.op)));
        }
        kept.insert(checkpoint.op, executor.digest());
        if start.is_none() && checkpoint.op >= begins {
            start = Some(executor);
        }
    }
    let Some(mut executor) = start else {
        findings.push(format!("snapshots: the state after entry {begins}, where the log begins, is not here"));
        return Replayed::default();
    };
    if executor.op() > begins {
        findings.push(format!(
            "snapshots: the state after entry {begins}, where the log begins, is not here: what entries {} to {} did is not \
             applied again",
            begins.next(),
            executor.op()
        ));
    }
    let from = executor.op();
    let mut unseen = (begins > OpNumber::ZERO).then(|| unseen(begins, &executor));

    let mut states = BTreeMap::from([(from, executor.machine().digest())]);
    let mut is_signed = leads_to_what_is_signed(&mut executor, audit, findings);
    for (op, batch) in audit.entries.range(from.next()..) {
        let _done = executor.run(Job::Execute { op: *op, batch: batch.clone() });
        states.insert(*op, executor.machine().digest());
        if kept.get(op).is_some_and(|digest| *digest != executor.digest()) {
            findings.push(format!("{}: it is not what the certified entries lead to", file_of(*op)));
        }
        is_signed |= leads_to_what_is_signed(&mut executor, audit, findings);
    }
    let last = executor.op();
    match (&mut unseen, audit.states.range(last.next()..).next()) {
        (Some(unseen), _) if is_signed => unseen.push_str(". A quorum has signed that, or what follows from it here"),
        (Some(unseen), Some((signed, _))) => unseen.push_str(&format!(
            ". The state that a quorum has signed is that after entry {signed}, and this log ends before it: other replicas' logs tell"
        )),
        (Some(_), None) => findings.push(format!(
            "{}: no quorum has signed this state, nor one to which the entries lead from there: nothing proves it",
            file_of(from)
        )),
        (None, _) => {}
    }
    Replayed { states, unseen }
}

fn file_of(op: OpNumber) -> String {
    format!("snapshots/{:016x}.snap", op.get())
}

/// What nobody can check one by one in a log that begins after this entry, in this state.
fn unseen(begins: OpNumber, state: &Executor<Events>) -> String {
    let mut reply = Vec::new();
    let asked = Query::Status.encode().map(|query| state.machine().view().query(&query, &mut reply));
    let status = asked.and_then(|()| Reply::decode(&reply)).and_then(Reply::status);
    let events = status.map(|status| status.position).unwrap_or_default();
    format!(
        "not seen: entries 1 to {begins}, which were cut off its log. Its store had {} then, of which is known what they led to ({}), \
         and not who asked for each and who has received it",
        count(events, "event"),
        file_of(state.op()),
    )
}

/// If a quorum has signed the state after the last entry that was applied: is it this one? Whether that proves it.
fn leads_to_what_is_signed(executor: &mut Executor<Events>, audit: &Audit, findings: &mut Vec<String>) -> bool {
    let op = executor.op();
    let Some(signed) = audit.states.get(&op) else { return false };
    let Done::Saving(mut save) = executor.run(Job::Checkpoint(op)) else { return false };
    while save.next_chunk().is_some() {}
    let is_signed = save.finish().checkpoint().id == *signed;
    if !is_signed {
        findings.push(format!("after entry {op} the store is in another state than the one that a quorum has signed"));
    }
    is_signed
}

/// Whether two replicas are in different states after the same entry: the first such entry for each.
fn compare(all: &[Verified]) -> Vec<String> {
    let mut known: BTreeMap<OpNumber, (ReplicaId, Digest)> = BTreeMap::new();
    let mut contradictions = Vec::new();
    for it in all {
        let mut differs = false;
        for (op, digest) in &it.states {
            let (other, theirs) = *known.entry(*op).or_insert((it.id, *digest));
            if theirs != *digest && !differs {
                differs = true;
                contradictions.push(format!("after entry {op} {} and {other} are in different states", it.id));
            }
        }
    }
    contradictions
}
