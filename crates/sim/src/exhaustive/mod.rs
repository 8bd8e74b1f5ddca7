//! Small scopes, exhaustively: every interleaving of deliveries, timers, crashes and restarts of a tiny cluster, up to bounds.
//!
//! Seeds are no argument where one order of events in a million matters, as when a view change selects a log. Here there is
//! no luck and no time: a world is three replicas, the real ones, whose links, timers and lives are in the hands of a
//! search. States that were seen are recognised by a digest of everything in them and not entered again.
//!
//! A world cannot be copied, since a replica cannot; a state is reached by doing again what led to it. So the search goes on
//! from where it is with what is due, and remembers everything else that could have happened as a path, a list of small
//! numbers, to be taken up later: paths that depart from the usual order once come before those that depart twice. What it
//! finds is made short before it is told: no step of it can be left out.
//!
//! Even tiny clusters have too many interleavings for long stories: a crash, a view change and a restart. There, *deviations* are
//! bounded instead (delay bounding: Emmi, Qadeer, Rakamarić, POPL 2011; context bounding: Musuvathi, Qadeer, PLDI 2007). By
//! itself a world delivers the message that was sent first; timers ring, and replicas start, when nothing is on its way. Every
//! other delivery, and every timer or start that comes earlier, is one deviation. Crashes and losses strike at any time. All
//! schedules with so many deviations are explored, and few of them reach the orders that hurt.
//!
//! What happens at one replica and what happens at another can be done in either order, and nobody can tell which it was (partial
//! orders: Godefroid, LNCS 1032). So where deviations are bounded, a message overtakes only one that is due at the same
//! replica, a replica crashes or rings early only when something is due there or nothing is due at all, and a message is lost when
//! it is due. Where they are not bounded, everything is tried: a test compares how the stories end.
//!
//! A disk may be lost, too: `rejoin` brings the replica back as `quorate recover` does.
//!
//! What this scope leaves out: disks sync at once and lose nothing, unless they are lost whole; links are first in, first out,
//! but for what a replica had sent whose disk is lost; a message is lost only where a scope says so; a primary's timers do not
//! ring; clients send each request once and hear at once; no checkpoints.

mod rejoin;
mod world;

use crate::protocols::Simulated;
use quorate_core::crypto::Digest;
use std::collections::{BTreeSet, VecDeque};
use std::fmt::{Debug, Display, Formatter};
use world::{Choice, World};

/// How far to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Replicas. 3.
    pub replicas: usize,
    /// Clients. 1.
    pub clients: usize,
    /// Answers that each client waits for. The first one opens its session, the second one is to a write. 1.
    pub answers: usize,
    /// Crashes in all; each replica may start again. 1.
    pub crashes: u8,
    /// Timers that ring in all. 2.
    pub timeouts: u8,
    /// Messages that are lost in all. 0.
    pub losses: u8,
    /// Disks that are lost in all; each replica comes back as `quorate recover` does it. 0.
    pub lost_disks: u8,
    /// Deliveries, timers and starts out of turn; `None`: any number. None.
    pub deviations: Option<u8>,
    /// States after which the search gives up. 100,000.
    pub states_max: u64,
}

impl Default for Scope {
    fn default() -> Self {
        Self {
            replicas: 3,
            clients: 1,
            answers: 1,
            crashes: 1,
            timeouts: 2,
            losses: 0,
            lost_disks: 0,
            deviations: None,
            states_max: 100_000,
        }
    }
}

/// What the search came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explored {
    /// Different states.
    pub states: u64,
    /// Steps between them.
    pub steps: u64,
    /// The length of the longest path.
    pub depth: usize,
    /// States in which every client has all its answers.
    pub answered: u64,
    /// The greatest view that some replica has led.
    pub view: u64,
    /// States in which a replica is back that had lost its disk, one more entry was committed, and it is not silent.
    pub back: u64,
    /// Different endings: states in which nothing can happen any more, whatever else may still go wrong.
    pub endings: u64,
    /// Was every state within the scope reached? If not, there were more than the search may enter.
    pub complete: bool,
    /// What is wrong, and the steps that lead there; `None` if nothing is.
    pub violation: Option<(String, Vec<String>)>,
}

impl Display for Explored {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { states, steps, depth, answered, view, back, endings, complete, violation } = self;
        let all = if *complete { "all of them" } else { "and there are more" };
        writeln!(f, "{states} states, {all}; {steps} steps between them; paths of up to {depth} steps")?;
        write!(f, "{endings} endings; in {answered} states every client has its answers; views up to {view} were led")?;
        if *back > 0 {
            write!(f, "; in {back} states a replica is back whose disk was lost")?;
        }
        if let Some((what, path)) = violation {
            write!(f, "\nVIOLATED   {what}\nafter")?;
            for step in path {
                write!(f, "\n  {step}")?;
            }
        }
        Ok(())
    }
}

/// Explores every state of the scope. `progress` hears of every state that is entered.
pub fn explore<P: Simulated>(scope: &Scope, mut progress: impl FnMut(u64)) -> Explored
where
    P::Config: Default,
    P::Replica: Debug,
{
    let mut explored = Explored {
        states: 0,
        steps: 0,
        depth: 0,
        answered: 0,
        view: 0,
        back: 0,
        endings: 0,
        complete: true,
        violation: None,
    };
    let mut seen: BTreeSet<Digest> = BTreeSet::new();
    let mut endings: BTreeSet<Digest> = BTreeSet::new();
    let mut departures: VecDeque<Vec<u8>> = VecDeque::from([Vec::new()]);
    while let Some(mut path) = departures.pop_front() {
        let mut world = World::<P>::after(scope, &path);
        loop {
            if world.violation().is_some() {
                explored.depth = explored.depth.max(path.len());
                explored.violation = shortest::<P>(scope, World::<P>::chosen(scope, &path));
                return explored;
            }
            if !seen.insert(world.digest()) {
                break;
            }
            if seen.len() as u64 > scope.states_max {
                explored.complete = false;
                return explored;
            }
            explored.states = explored.states.saturating_add(1);
            progress(explored.states);
            explored.depth = explored.depth.max(path.len());
            explored.view = explored.view.max(world.view());
            explored.answered = explored.answered.saturating_add(u64::from(world.is_answered()));
            explored.back = explored.back.saturating_add(u64::from(world.is_back()));
            let choices = world.choices();
            explored.steps = explored.steps.saturating_add(choices.len() as u64);
            for other in 1..u8::try_from(choices.len()).unwrap_or(u8::MAX) {
                departures.push_back(path.iter().copied().chain([other]).collect());
            }
            let Some(due) = choices.first() else {
                endings.insert(world.ending());
                explored.endings = endings.len() as u64;
                break;
            };
            world.take(*due);
            path.push(0);
        }
    }
    explored
}

/// What is wrong after a path, and the path without what can be left out of it. Out of turn is out of turn: how often, nobody
/// counts any more.
fn shortest<P: Simulated>(scope: &Scope, mut path: Vec<Choice>) -> Option<(String, Vec<String>)>
where
    P::Config: Default,
    P::Replica: Debug,
{
    let told = |path: &[Choice], scope: &Scope| {
        let (world, told) = World::<P>::follow(scope, path)?;
        Some((world.violation()?.to_owned(), told))
    };
    let mut shortest = told(&path, scope);
    let free = Scope { deviations: None, ..*scope };
    let mut at = path.len();
    while at > 0 {
        at -= 1;
        let mut shorter = path.clone();
        shorter.remove(at);
        if let Some(still) = told(&shorter, &free) {
            (path, shortest) = (shorter, Some(still));
            at = at.saturating_add(1).min(path.len()); // what follows may not be needed any more
        }
    }
    shortest
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_protocols::hotstuff::HotStuff;
    use quorate_protocols::naive::Naive;
    use quorate_protocols::pbft::Pbft;
    use quorate_protocols::vr::Vr;

    #[test]
    fn naive_diverges_in_a_few_steps_and_the_shortest_way_is_told() {
        let scope = Scope { replicas: 2, clients: 2, crashes: 0, timeouts: 0, ..Scope::default() };
        let explored = explore::<Naive>(&scope, |_| {});
        let (what, path) = explored.violation.expect("two clients, two orders");
        assert!(what.contains("entry 1"), "{what}");
        assert_eq!(path.len(), 2, "one request here, the other one there: {path:?}");
    }

    #[test]
    fn one_client_cannot_make_naive_diverge() {
        let scope = Scope { replicas: 2, crashes: 0, timeouts: 0, ..Scope::default() };
        let explored = explore::<Naive>(&scope, |_| {});
        assert!(explored.complete && explored.violation.is_none() && explored.answered > 0, "{explored}");
    }

    #[test]
    fn every_order_of_the_normal_case_of_vr_answers_and_agrees() {
        let scope = Scope { answers: 2, crashes: 0, timeouts: 0, ..Scope::default() };
        let explored = explore::<Vr>(&scope, |_| {});
        assert!(explored.complete && explored.violation.is_none(), "{explored}");
        assert!(explored.answered > 0 && explored.states > 20, "{explored}");
    }

    #[test]
    fn in_every_state_around_a_lone_suspicion_vr_agrees() {
        let explored = explore::<Vr>(&Scope { crashes: 0, timeouts: 1, ..Scope::default() }, |_| {});
        assert!(explored.complete && explored.violation.is_none(), "{explored}");
        assert_eq!(explored.view, 0, "one suspicion ends no view: {explored}");
    }

    #[test]
    fn a_crash_a_view_change_and_a_restart_of_vr_agree_in_every_order_with_a_deviation() {
        let scope = Scope { answers: 2, crashes: 1, timeouts: 2, deviations: Some(1), ..Scope::default() };
        let explored = explore::<Vr>(&scope, |_| {});
        assert!(explored.complete && explored.violation.is_none(), "{explored}");
        assert!(explored.view > 0 && explored.answered > 0, "nobody led another view: {explored}");
    }

    #[test]
    fn without_deviations_there_is_one_order_and_with_any_number_all() {
        let found = |deviations| {
            let scope = Scope { crashes: 0, timeouts: 0, deviations, ..Scope::default() };
            let explored = explore::<Vr>(&scope, |_| {});
            (explored.states, explored.endings)
        };
        let ((one, _), (few, _), (many, bounded)) = (found(Some(0)), found(Some(2)), found(Some(200)));
        assert!(one < few && few <= many, "{one} {few} {many}");
        assert_eq!(bounded, found(None).1, "with enough deviations the stories end as they do in any order");
    }

    #[test]
    fn what_is_not_tried_where_deviations_are_bounded_ends_no_other_way() {
        let endings = |deviations, losses| {
            let scope =
                Scope { crashes: 0, timeouts: 1, losses, deviations, states_max: 1_000_000, ..Scope::default() };
            let explored = explore::<Vr>(&scope, |_| {});
            assert!(explored.complete && explored.violation.is_none(), "{explored}");
            (explored.endings, explored.states)
        };
        let ((bounded, few), (all, many)) = (endings(Some(200), 0), endings(None, 0));
        assert_eq!(bounded, all, "in {few} and {many} states");
    }

    #[test]
    fn a_replica_whose_disk_is_lost_comes_back_and_vr_agrees_whatever_its_former_self_had_sent() {
        let scope =
            Scope { answers: 2, crashes: 0, timeouts: 2, lost_disks: 1, deviations: Some(0), ..Scope::default() };
        let explored = explore::<Vr>(&scope, |_| {});
        assert!(explored.complete && explored.violation.is_none(), "{explored}");
        assert!(explored.back > 0 && explored.view > 0, "{explored}");
    }

    #[test]
    fn a_replica_of_hotstuff_whose_disk_is_lost_votes_again_whatever_its_former_self_had_sent_and_when() {
        let scope =
            Scope { replicas: 4, crashes: 0, timeouts: 1, lost_disks: 1, deviations: Some(0), ..Scope::default() };
        let explored = explore::<HotStuff>(&scope, |_| {});
        assert!(explored.complete && explored.violation.is_none(), "{explored}");
        assert!(explored.back > 0, "nobody votes again: {explored}");
    }

    #[test]
    fn a_crash_and_a_view_change_of_pbft_agree_wherever_they_come() {
        let scope = Scope { replicas: 4, crashes: 1, timeouts: 2, deviations: Some(0), ..Scope::default() };
        let explored = explore::<Pbft>(&scope, |_| {});
        assert!(explored.complete && explored.violation.is_none(), "{explored}");
        assert!(explored.view > 0 && explored.answered > 0, "nobody led another view: {explored}");
    }

    #[test]
    fn a_search_that_may_not_enter_all_states_says_so() {
        let explored = explore::<Vr>(&Scope { states_max: 50, ..Scope::default() }, |_| {});
        assert!(!explored.complete && explored.violation.is_none(), "{explored}");
    }
}
