//! `quorate bench --crashed N`: what it costs that replicas are down. Each level is measured with all of them, then some are
//! killed, and each is measured again.

use super::{Arguments, Level, Results, Target};
use crate::errors::{Advise, failure};
use std::time::Duration;

/// After the kill and before the first level without them: links are noticed to be down, and a leader that is missed is replaced.
const SETTLES: Duration = Duration::from_secs(1);

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
