//! `quorate bench --crashed N`: what it costs that replicas are down. Each level is measured with all of them, then some are
//! killed, and each is measured again.

use super::{Arguments, Level, Results, Target};
use crate::commands::status::ask;
use crate::errors::{Advise, failure};
use std::time::{Duration, Instant};

/// After the kill and before the first level without them: links are noticed to be down, and a leader that is missed is replaced.
const SETTLES: Duration = Duration::from_secs(1);
/// How long a replica that was killed may take to come back before the next one is.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// Refuses to kill more than the protocol goes on without.
///
/// # Errors
/// What to ask for instead.
pub fn check(arguments: &Arguments) -> anyhow::Result<()> {
    let replicas = arguments.replicas.unwrap_or(arguments.protocol.replicas());
    let spared = replicas.saturating_sub(arguments.protocol.needed(replicas));
    if arguments.crashed > spared {
        let what = format!("{replicas} replicas of {} go on without {spared} of them at most", arguments.protocol);
        return Err(failure(what, "ask for fewer --crashed, or for more --replicas"));
    }
    Ok(())
}

impl Target {
    /// Kills so many replicas; not one that leads, whose loss `--failover` measures.
    pub(super) async fn crash(&mut self, count: usize) -> anyhow::Result<()> {
        for _ in 0..count {
            let leads = self.primary().await?;
            let Some(index) = self.replicas.iter().rposition(|replica| replica.id != leads) else { break };
            let mut victim = self.replicas.swap_remove(index);
            victim.kill().await.explain("cannot kill a replica")?;
        }
        tokio::time::sleep(SETTLES).await;
        Ok(())
    }

    /// Waits until all replicas have one state: to kill the next one before that would measure how long a restart takes.
    pub(super) async fn all_are_back(&self) -> anyhow::Result<()> {
        let until = Instant::now() + BACK_WITHIN;
        while Instant::now() < until {
            let status = ask(self.own()?, Duration::from_secs(2)).await;
            let states: Vec<_> = status.replicas.iter().map(|row| row.said.as_ref().map(|said| &said.digest)).collect();
            if states.iter().all(|state| state.is_some() && *state == states[0]) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let what = format!("a killed replica was not back within {} s of its start", BACK_WITHIN.as_secs());
        Err(failure(what, "look at `quorate status` and the replica's output; a smaller store restarts sooner"))
    }
}

/// What is left of the throughput without the replicas that were killed, in a sentence; nothing if none was.
pub fn words(results: &Results) -> Option<String> {
    let whole = |level: &Level| results.levels.iter().find(|it| it.crashed == 0 && it.in_flight == level.in_flight);
    let rest = results.levels.iter().filter(|level| level.crashed > 0);
    let parts = rest.filter_map(|level| {
        let percent = level.ops_per_second / whole(level)?.ops_per_second * 100.0;
        Some(format!("{percent:.0} % of the op/s with {} in flight", level.in_flight))
    });
    let parts: Vec<String> = parts.collect();
    let crashed = results.levels.last().map_or(0, |level| level.crashed);
    (!parts.is_empty()).then(|| format!("without {crashed} of {} replicas: {}", results.replicas, parts.join(", ")))
}
