//! The `quorate` command. One file for each subcommand is in `commands/`; what they share stands beside it: where a
//! cluster's files are (`layout`), its processes (`processes`), its broker (`brokers`), how clients find it (`cluster`), what shows it (`watching`), and how errors, progress
//! and bytes are written (`errors`, `progress`, `text`).

mod brokers;
mod cluster;
mod commands;
mod errors;
mod layout;
mod lying;
mod plot;
mod processes;
mod progress;
mod served;
mod text;
mod watching;

use clap::{Parser, Subcommand};
use commands::{
    bench, controller, dashboard, dev, events, gateway, init, kv, recover, serve, sim, status, top, verify,
};
use std::process::ExitCode;

/// Every request is several small allocations, made on one thread and freed on another: the system's allocator spends a
/// tenth of a replica's processor time on that.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// State machine replication: the same state on several machines, whatever happens to some of them
#[derive(Debug, Parser)]
#[command(
    name = "quorate",
    version,
    help_template = "{name} {version}: {about}\n\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}",
    before_help = "Start here:
  quorate dev                       three replicas on this machine, until Ctrl-C
  quorate kv put greeting hello     in another terminal: it finds the cluster by itself
  quorate kv get greeting
  quorate status                    how the three replicas are",
    after_help = "Every command explains itself, with examples: quorate kv --help"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Arguments),
    Kv(kv::Arguments),
    Events(events::Arguments),
    Status(status::Arguments),
    Top(top::Arguments),
    Dashboard(dashboard::Arguments),
    Init(init::Arguments),
    Serve(serve::Arguments),
    Gateway(gateway::Arguments),
    Controller(controller::Arguments),
    Recover(recover::Arguments),
    Verify(verify::Arguments),
    Sim(Box<sim::Arguments>),
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    errors::end_when_nobody_reads();
    let result = match Cli::parse().command {
        Command::Dev(arguments) => wait(dev::run(arguments)),
        Command::Kv(arguments) => wait(kv::run(arguments)),
        Command::Events(arguments) => wait(events::run(arguments)),
        Command::Status(arguments) => wait(status::run(arguments)),
        Command::Top(arguments) => wait(top::run(arguments)),
        Command::Dashboard(arguments) => wait(dashboard::run(arguments)),
        Command::Init(arguments) => init::run(&arguments),
        Command::Serve(arguments) => wait(serve::run(arguments)),
        Command::Gateway(arguments) => wait(gateway::run(arguments)),
        Command::Controller(arguments) => wait(controller::run(arguments)),
        Command::Recover(arguments) => wait(recover::run(arguments)),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Bench(arguments) => wait(bench::run(arguments)),
    };
    result.unwrap_or_else(|error| {
        errors::report(&error);
        ExitCode::FAILURE
    })
}

/// Runs an asynchronous command on this thread.
fn wait(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(command);
    runtime.shutdown_background(); // a read from stdin may never end
    result
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    #[test]
    fn no_two_flags_of_a_command_have_one_name() {
        Cli::command().debug_assert();
    }
}
