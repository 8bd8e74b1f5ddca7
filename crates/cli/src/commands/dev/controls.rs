//! The dashboard's buttons, as `dev` obeys them: real signals to real processes, and links that drop what they carry.
//!
//! Links are cut by the replica itself, which is told so through its stdin: a pipe that only the `dev` that started it holds. So
//! there is nothing to configure, nothing that listens, and nothing to forget in a real deployment.

use super::super::Protocol;
use super::{Dev, STOP_PATIENCE, Watched};
use crate::layout::ReplicaFolder;
use crate::lying;
use crate::processes::{Replica, holder, signal};
use quorate_core::ids::ReplicaId;
use quorate_server::dashboard::{Lies, Order, Process};
use rustix::process::Signal;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Orders that wait; further buttons wait.
const ORDERS_MAX: usize = 8;
/// How long a replica may take to read its disk and be ready.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// An order, and whom to tell what came of it.
pub struct Ordered {
    replica: ReplicaId,
    order: Order,
    done: oneshot::Sender<Result<String, String>>,
}

/// The dashboard's end: how the processes are, and a way to give orders. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Controls {
    orders: mpsc::Sender<Ordered>,
    processes: Arc<Mutex<Vec<(ReplicaId, Process)>>>,
    lies: Lies,
}

impl Controls {
    /// Both ends, for a cluster whose replicas can be told these lies.
    pub fn new(lies: Lies) -> (Self, mpsc::Receiver<Ordered>) {
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        (Self { orders, processes: Arc::default(), lies }, inbox)
    }

    /// Which lies a replica can be told to tell.
    pub fn lies(&self) -> Lies {
        self.lies.clone()
    }

    /// How a replica's process is.
    pub fn process(&self, replica: ReplicaId) -> Process {
        let known = self.processes().iter().find(|(it, _)| *it == replica).map(|(_, process)| process.clone());
        known.unwrap_or_default()
    }

    /// Gives an order and waits until it is done.
    ///
    /// # Errors
    /// Why it is not, in a sentence.
    pub async fn order(&self, replica: ReplicaId, order: Order) -> Result<String, String> {
        let over = || "this `quorate dev` is stopping".to_owned();
        let (done, result) = oneshot::channel();
        self.orders.send(Ordered { replica, order, done }).await.map_err(|_| over())?;
        result.await.map_err(|_| over())?
    }

    fn processes(&self) -> MutexGuard<'_, Vec<(ReplicaId, Process)>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dev {
    /// Tells the dashboard how the processes are.
    pub(super) fn publish(&self) {
        *self.controls.processes() = self.up.iter().map(|it| (it.id, it.process())).collect();
    }

    /// Does what a button says.
    pub(super) async fn obey(&mut self, ordered: Ordered) {
        let Ordered { replica, order, done } = ordered;
        let result = self.carry_out(replica, order).await.map_err(|error| error.to_string());
        if let Ok(said) = &result {
            println!("{said}, by a button of the dashboard");
        }
        self.publish();
        let _gone = done.send(result);
    }

    /// Nobody may be told to lie if somebody does: a cluster bears one of the smallest size's liars.
    fn liar(&self) -> Option<ReplicaId> {
        self.up.iter().find(|it| it.lies.is_some()).map(|it| it.id)
    }

    async fn carry_out(&mut self, replica: ReplicaId, order: Order) -> anyhow::Result<String> {
        let liar = self.liar();
        let protocol = Protocol::named(&self.config.protocol);
        let folder = self.layout.replica(replica);
        let up = self.up.iter_mut().find(|it| it.id == replica);
        let watched = up.ok_or_else(|| anyhow::Error::msg(format!("there is no {replica}")))?;
        if watched.child.is_none() {
            watched.by_hand = holder(&folder.pid_file());
        }
        let pid = watched.pid();
        let running = || pid.ok_or_else(|| anyhow::Error::msg(format!("{replica} does not run")));
        match order {
            Order::Start if pid.is_some() => Err(anyhow::Error::msg(format!("{replica} runs already"))),
            Order::Start => {
                let started = tokio::time::timeout(START_PATIENCE, Replica::start(replica, folder)).await;
                let late = |_| anyhow::Error::msg(format!("{replica} was not ready after {START_PATIENCE:?}"));
                watched.child = Some(started.map_err(late)??);
                Ok(format!("{replica} was started"))
            }
            Order::Stop => {
                let pid = running()?;
                match &mut watched.child {
                    Some(child) => child.stop(STOP_PATIENCE).await?,
                    None => signal(pid, Signal::TERM)?,
                }
                watched.gone();
                Ok(format!("{replica} was stopped"))
            }
            Order::Kill => {
                let pid = running()?;
                match &mut watched.child {
                    Some(child) => child.kill().await?,
                    None => signal(pid, Signal::KILL)?,
                }
                watched.gone();
                Ok(format!("{replica} was killed"))
            }
            Order::Pause => {
                signal(running()?, Signal::STOP)?;
                watched.paused = true;
                Ok(format!("{replica} stands still"))
            }
            Order::Resume => {
                signal(running()?, Signal::CONT)?;
                watched.paused = false;
                Ok(format!("{replica} goes on"))
            }
            Order::Lie(name) => {
                let lie = lying::offered(protocol, self.config.members.len(), &name)?;
                if let Some(liar) = liar {
                    return Err(anyhow::Error::msg(format!(
                        "{liar} lies already, and one at a time is enough to see it"
                    )));
                }
                watched.begin_anew(folder, Some(&name)).await?;
                Ok(format!("{replica} lies: it {}", lie.words))
            }
            Order::Honest => {
                watched.begin_anew(folder, None).await?;
                Ok(format!("{replica} was started again, and keeps its word"))
            }
            Order::Cut(others) => {
                running()?;
                let by_hand =
                    || anyhow::Error::msg(format!("{replica} was started by hand: its links cannot be cut from here"));
                watched.child.as_mut().ok_or_else(by_hand)?.cut(&others).await?;
                let names: Vec<_> = others.iter().map(ToString::to_string).collect();
                watched.cut = others;
                Ok(match names.is_empty() {
                    true => format!("{replica} has all its links again"),
                    false => format!("{replica} is cut off from {}", names.join(", ")),
                })
            }
        }
    }
}

impl Watched {
    fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Replica::pid).or(self.by_hand)
    }

    fn gone(&mut self) {
        self.child = None;
        (self.paused, self.cut, self.lies) = (false, Vec::new(), None);
    }

    /// Ends a replica that we have started, and starts it so that it tells a lie, or none.
    async fn begin_anew(&mut self, folder: ReplicaFolder, lie: Option<&str>) -> anyhow::Result<()> {
        let id = self.id;
        let by_hand =
            || anyhow::Error::msg(format!("{id} does not run, or was started by hand: start it from here first"));
        self.child.as_mut().ok_or_else(by_hand)?.stop(STOP_PATIENCE).await?;
        self.gone();
        let started = tokio::time::timeout(START_PATIENCE, Replica::start_to_lie(id, folder, lie)).await;
        let late = |_| anyhow::Error::msg(format!("{id} was not ready after {START_PATIENCE:?}"));
        self.child = Some(started.map_err(late)??);
        self.lies = lie.map(str::to_owned);
        Ok(())
    }

    fn process(&self) -> Process {
        match self.pid() {
            None => Process::Stopped,
            Some(pid) => {
                let cut = self.child.as_ref().map(|_| self.cut.clone());
                Process::Running { pid, paused: self.paused, cut, lies: self.lies.clone() }
            }
        }
    }
}
