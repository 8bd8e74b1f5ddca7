//! A cluster as the dashboard and `top` look at it: `status`, every second.

use crate::cluster::Connection;
use crate::commands::status::{self, Cluster, Row, Said};
use quorate_core::ids::ReplicaId;
use quorate_server::dashboard::{Facts, Health, Lies, Look, Process, ReplicaLook};
use std::time::Duration;

/// How long a replica may take to say how it is.
const PATIENCE: Duration = Duration::from_millis(800);

/// Asks all replicas how they are; `process` knows of their processes.
pub async fn look(connection: &Connection, process: impl Fn(ReplicaId) -> Process) -> Look {
    seen(status::ask(connection, PATIENCE).await, process)
}

fn seen(cluster: Cluster, process: impl Fn(ReplicaId) -> Process) -> Look {
    let health = match () {
        () if cluster.healthy => Health::Good,
        () if cluster.diverged || !cluster.majority => Health::Bad,
        () => Health::Strained,
    };
    let replica = |row: Row| ReplicaLook {
        replica: ReplicaId::new(row.replica),
        address: row.address,
        facts: row.said.map(facts).ok_or_else(|| row.error.unwrap_or_default()),
        process: process(ReplicaId::new(row.replica)),
    };
    Look {
        cluster: cluster.cluster,
        protocol: cluster.protocol,
        summary: cluster.summary,
        health,
        replicas: cluster.replicas.into_iter().map(replica).collect(),
        lies: Lies::Unspoken,
    }
}

fn facts(said: Said) -> Facts {
    Facts {
        role: said.role,
        view: said.view,
        op: said.op,
        committed: said.committed,
        executed: said.executed,
        lag: said.lag,
        checkpoint: said.checkpoint,
        missing: said.missing,
        digest_op: said.digest_op,
        position: said.position,
        digest: said.digest,
        ignored: said.ignored,
        blamed: said.blamed,
        last_fault: said.last_fault,
        evidence: said.evidence,
        syncs: said.syncs,
    }
}
