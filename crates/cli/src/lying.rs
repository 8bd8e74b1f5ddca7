//! Replicas that lie, for whoever wants to see what the others make of it: `dev` starts one when a button of its dashboard says so.
//!
//! A flag that lets a replica lie must not do so where data matter. So `serve --lie` is refused unless all of this holds: the
//! protocol bears a liar; the folder of the cluster holds the file by which `dev` marks what it has made, with this cluster's
//! number; every address is on loopback; and the replica ends with the process that has started it. The lies themselves are
//! the simulator's (`quorate_sim::adversary`); the host only lets what leaves pass through them (ADR 032).

use crate::errors::failure;
use crate::layout::{Layout, ReplicaFolder};
use crate::served::{Protocol, with_protocol};
use quorate_runtime::config::{ClusterConfig, ReplicaConfig};
use quorate_runtime::host::Mouth;
use quorate_runtime::keys::KeyPair;
use quorate_runtime::replica::keyring;
use quorate_server::dashboard::Lies;
use quorate_sim::Simulated;
use quorate_sim::adversary::{Live, OFFERED, Offered};
use std::net::SocketAddr;
use std::path::Path;

/// How many liars so many replicas of a protocol bear.
fn borne(protocol: Protocol, replicas: usize) -> usize {
    with_protocol!(protocol, P => <P as Simulated>::liars(replicas))
}

fn unborne(protocol: Protocol, replicas: usize) -> String {
    match borne(protocol, protocol.replicas()) {
        0 => format!(
            "Under {protocol} replicas believe each other, so none can be told to lie here: dev --protocol pbft"
        ),
        _ => format!("{replicas} replicas of {protocol} bear no liar; {} bear one", protocol.replicas()),
    }
}

/// The lies that a replica of a cluster can be told to tell.
pub fn lies(layout: &Layout, config: &ClusterConfig) -> Lies {
    let Some(protocol) = Protocol::named(&config.protocol) else { return Lies::Unspoken };
    if borne(protocol, config.members.len()) == 0 {
        return Lies::None(unborne(protocol, config.members.len()));
    }
    if !layout.is_play(config.cluster) {
        return Lies::None("Nobody can be told to lie here: this cluster was not made by `quorate dev`".to_owned());
    }
    Lies::Offered(OFFERED.iter().map(|it| (it.fault.name().to_owned(), it.words.to_owned())).collect())
}

/// The lie with this name, if so many replicas of the protocol bear a liar.
///
/// # Errors
/// There is no such lie, or nobody bears it.
pub fn offered(protocol: Option<Protocol>, replicas: usize, name: &str) -> anyhow::Result<Offered> {
    let names = || OFFERED.map(|it| it.fault.name()).join(", ");
    if let Some(protocol) = protocol.filter(|it| borne(*it, replicas) == 0) {
        return Err(failure(unborne(protocol, replicas), "a cluster of another protocol can be lied to"));
    }
    let found = OFFERED.iter().find(|it| it.fault.name() == name).copied();
    found.ok_or_else(|| failure(format!("there is no lie {name:?}"), format!("choose one of {}", names())))
}

/// What a replica speaks through that tells this lie.
///
/// # Errors
/// Why it must not.
pub fn mouth<P: Simulated>(name: &str, file: &Path, config: &ReplicaConfig, key: &KeyPair) -> anyhow::Result<Mouth> {
    let offered = offered(Protocol::named(&config.protocol), config.members.len(), name)?;
    let play = ReplicaFolder::cluster_of(file).is_some_and(|layout| layout.is_play(config.cluster));
    if !play {
        let what = format!("{} is of a cluster that `quorate dev` has not made", file.display());
        return Err(failure(what, "leave --lie out: a cluster that keeps data has no replica that lies on purpose"));
    }
    let loopback = |address: &str| address.parse::<SocketAddr>().is_ok_and(|it| it.ip().is_loopback());
    let mut addresses = config.members.iter().map(|it| it.address.as_str()).chain([config.listen.as_str()]);
    if let Some(far) = addresses.find(|address| !loopback(address)) {
        let what = format!("{far} is not on this machine's loopback, and nobody is lied to beyond it");
        return Err(failure(what, "leave --lie out"));
    }
    let seed = std::process::id().into();
    let live = Live::<P>::new(offered, config.members.len(), keyring::<P>(config, key)?, P::lies(), seed);
    let mut live = live.ok_or_else(|| failure(format!("{} signs nothing", P::NAME), "leave --lie out"))?;
    eprintln!("THIS REPLICA LIES, AS TOLD: {} {}", config.replica, offered.words);
    Ok(Box::new(move |to, bytes| live.speak(to, bytes)))
}
