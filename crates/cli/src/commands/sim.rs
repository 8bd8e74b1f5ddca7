//! `quorate sim`: protocols in the simulator.

mod calibrate;
mod model;
mod one;

use super::Protocol;
use super::status::columns;
use crate::errors::failure;
use crate::progress::Progress;
use crate::text::{count, thousands};
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use quorate_core::quorum::REPLICAS_MAX;
use quorate_protocols::pbft::Pbft;
use quorate_runtime::config::MEMBERS_MAX;
use quorate_sim::{Faults, Options, Simulated, Summary, campaign, name_runs_in_panics};
use serde_json::{Value, json};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::LazyLock;

/// Failures that are shown one by one.
const SHOWN_MAX: usize = 5;

/// Run a protocol in the simulator, with crashes, partitions and broken disks
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate sim --protocol vr --seeds 1000
  quorate sim --protocol vr --seed 7 --trace
  quorate sim --protocol naive --seeds 20      fails: replicas that deliver as received diverge
  quorate sim --protocol naive --seed 1 --html why.html      draws why
  quorate sim --scenario vr-leader-crash --html view-change.html
  quorate sim --protocol naive --seed 1 --shrink short.txt   leaves out all that does not matter
  quorate sim --script short.txt --html short.html
  quorate sim --protocol vr --exhaustive --clients 1 --crashes 1 --timeouts 2
  quorate sim --protocol pbft --bad-primary --seeds 20       how long one stays that lies
  quorate sim --protocol vr --seeds 100 --faults loss,crash:300
  quorate sim --protocol reception --replicas 7 --criticality 2 --faults broker-drop,broker-tamper,broker-loss
  quorate sim --protocol vr --seeds 100 --faults twins --beyond-model
  quorate sim --protocol pbft --bench --replicas 4..100 --plot pbft.svg

A seed decides everything: the same seed gives the same run. Exit status 1, and the command that repeats the run, if
anything was violated.")]
pub struct Arguments {
    /// The protocol
    #[arg(long, value_enum, default_value_t = Simulatable::Served(Protocol::Vr))]
    protocol: Simulatable,
    /// Run this one seed
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Play a scenario that has a name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["seed", "seeds"])]
    scenario: Option<String>,
    /// Run what a script says, and nothing else goes wrong
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds", "scenario"])]
    script: Option<PathBuf>,
    /// Make the failing seed short, and write the script into this file
    #[arg(long, value_name = "FILE", requires = "seed")]
    shrink: Option<PathBuf>,
    /// Explore every order of events of a tiny cluster, up to the bounds that follow
    #[arg(long, conflicts_with_all = ["seed", "seeds", "scenario", "script"])]
    exhaustive: bool,
    /// Answers that each client waits for (--exhaustive)
    #[arg(long, default_value_t = 1, requires = "exhaustive")]
    answers: u8,
    /// Crashes, at most (--exhaustive)
    #[arg(long, default_value_t = 1, requires = "exhaustive")]
    crashes: u8,
    /// Timers that ring, at most (--exhaustive)
    #[arg(long, default_value_t = 2, requires = "exhaustive")]
    timeouts: u8,
    /// Messages that are lost, at most (--exhaustive)
    #[arg(long, default_value_t = 0, requires = "exhaustive")]
    losses: u8,
    /// Disks that are lost, at most; each replica comes back as `quorate recover` does it (--exhaustive)
    #[arg(long, default_value_t = 0, requires = "exhaustive")]
    lost_disks: u8,
    /// Deliveries, timers and starts out of turn in all (`--exhaustive`); without it any number: only the tiniest scopes end
    #[arg(long, value_name = "COUNT", requires = "exhaustive")]
    deviations: Option<u8>,
    /// States after which the search gives up (--exhaustive)
    #[arg(long, default_value_t = 100_000, requires = "exhaustive")]
    states: u64,
    /// Measure how long a primary stays that is silent, equivocates or is slow, in virtual time, with so many seeds
    #[arg(long, conflicts_with_all = ["seed", "scenario", "script", "exhaustive"])]
    bad_primary: bool,
    /// Show the names of all scenarios
    #[arg(long)]
    list_scenarios: bool,
    /// Draw all scenarios into this folder
    #[arg(long, value_name = "DIR")]
    gallery: Option<PathBuf>,
    /// Run so many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them: a campaign goes on where another one ended
    #[arg(long, value_name = "SEED", default_value_t = 1, conflicts_with = "seed")]
    first: u64,
    /// What may go wrong: all, none, or names separated by commas; -NAME leaves one out, NAME:300 triples it. What
    /// crashes and clocks do besides goes by -lost-writes, -torn-writes, -clock-drift
    #[arg(long, default_value = "all", allow_hyphen_values = true)]
    faults: Faults,
    /// With reception: the level of criticality; without it, each seed draws one
    #[arg(long, value_name = "E", conflicts_with_all = ["scenario", "script", "exhaustive", "bad_primary"])]
    criticality: Option<u8>,
    /// Let faults strike, too, that the protocol's model excludes: one liar too many, clocks that run apart, disks that lie.
    /// Asserts only what theory still promises, and tells what broke besides
    #[arg(long)]
    beyond_model: bool,
    /// Calls that the clients of one run make
    #[arg(long, default_value_t = 150)]
    ops: u64,
    /// Replicas, or for --bench a span of them, A..B; without it, as few as go on without one of them
    #[arg(long, value_name = "COUNT")]
    replicas: Option<Span>,
    /// Clients
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=32))]
    clients: u8,
    /// Seeds at a time; without it, one for each core
    #[arg(long)]
    jobs: Option<usize>,
    /// Print what happened, event by event (one seed)
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Draw what happened as a page in this file (one seed, or a scenario)
    #[arg(long, value_name = "FILE", conflicts_with = "seeds")]
    html: Option<PathBuf>,
    /// Draw from this millisecond on; without --from and --to, the part around the violation
    #[arg(long, value_name = "MS", requires = "html")]
    from: Option<u64>,
    /// Draw up to this millisecond
    #[arg(long, value_name = "MS", requires = "html")]
    to: Option<u64>,
    /// Run every seed twice and compare every turn
    #[arg(long)]
    twice: bool,
    #[command(flatten)]
    model: model::ModelArguments,
    /// Measure what the work of a replica costs on this machine, for --bench --costs, and write it into this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds", "bench"])]
    calibrate: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// The size of the group in which things go wrong.
    fn group(&self, usual: usize) -> anyhow::Result<usize> {
        match self.replicas {
            None => Ok(usual),
            Some(Span { from, to }) if from == to && to <= MEMBERS_MAX => Ok(from),
            Some(_) => {
                let what = "a run has one group of a size that real ones can have";
                Err(failure(what, format!("say one number from 1 to {MEMBERS_MAX}; --bench takes more, and spans")))
            }
        }
    }
}

/// How many replicas: one number, or from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    from: usize,
    to: usize,
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<usize>().ok().filter(|count| (1..=REPLICAS_MAX).contains(count));
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        match (number(from), number(to)) {
            (Some(from), Some(to)) if from <= to => Ok(Self { from, to }),
            _ => Err(format!("write a number from 1 to {REPLICAS_MAX}, or two of them, for example 4..100")),
        }
    }
}

/// What the simulator runs: every protocol that real processes run, and one that is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Simulatable {
    Served(Protocol),
    /// Deliver as received: to see that the checkers notice.
    Naive,
}

impl ValueEnum for Simulatable {
    fn value_variants<'a>() -> &'a [Self] {
        static ALL: LazyLock<Vec<Simulatable>> = LazyLock::new(|| {
            let served = Protocol::value_variants().iter().copied().map(Simulatable::Served);
            served.chain([Simulatable::Naive]).collect()
        });
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Simulatable::Served(protocol) => protocol.to_possible_value(),
            Simulatable::Naive => Some(
                PossibleValue::new("naive")
                    .help("Deliver as received: wrong on purpose, to see that the checkers notice"),
            ),
        }
    }
}

/// Runs `$body` with `$P` standing for the type of `$simulatable`.
macro_rules! with_simulated {
    ($simulatable:expr, $P:ident => $body:expr) => {
        match $simulatable {
            Simulatable::Served(protocol) => $crate::served::with_protocol!(protocol, $P => $body),
            Simulatable::Naive => {
                type $P = quorate_protocols::naive::Naive;
                $body
            }
        }
    };
}
use with_simulated;

/// Runs the command.
///
/// # Errors
/// Contradictory flags. A violation is no error: it is shown, and the exit status is 1.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.seeds == 0 {
        return Err(failure("no seeds, nothing to run", "ask for at least one: --seeds 1"));
    }
    let has_levels = matches!(arguments.protocol, Simulatable::Served(protocol) if protocol.certifies_reception());
    if arguments.criticality.is_some() && !has_levels {
        let what = "this protocol certifies nothing that could be more or less critical";
        return Err(failure(what, "leave --criticality out, or ask for --protocol reception"));
    }
    if let Some(file) = &arguments.calibrate {
        return crate::wait(calibrate::run(file));
    }
    if arguments.model.bench {
        let Simulatable::Served(protocol) = arguments.protocol else {
            let what = "only protocols that real processes run can be measured";
            return Err(failure(what, "ask for another --protocol: see quorate bench --help"));
        };
        return model::run(protocol, arguments.replicas, &arguments.model, arguments.json);
    }
    name_runs_in_panics();
    if arguments.list_scenarios {
        one::list_scenarios();
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(folder) = &arguments.gallery {
        return one::draw_gallery(folder).map(|()| ExitCode::SUCCESS);
    }
    if let Some(name) = &arguments.scenario {
        return one::play(name, arguments).map(|()| ExitCode::SUCCESS);
    }
    if arguments.exhaustive {
        return Ok(exit_code(with_simulated!(arguments.protocol, P => one::explore_all::<P>(arguments)?)));
    }
    if arguments.deviations.is_some() {
        return Err(failure("--deviations bounds an exhaustive search", "add --exhaustive, and leave --seeds out"));
    }
    if arguments.bad_primary {
        if arguments.protocol != Simulatable::Served(Protocol::Pbft) {
            let what = "how soon a primary that lies is replaced is measured for pbft only";
            return Err(failure(what, "ask for it: quorate sim --protocol pbft --bad-primary"));
        }
        return Ok(exit_code(one::replace_bad_primaries::<Pbft>(arguments)?));
    }
    if let Some(file) = &arguments.script {
        return one::run_script(file, arguments).map(exit_code);
    }
    if arguments.html.is_some() && arguments.seed.is_none() {
        return Err(failure("one picture shows one run", "name it with --seed or --scenario"));
    }
    let holds = with_simulated!(arguments.protocol, P => simulate::<P>(arguments)?);
    Ok(exit_code(holds))
}

fn exit_code(holds: bool) -> ExitCode {
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn simulate<P: Simulated>(arguments: &Arguments) -> anyhow::Result<bool> {
    let options = Options {
        seed: arguments.seed.unwrap_or(1),
        replicas: arguments.group(usize::from(P::REPLICAS))?,
        clients: usize::from(arguments.clients),
        ops: arguments.ops,
        faults: arguments.faults.clone(),
        criticality: arguments.criticality,
        beyond_model: arguments.beyond_model,
        trace: false,
        twice: arguments.twice,
        only: None,
    };
    if let Some(file) = &arguments.shrink {
        return one::make_short::<P>(&options, file);
    }
    if arguments.seed.is_some() {
        return one::run::<P>(options, None, arguments);
    }
    let jobs = arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let summary = many::<P>(&options, arguments.first..arguments.first.saturating_add(arguments.seeds), jobs);
    if arguments.json {
        println!("{}", json_summary(P::NAME, &summary));
    } else {
        show(P::NAME, &summary);
    }
    Ok(summary.holds())
}

fn many<P: Simulated>(options: &Options, seeds: Range<u64>, jobs: usize) -> Summary {
    let mut progress = Progress::start("sim", "seeds", seeds.end.saturating_sub(seeds.start));
    let mut shown = 0_usize;
    let summary = campaign::<P>(options, seeds, jobs, |report| {
        if let Some(violation) = &report.violation
            && shown < SHOWN_MAX
        {
            shown = shown.saturating_add(1);
            progress.say(&format!("seed {} violates {violation}\n  replay: {}", report.seed, report.replay));
        }
        progress.add(1);
        true
    });
    progress.finish();
    summary
}

fn show(protocol: &str, summary: &Summary) {
    let counts = &summary.counts;
    let mut lines = vec![vec!["what".to_owned(), "times".to_owned(), "seeds".to_owned()]];
    let mut line = |what: String, times: u64, seeds: Option<u64>| {
        lines.push(vec![what, thousands(times), seeds.map_or_else(String::new, thousands)]);
    };
    line("events".to_owned(), counts.events, None);
    line("messages".to_owned(), counts.messages, None);
    line("calls answered".to_owned(), counts.answered, None);
    line("calls without an answer in time".to_owned(), counts.timed_out, None);
    for (fault, times) in &counts.faults {
        line(format!("fault: {fault}"), *times, None);
    }
    line("messages into cut links".to_owned(), counts.cut, None);
    line("replicas that refused to start".to_owned(), counts.refused, None);
    for (note, times) in &counts.notes {
        line(format!("protocol: {note}"), *times, summary.seeds_with.get(note).copied());
    }
    line("views started".to_owned(), summary.views, None);
    line("longest calm, virtual ms".to_owned(), counts.calm_ms, None);
    for (property, seeds) in &summary.beyond {
        line(format!("beyond the model: {property} broke"), *seeds, Some(*seeds));
    }
    for (property, seeds) in &summary.properties {
        line(format!("VIOLATED: {property}"), *seeds, Some(*seeds));
    }
    println!("{}", columns(&lines));
    let rate = thousands(summary.seeds_per_second());
    println!("{protocol}: {}, {} violated, {rate} seeds a second", count(summary.seeds, "seed"), summary.failed);
    for never in &summary.never {
        println!("NEVER HAPPENED, and so never tested: {never}");
    }
    if let Some(first) = summary.failures.first() {
        println!("repeat the first: {} --trace", first.replay);
        println!("draw it with --html FILE, leave out what does not matter with --shrink FILE");
    }
}

fn json_summary(protocol: &str, summary: &Summary) -> Value {
    let faults = summary.counts.faults.iter().map(|(fault, times)| (fault.to_string(), Value::from(*times)));
    json!({
        "protocol": protocol,
        "seeds": summary.seeds,
        "failed": summary.failed,
        "seeds_per_second": summary.seeds_per_second(),
        "events": summary.counts.events,
        "messages": summary.counts.messages,
        "answered": summary.counts.answered,
        "timed_out": summary.counts.timed_out,
        "views": summary.views,
        "faults": faults.collect::<serde_json::Map<_, _>>(),
        "notes": summary.counts.notes,
        "seeds_with": summary.seeds_with,
        "longest_calm_ms": summary.counts.calm_ms,
        "audit": crate::text::hex(summary.audit.as_bytes()),
        "never_happened": summary.never,
        "beyond_model": summary.beyond,
        "violations": summary.properties,
        "failures": summary.failures.iter().map(one::json_report).collect::<Vec<_>>(),
    })
}
