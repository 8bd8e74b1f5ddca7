//! What whoever starts a dashboard tells it.

use quorate_core::ids::ReplicaId;

/// A cluster to look at, and what may be done to its processes.
pub trait Source: Send + Sync + 'static {
    /// Asks every replica how it is. Answers within about a second, whoever is silent.
    fn look(&self) -> impl Future<Output = Look> + Send;

    /// Whether [`Source::act`] can do anything: then there are buttons.
    fn has_controls(&self) -> bool {
        false
    }

    /// Does something to a replica's process; what was done, or why not, in a sentence.
    fn act(&self, _replica: ReplicaId, _order: Order) -> impl Future<Output = Result<String, String>> + Send {
        async { Err("there are no controls here".to_owned()) }
    }
}

/// How a cluster is at one moment.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// The cluster's id, in hexadecimal.
    pub cluster: String,
    /// The protocol that it runs.
    pub protocol: String,
    /// How it is, in a sentence.
    pub summary: String,
    /// How it is, in a colour.
    pub health: Health,
    /// Its replicas, in the order of their numbers.
    pub replicas: Vec<ReplicaLook>,
    /// Which lies a replica can be told to tell.
    pub lies: Lies,
}

/// Which lies a replica can be told to tell: with the buttons, for a cluster in which nobody else believes anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Lies {
    /// It is not spoken of.
    #[default]
    Unspoken,
    /// None, for this reason; a sentence.
    None(String),
    /// These: the name of each, and what a replica that tells it does, after its name.
    Offered(Vec<(String, String)>),
}

/// How well a cluster is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// All replicas answer and agree.
    Good,
    /// It works, and something is not as it should be.
    Strained,
    /// It does not work, or its replicas contradict each other.
    #[default]
    Bad,
}

/// One replica.
#[derive(Clone, Debug)]
pub struct ReplicaLook {
    /// Its number.
    pub replica: ReplicaId,
    /// Where it is reached.
    pub address: String,
    /// What it said, or why it said nothing.
    pub facts: Result<Facts, String>,
    /// Its process, as far as the source knows of it.
    pub process: Process,
}

/// What a replica says of itself.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// `primary`, `backup`, or what else it is busy with.
    pub role: String,
    /// The view that it is in.
    pub view: u64,
    /// The last entry of its log.
    pub op: u64,
    /// The last entry that it knows to be committed.
    pub committed: u64,
    /// The last entry that it has applied.
    pub executed: u64,
    /// How far it is behind the furthest commit that any replica knows of, in entries.
    pub lag: u64,
    /// The entry of its last durable checkpoint.
    pub checkpoint: u64,
    /// Entries that it knows to be damaged or missing.
    pub missing: u64,
    /// The entry that the digest covers.
    pub digest_op: u64,
    /// Operations that the digest covers.
    pub position: u64,
    /// The digest of its state, in hexadecimal.
    pub digest: String,
    /// Messages that it ignored.
    pub ignored: u64,
    /// Lies that it noticed.
    pub blamed: u64,
    /// The last lie, in words.
    pub last_fault: Option<String>,
    /// Proofs against replicas, in words.
    pub evidence: Vec<String>,
    /// How often its log was synced since it started.
    pub syncs: u64,
}

/// A replica's process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Process {
    /// Nobody here knows anything of it.
    #[default]
    Unknown,
    /// It does not run.
    Stopped,
    /// It runs.
    Running {
        /// Its number.
        pid: u32,
        /// Stopped in its tracks: it keeps its connections and says nothing.
        paused: bool,
        /// Replicas whose messages it drops; `None` if that cannot be chosen, as it was started by hand.
        cut: Option<Vec<ReplicaId>>,
        /// The lie that it was told to tell.
        lies: Option<String>,
    },
}

/// What can be done to a replica's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start it again.
    Start,
    /// Ask it to end.
    Stop,
    /// End it as a crash would.
    Kill,
    /// Let it stand still.
    Pause,
    /// Let it go on.
    Resume,
    /// Let it drop all messages from and to these replicas, and no others.
    Cut(Vec<ReplicaId>),
    /// Start it again so that it tells this lie.
    Lie(String),
    /// Start it again so that it keeps its word.
    Honest,
}
