//! `quorate sim` for one run: of a seed, of a script, of a scenario; as numbers, as text, as a picture, or made short.

use super::{Arguments, Simulatable, with_simulated};
use crate::commands::status::columns;
use crate::errors::{Advise, failure};
use crate::progress::Progress;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use quorate_sim::bad_primary::{Bad, Replaced, replace};
use quorate_sim::diagram::{Picture, page};
use quorate_sim::exhaustive::{Scope, explore};
use quorate_sim::scenarios::{self, ALL};
use quorate_sim::shrink::{RUNS_MAX, Script, shrink};
use quorate_sim::{Options, Recording, Report, Simulated, run as run_seed};
use serde_json::{Value, json};
use std::fmt::Debug;
use std::path::Path;

/// Runs a seed, or a script and says whether it did what it was written for. True if nothing was violated.
///
/// # Errors
/// A picture that cannot be written.
pub fn run<P: Simulated>(
    options: Options,
    script: Option<(&Path, &Script)>,
    arguments: &Arguments,
) -> anyhow::Result<bool> {
    let trace = arguments.trace || arguments.html.is_some();
    let mut report = run_seed::<P>(&Options { trace, ..options });
    let mut title = format!("{}, seed {}", P::NAME, report.seed);
    if let Some((file, _)) = script {
        report.replay = format!("quorate sim --script {}", file.display());
        title = format!("{title}, made short");
    }
    if let Some(file) = &arguments.html {
        let picture = Picture {
            title,
            command: report.replay.clone(),
            violation: report.violation.clone(),
            from: arguments.from.map(nanos),
            to: arguments.to.map(nanos),
            ..Picture::default()
        };
        draw(file, &page(&report.trace, &picture))?;
    }
    show_one(&report, arguments);
    if let Some((_, script)) = script.filter(|(_, script)| !script.expects(&report)) {
        eprintln!(
            "the script expects another outcome: {}",
            script.expect.as_deref().unwrap_or("that everything holds")
        );
    }
    Ok(report.holds())
}

/// Runs a script. True if nothing was violated.
///
/// # Errors
/// A file that is no script, or of a protocol that there is not.
pub fn run_script(file: &Path, arguments: &Arguments) -> anyhow::Result<bool> {
    let text = std::fs::read_to_string(file).advise(
        format!("cannot read {}", file.display()),
        "name a script; --shrink writes one for a seed that fails",
    )?;
    let script: Script = text.parse().advise(
        format!("{} is not a script", file.display()),
        "see the scripts in crates/sim/scripts, or let --shrink write one",
    )?;
    let Ok(protocol) = Simulatable::from_str(&script.protocol, false) else {
        let known: Vec<_> = Simulatable::value_variants().iter().filter_map(ValueEnum::to_possible_value).collect();
        let known: Vec<_> = known.iter().map(PossibleValue::get_name).collect();
        let what = format!("there is no protocol {:?} to run", script.protocol);
        return Err(failure(what, format!("write `protocol` and one of {}", known.join(", "))));
    };
    with_simulated!(protocol, P => run::<P>(script.options(), Some((file, &script)), arguments))
}

/// Makes a failing seed short. True if nothing is violated in it, and there is nothing to write.
///
/// # Errors
/// A script that cannot be written.
pub fn make_short<P: Simulated>(options: &Options, file: &Path) -> anyhow::Result<bool> {
    let mut progress = Progress::start("shrink", "runs", u64::from(RUNS_MAX));
    let script = shrink::<P>(options, |_| progress.add(1));
    progress.finish();
    let Some(script) = script else {
        println!("seed {} holds: there is nothing to make short", options.seed);
        return Ok(true);
    };
    let text = format!("# {}\n{script}", options.replay(P::NAME));
    std::fs::write(file, &text).advise(
        format!("the script was not written to {}", file.display()),
        "choose a file in a folder that exists and has room",
    )?;
    print!("{text}");
    println!("script: {0}; run it with `quorate sim --script {0}`", file.display());
    Ok(false)
}

/// Explores a tiny cluster. True if nothing is violated in any state that was reached.
///
/// # Errors
/// A group of a size that is none.
pub fn explore_all<P: Simulated>(arguments: &Arguments) -> anyhow::Result<bool>
where
    P::Config: Default,
    P::Replica: Debug,
{
    let scope = Scope {
        replicas: arguments.group(usize::from(P::REPLICAS))?,
        clients: usize::from(arguments.clients),
        answers: usize::from(arguments.answers),
        crashes: arguments.crashes,
        timeouts: arguments.timeouts,
        losses: arguments.losses,
        lost_disks: arguments.lost_disks,
        deviations: arguments.deviations,
        states_max: arguments.states,
    };
    let mut progress = Progress::start("explore", "states", arguments.states);
    let explored = explore::<P>(&scope, |_| progress.add(1));
    progress.finish();
    if arguments.json {
        let violation = explored.violation.as_ref().map(|(what, path)| json!({ "what": what, "path": path }));
        println!(
            "{}",
            json!({
                "protocol": P::NAME,
                "states": explored.states,
                "steps": explored.steps,
                "depth": explored.depth,
                "answered": explored.answered,
                "view": explored.view,
                "back": explored.back,
                "endings": explored.endings,
                "complete": explored.complete,
                "violation": violation,
            })
        );
    } else {
        println!("{}: {explored}", P::NAME);
    }
    Ok(explored.violation.is_none())
}

/// Lets primaries be bad in every way, and shows how soon they were replaced. True if all were.
///
/// # Errors
/// A group of a size that is none.
pub fn replace_bad_primaries<P: Simulated>(arguments: &Arguments) -> anyhow::Result<bool>
where
    P::Config: Default,
{
    let replicas = arguments.group(usize::from(P::REPLICAS))?;
    let header =
        ["primary", "seeds", "replaced", "after ms: min", "median", "max", "longest gap ms", "op/s before", "after"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let mut told = Vec::new();
    let mut all = true;
    for bad in Bad::ALL {
        let runs: Vec<Replaced> =
            (1..=arguments.seeds).map(|seed| replace::<P>(seed, replicas, P::Config::default(), bad)).collect();
        let mut after: Vec<u64> = runs.iter().filter_map(|run| run.after_ms).collect();
        after.sort_unstable();
        all &= after.len() == runs.len();
        let middle = |mut numbers: Vec<u64>| {
            numbers.sort_unstable();
            numbers.get(numbers.len() / 2).copied().unwrap_or_default()
        };
        let gap = runs.iter().map(|run| run.gap_ms).max().unwrap_or_default();
        let [before, later] =
            [|run: &Replaced| run.before, |run: &Replaced| run.after].map(|of| middle(runs.iter().map(of).collect()));
        let (min, max) = (after.first().copied().unwrap_or_default(), after.last().copied().unwrap_or_default());
        let median = middle(after.clone());
        let numbers = [runs.len() as u64, after.len() as u64, min, median, max, gap, before, later];
        rows.push(std::iter::once(bad.to_string()).chain(numbers.iter().map(u64::to_string)).collect());
        told.push(json!({
            "primary": bad.to_string(), "seeds": runs.len(), "replaced": after.len(), "after_ms_min": min,
            "after_ms_median": median, "after_ms_max": max, "longest_gap_ms": gap,
            "answers_per_second_before": before, "answers_per_second_after": later,
        }));
    }
    if arguments.json {
        println!("{}", json!({ "protocol": P::NAME, "replicas": replicas, "primaries": told }));
    } else {
        println!("{}", columns(&rows));
    }
    Ok(all)
}

fn nanos(millis: u64) -> u64 {
    millis.saturating_mul(1_000_000)
}

/// Shows the names of all scenarios.
pub fn list_scenarios() {
    let rows = ALL.iter().map(|named| vec![named.name.to_owned(), named.title.to_owned()]);
    println!("{}", columns(&rows.collect::<Vec<_>>()));
}

/// Plays a scenario. What it violates it violates on purpose: that is no failure.
///
/// # Errors
/// A name that no scenario has, or a picture that cannot be written.
pub fn play(name: &str, arguments: &Arguments) -> anyhow::Result<()> {
    let named = scenarios::find(name);
    let named =
        named.ok_or_else(|| failure(format!("there is no scenario {name:?}"), "see `quorate sim --list-scenarios`"))?;
    let played = (named.play)();
    if let Some(file) = &arguments.html {
        let picture = named.picture(&played);
        let (from, to) = (arguments.from.map(nanos).or(picture.from), arguments.to.map(nanos));
        draw(file, &page(&played.recording, &Picture { from, to, ..picture }))?;
    } else {
        let events = played.recording.events.iter().filter(|event| event.at >= played.from).cloned().collect();
        let shown = Recording { events, ..played.recording.clone() };
        shown.lines().for_each(|line| println!("{line}"));
    }
    println!("{}\n{}", named.title, named.about);
    if let Some(violation) = &played.violation {
        println!("violates {violation}");
    }
    Ok(())
}

/// Draws all scenarios.
///
/// # Errors
/// A folder that cannot be written.
pub fn draw_gallery(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .advise(format!("cannot create {}", folder.display()), "its place must be writable")?;
    for (name, contents) in scenarios::gallery() {
        draw(&folder.join(name), &contents)?;
    }
    Ok(())
}

fn draw(file: &Path, page: &str) -> anyhow::Result<()> {
    std::fs::write(file, page).advise(
        format!("the picture was not written to {}", file.display()),
        "choose a file in a folder that exists and has room",
    )?;
    eprintln!("picture: {}", file.display());
    Ok(())
}

fn show_one(report: &Report, arguments: &Arguments) {
    if arguments.json {
        println!("{}", json_report(report));
        return;
    }
    if arguments.trace {
        for line in report.trace.lines() {
            println!("{line}");
        }
    }
    println!("{report}");
}

/// One run as a JSON object.
pub fn json_report(report: &Report) -> Value {
    json!({
        "seed": report.seed,
        "violation": report.violation.as_ref().map(ToString::to_string),
        "beyond_model": report.beyond.as_ref().map(ToString::to_string),
        "replay": report.replay,
        "virtual_ms": report.virtual_nanos / 1_000_000,
        "audit": crate::text::hex(report.audit.as_bytes()),
        "trace": report.trace.lines().collect::<Vec<_>>(),
    })
}
