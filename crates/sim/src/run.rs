//! One run of one seed: a storm, then calm, then judgement.

use crate::checker::{
    Broken, Property, durability, exactly_once, linearizability, liveness, revisions, storage, together,
};
use crate::clock::{MILLI, SECOND};
use crate::cluster::{Cluster, Setup};
use crate::faults::{Fault, Faults};
use crate::misfortune::Misfortune;
use crate::protocols::Simulated;
use crate::random::Random;
use crate::registers::Registers;
use crate::report::Report;
use quorate_core::ids::OpNumber;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The storm ends after this, also when calls are left, virtual nanoseconds.
const STORM_MAX: u64 = 60 * SECOND;
/// After the storm everything must be answered and everybody agree within this, virtual nanoseconds.
const CALM_MAX: u64 = 30 * SECOND;
/// A call that is pending when everything has healed, or is made later, must be *answered* within this, virtual
/// nanoseconds; "no answer in time" will not do, unless its client gave it less time.
const ANSWER_MAX: u64 = 8 * SECOND;
/// Calls that each client makes in the calm, one after the other.
const PROBES: usize = 4;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides everything that the other options leave open.
    pub seed: u64,
    /// How many replicas. 3.
    pub replicas: usize,
    /// How many clients. 3.
    pub clients: usize,
    /// Calls that all clients make together during the storm. 150.
    pub ops: u64,
    /// What may go wrong, of what the protocol's model allows. All.
    pub faults: Faults,
    /// The level of criticality, for protocols that have levels; without it, the seed draws one.
    pub criticality: Option<u8>,
    /// Faults that the model excludes strike too. Then only that is asserted which theory still promises: see
    /// [`Simulated::promised_beyond`].
    pub beyond_model: bool,
    /// Keep what happened, event by event.
    pub trace: bool,
    /// Run twice, and compare every turn.
    pub twice: bool,
    /// If there is a list, nothing else goes wrong: see [`crate::misfortune`].
    pub only: Option<BTreeSet<Misfortune>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            replicas: 3,
            clients: 3,
            ops: 150,
            faults: Faults::all(),
            criticality: None,
            beyond_model: false,
            trace: false,
            twice: false,
            only: None,
        }
    }
}

impl Options {
    /// The command that repeats this run.
    pub fn replay(&self, protocol: &str) -> String {
        let Self { seed, replicas, ops, faults, .. } = self;
        let clients = match self.clients {
            3 => String::new(),
            other => format!(" --clients {other}"),
        };
        let beyond = if self.beyond_model { " --beyond-model" } else { "" };
        let level = self.criticality.map_or_else(String::new, |level| format!(" --criticality {level}"));
        format!(
            "quorate sim --protocol {protocol} --seed {seed} --replicas {replicas}{clients} --ops {ops} --faults {faults}{level}{beyond}"
        )
    }

    /// What may go wrong in a run of this protocol.
    pub(crate) fn faults_of<P: Simulated>(&self) -> Faults {
        match self.beyond_model {
            true if P::BROKERED => self.faults.clone(),
            true => self.faults.split().1, // there is no broker that could be faulty
            false => P::allowed(&self.faults, self.replicas),
        }
    }
}

thread_local! {
    /// What this thread is running, for the message of a panic that ends the process.
    static RUNNING: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Adds the replay command to the message of a panic: where panics abort, it is all that is left of a run. Call it once,
/// from a program's `main`.
pub fn name_runs_in_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        before(info);
        RUNNING.with_borrow(|running| {
            if let Some(replay) = running {
                eprintln!("violates {}\nreplay     {replay}", Property::NO_PANIC);
            }
        });
    }));
}

/// Runs one seed of one protocol. A panic of a replica is a violation like any other where panics unwind.
pub fn run<P: Simulated>(options: &Options) -> Report {
    let first = run_once::<P>(options);
    if !options.twice || !first.holds() {
        return first;
    }
    let second = run_once::<P>(options);
    let mut report = first;
    if (report.audit, &report.counts) != (second.audit, &second.counts) {
        let detail = format!("one run ended in {:?}, the other in {:?}", report.audit, second.audit);
        report.violation = Some(crate::Violation { property: Property::DETERMINISM, detail, at: report.virtual_nanos });
    }
    report
}

fn run_once<P: Simulated>(options: &Options) -> Report {
    let replay = options.replay(P::NAME);
    RUNNING.with_borrow_mut(|running| *running = Some(replay.clone()));
    let mut setting = Random::new(options.seed ^ 0x71f0_0a7e);
    let setup = Setup::<P, Registers> {
        seed: options.seed,
        replicas: options.replicas,
        clients: options.clients,
        calls: options.ops,
        pairs: P::PER_OBJECT,
        levels: P::levels(options.replicas),
        faults: options.faults_of::<P>(),
        liars: P::liars(options.replicas).saturating_add(usize::from(options.beyond_model)),
        lies: P::lies(),
        rejoin: P::rejoin(),
        config: P::config_at(&mut setting, options.criticality),
        machine: Registers::default,
        trace: options.trace,
        only: options.only.clone(),
    };
    let mut cluster = Cluster::new(setup);
    let outcome = catch_unwind(AssertUnwindSafe(|| storm_and_calm(&mut cluster)));
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err((property, detail))) => cluster.violate(property, detail),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            cluster.violate(Property::NO_PANIC, text.unwrap_or_else(|| "without words".to_owned()));
        }
    }
    RUNNING.with_borrow_mut(|running| *running = None);
    let mut report = cluster.into_report(options.seed, replay, options.trace);
    if options.beyond_model {
        forgive::<P>(&mut report, options.replicas);
    }
    report
}

/// Beyond the model, what is not promised is not demanded: it is told apart from what is.
fn forgive<P: Simulated>(report: &mut Report, replicas: usize) {
    // There is one liar too many.
    let excluded = |fault: &Fault| fault.is_lie() || P::excludes(*fault, replicas);
    let beyond: Vec<Fault> = report.counts.faults.keys().copied().filter(excluded).collect();
    let Some(violation) = &report.violation else { return };
    let promised = |fault: &Fault| P::promised_beyond(*fault).contains(&violation.property);
    if !beyond.is_empty() && (violation.property == Property::NO_HALT || !beyond.iter().all(promised)) {
        report.beyond = report.violation.take();
    }
}

fn storm_and_calm<P: Simulated>(cluster: &mut Cluster<P, Registers>) -> Result<(), Broken> {
    while cluster.now() < STORM_MAX && !cluster.is_done() && cluster.step() {}
    if cluster.violation().is_some() {
        return Ok(());
    }
    cluster.heal(P::spared(cluster.members));
    let healed = cluster.now();
    let end = healed.saturating_add(CALM_MAX);
    let mut probed = 0;
    while cluster.now() < end {
        // Progress is required, not hoped for: new calls, one after the other, by every client.
        if cluster.is_done() && probed < PROBES {
            cluster.probe();
            probed += 1;
        }
        if probed == PROBES && cluster.is_done() && cluster.has_converged() {
            break;
        }
        cluster.counts.calm_ms = cluster.now().saturating_sub(healed) / MILLI;
        let until = cluster.now().saturating_add(10 * MILLI);
        cluster.run_until(until);
        if cluster.violation().is_some() {
            return Ok(());
        }
    }
    judge(cluster, probed, healed)
}

fn judge<P: Simulated>(cluster: &Cluster<P, Registers>, probed: usize, healed: u64) -> Result<(), Broken> {
    let history = cluster.history();
    let orders: Vec<&[u64]> = cluster.states().iter().map(|(_, machine)| machine.order()).collect();
    for order in &orders {
        exactly_once::check(history, order).map_err(|detail| (Property::EXACTLY_ONCE, detail))?;
    }
    liveness::check(history, &orders)?;
    let patience = u64::try_from(cluster.patience.1.as_nanos()).unwrap_or(u64::MAX);
    liveness::answered(history, healed, ANSWER_MAX, patience)?;
    if probed < PROBES {
        return Err((Property::LIVENESS_1, "new calls were not answered after everything had healed".to_owned()));
    }
    if !cluster.has_converged() {
        let states: Vec<String> =
            cluster.states().iter().map(|(op, it)| format!("{op}/{}", it.order().len())).collect();
        return Err((Property::CONVERGENCE, format!("entries/writes by replica: {}", states.join(", "))));
    }
    for order in &orders {
        durability::check(history, order).map_err(|detail| (Property::DURABILITY, detail))?;
    }
    let agreed = orders.iter().max_by_key(|order| order.len()).copied().unwrap_or_default();
    if !P::PER_OBJECT {
        cluster.check_files().map_err(|detail| (Property::SNAPSHOTS, detail))?;
    }
    cluster.check_watches().map_err(|detail| (Property::WATCHES, detail))?;
    let orders = cluster.states().into_iter().map(|(_, machine)| machine.orders()).max_by_key(|orders| orders.len());
    match orders.filter(|_| P::PER_OBJECT) {
        Some(orders) => revisions::check_each(history, orders),
        None => revisions::check(history, agreed),
    }
    .map_err(|detail| (Property::REVISIONS, detail))?;
    if let Some(orders) = orders.filter(|_| P::PER_OBJECT) {
        together::check(history, orders).map_err(|detail| (Property::LINEARIZABILITY, detail))?;
    }
    linearizability::check(history).map_err(|detail| (Property::LINEARIZABILITY, detail))
}

impl<P: Simulated> Cluster<P, Registers> {
    /// Have all calls been made, and has everybody heard?
    fn is_done(&self) -> bool {
        self.workload.left() == 0 && self.clients.iter().all(|client| client.waiting == 0)
    }

    /// Every client makes one more call.
    fn probe(&mut self) {
        for client in 0..self.clients.len() {
            let call = self.workload.probe();
            self.call(client, vec![call]);
        }
    }

    /// Are snapshots of one name equal wherever they are? Those of the disk that decays may not be.
    fn check_files(&self) -> Result<(), String> {
        let mut files = storage::Files::default();
        let decays = self.counts.faults.contains_key(&Fault::SnapshotRot);
        for (replica, process) in self.replicas.iter().enumerate() {
            if !(decays && replica == self.rot_victim || self.adversary.lies(replica)) {
                for (name, bytes) in process.storage.snapshot_files() {
                    files.found(replica, &name, &bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Has everybody who watches been told everything?
    fn check_watches(&self) -> Result<(), String> {
        for (replica, process) in self.replicas.iter().enumerate() {
            if let Some(running) = process.running.as_ref().filter(|it| it.jobs.is_empty() && process.paused.is_none())
            {
                self.watches.rests(replica, running.executor.op())?;
            }
        }
        Ok(())
    }

    /// The states of all replicas of which something is expected: the last entry applied, and the machine.
    fn states(&self) -> Vec<(OpNumber, &Registers)> {
        let honest = self.replicas.iter().enumerate().filter(|(at, it)| !it.spared && !self.adversary.lies(*at));
        let running = honest.filter_map(|(_, process)| process.running.as_ref());
        running.map(|running| (running.executor.op(), running.executor.machine())).collect()
    }

    /// Does everybody who can run at all run, and are all in one state?
    fn has_converged(&self) -> bool {
        let honest = self.replicas.iter().enumerate().filter(|(at, _)| !self.adversary.lies(*at));
        let expected = honest.filter(|(_, process)| process.stopped.is_none() && !process.spared).count();
        let states = self.states();
        let Some((op, first)) = states.first() else { return false };
        // Those of whom something is expected may agree, and yet have to hear of what somebody else has answered.
        states.len() == expected
            && states.iter().all(|(at, machine)| (at == op || P::PER_OBJECT) && machine.order() == first.order())
            && states.iter().all(|(_, machine)| machine.orders() == first.orders())
            && durability::check(self.history(), first.order()).is_ok()
    }

    fn into_report(mut self, seed: u64, replay: String, trace: bool) -> Report {
        let (audit, virtual_nanos) = (self.audit(), self.now());
        for (fault, count) in &self.network.struck {
            let sum = self.counts.faults.entry(*fault).or_default();
            *sum = sum.saturating_add(*count);
        }
        let (violation, counts) = (self.violation.clone(), self.counts.clone());
        if trace && violation.is_some() {
            // For the picture only; a panic on the way has been noticed already, or is none of this run's business.
            let _whatever_happens = catch_unwind(AssertUnwindSafe(|| self.aftermath()));
        }
        let (trace, struck) = self.into_recording_and_struck();
        Report { seed, violation, beyond: None, replay, counts, virtual_nanos, audit, trace, struck }
    }
}
