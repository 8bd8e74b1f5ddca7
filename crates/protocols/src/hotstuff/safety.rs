//! When a replica votes, what it locks, and what a certificate commits: everything that safety rests on, apart from quorums
//! and disks. Two sets of rules for one protocol.
//!
//! **Three chains** (HotStuff §5): a certificate of X2 commits X0 if X0 ← X1 ← X2 are of consecutive views, and locks X1. A
//! replica votes for a block whose certificate is not older than its lock. The paper compares parents only, since its
//! dummy blocks fill every view; where views are skipped, parents alone let two branches commit.
//!
//! **Two chains** (Jolteon §4): a certificate of X1 commits X0 if X0 ← X1 are of consecutive views. A replica votes for a block
//! whose certificate is of the view before, or that shows the timeouts of a quorum for the view before and a certificate
//! as high as any that their signers knew. One block less until a commit; the proof of the timeouts is the price.

use super::Config;
use super::durable::{Root, Safety};
use super::message::{Header, Tc};
use super::tree::Tree;
use quorate_core::crypto::Digest;
use quorate_core::ids::View;
use quorate_core::mutated;

/// Which certificates commit a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rules {
    /// HotStuff's: three blocks of consecutive views, the last one certified, commit the first.
    #[default]
    ThreeChain,
    /// Jolteon's: two blocks of consecutive views, the last one certified, commit the first.
    TwoChain,
}

impl Rules {
    /// May a replica vote for this block, whose parent is here, valid and certified?
    ///
    /// The view is the replica's present one and the block its leader's first; that is the caller's to see.
    pub(super) fn may_vote(self, safety: &Safety, header: &Header, tc: Option<&Tc>) -> bool {
        if header.view <= safety.voted && !mutated!("hotstuff/votes-twice-in-a-view") {
            return false;
        }
        match self {
            // With the parent being what is certified, and one certificate for each view, this is the paper's safeNode.
            Rules::ThreeChain => header.parent_view >= safety.locked.view,
            Rules::TwoChain => {
                let knows =
                    |tc: &Tc| header.parent_view >= tc.high() || mutated!("hotstuff/two-chains-without-timeouts");
                let skips = tc.is_some_and(|tc| tc.view().next() == header.view && knows(tc));
                header.parent_view.next() == header.view || skips
            }
        }
    }

    /// The last view in which a replica may have promised something that these rules rest on, if it can have voted in `view` and
    /// in no later one. Three chains rest on votes and locks alone, two chains also on timeouts, which are for the whole term.
    pub(super) fn promised_until(self, view: View, config: &Config) -> View {
        match self {
            Rules::ThreeChain => view,
            Rules::TwoChain => config.term_end(view),
        }
    }

    /// What a certificate of this block locks, if what it takes to know is here.
    pub(super) fn locks(self, tree: &Tree, certified: Digest) -> Option<Root> {
        match self {
            Rules::ThreeChain => tree.root(tree.get(certified)?.header.parent),
            Rules::TwoChain => tree.root(certified),
        }
    }

    /// What a certificate of this block commits, with everything before it. `header` tells what makes a block what it is.
    pub(super) fn commits(self, header: impl Fn(Digest) -> Option<Header>, certified: Digest) -> Option<Digest> {
        let skips = mutated!("hotstuff/commits-whatever-views-are-skipped");
        let follows = |before: View, after: View| before.next() == after || skips;
        let last = header(certified)?;
        if mutated!("hotstuff/commits-what-is-certified-once") {
            return Some(certified);
        }
        match self {
            Rules::TwoChain => follows(last.parent_view, last.view).then_some(last.parent),
            Rules::ThreeChain => {
                let middle = header(last.parent)?;
                let in_a_row = follows(middle.parent_view, middle.view) && follows(middle.view, last.view);
                in_a_row.then_some(middle.parent)
            }
        }
    }
}
