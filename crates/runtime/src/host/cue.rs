//! "Propose now", from the program that a replica runs in.

use std::future::pending;
use std::sync::Arc;
use tokio::sync::Notify;

/// Tells a replica to propose, from any thread: one block for each call (`do_propose` of the HotStuff that this project comes
/// from). Only protocols that are configured to wait for it listen (`hotstuff::Pacing::OnCue`), and of their replicas only the
/// leader. Calls that come faster than blocks are one call.
#[derive(Clone, Debug, Default)]
pub struct Cue(Arc<Notify>);

impl Cue {
    /// Now.
    pub fn propose(&self) {
        self.0.notify_one();
    }
}

/// Ready when somebody has said so. Dropped before that, it has taken nothing away.
pub(super) async fn given(cue: Option<&Cue>) {
    match cue {
        Some(cue) => cue.0.notified().await,
        None => pending().await,
    }
}
