//! Small scopes, exhaustively: every interleaving of deliveries, timers, crashes and restarts of a tiny cluster, up to bounds.
//!
//! Seeds are no argument where one order of events in a million matters, as when a view change selects a log. Here there is
//! no luck and no time: a world is three replicas, the real ones, whose links, timers and lives are in the hands of a
//! search. It goes breadth first, so that what it finds first is as short as any. States that were seen are recognised by a
//! digest of everything in them and not entered again.
//!
//! A world cannot be copied, since a replica cannot; a state is reached by doing again what led to it. That costs time and
//! makes the search simple: a path is a list of small numbers.
//!
//! Even tiny clusters have too many interleavings for long stories: a crash, a view change and a restart. There, *deviations* are
//! bounded instead (delay bounding: Emmi, Qadeer, Rakamarić, POPL 2011; context bounding: Musuvathi, Qadeer, PLDI 2007). By
//! itself a world delivers the message that was sent first; timers ring, and replicas start, when nothing is on its way. Every
//! other delivery, and every timer or start that comes earlier, is one deviation. Crashes and losses strike at any time. All
//! schedules with so many deviations are explored, and few of them reach the orders that hurt.
//!
//! What this scope leaves out: disks sync at once and lose nothing; links are first in, first out; a message is lost only
//! where a scope says so; a primary's timers do not ring; clients send each request once and hear at once; no checkpoints.

mod world;

use crate::protocols::Simulated;
use quorate_core::crypto::Digest;
use std::collections::{BTreeSet, VecDeque};
use std::fmt::{Debug, Display, Formatter};
use world::World;

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
    /// Was every state within the scope reached? If not, there were more than the search may enter.
    pub complete: bool,
    /// What is wrong, and the steps that lead there; `None` if nothing is.
    pub violation: Option<(String, Vec<String>)>,
}

impl Display for Explored {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { states, steps, depth, answered, view, complete, violation } = self;
        let all = if *complete { "all of them" } else { "and there are more" };
        writeln!(f, "{states} states, {all}; {steps} steps between them; paths of up to {depth} steps")?;
        write!(f, "in {answered} states every client has its answers; views up to {view} were led")?;
        if let Some((what, path)) = violation {
            write!(f, "\nVIOLATED   {what}\nafter")?;
            for step in path {
                write!(f, "\n  {step}")?;
            }
        }
        Ok(())
    }
}

/// Explores every state of the scope, shortest paths first. `progress` hears of every state that is entered.
pub fn explore<P: Simulated>(scope: &Scope, mut progress: impl FnMut(u64)) -> Explored
where
    P::Config: Default,
    P::Replica: Debug,
{
    let mut explored =
        Explored { states: 0, steps: 0, depth: 0, answered: 0, view: 0, complete: true, violation: None };
    let mut seen: BTreeSet<Digest> = BTreeSet::new();
    let mut frontier: VecDeque<Vec<u8>> = VecDeque::from([Vec::new()]);
    seen.insert(World::<P>::new(scope).digest());
    while let Some(path) = frontier.pop_front() {
        let choices = World::<P>::after(scope, &path).choices().len();
        explored.states = explored.states.saturating_add(1);
        progress(explored.states);
        for choice in 0..u8::try_from(choices).unwrap_or(u8::MAX) {
            let mut next = path.clone();
            next.push(choice);
            let world = World::<P>::after(scope, &next);
            explored.steps = explored.steps.saturating_add(1);
            if let Some(what) = world.violation() {
                explored.depth = explored.depth.max(next.len());
                explored.violation = Some((what.to_owned(), World::<P>::tell(scope, &next)));
                return explored;
            }
            if !seen.insert(world.digest()) {
                continue;
            }
            explored.depth = explored.depth.max(next.len());
            explored.view = explored.view.max(world.view());
            explored.answered = explored.answered.saturating_add(u64::from(world.is_answered()));
            if seen.len() as u64 > scope.states_max {
                explored.complete = false;
                return explored;
            }
            frontier.push_back(next);
        }
    }
    explored
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_protocols::naive::Naive;
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
        let states = |deviations| {
            let scope = Scope { crashes: 0, timeouts: 0, deviations, ..Scope::default() };
            explore::<Vr>(&scope, |_| {}).states
        };
        let (one, few, all) = (states(Some(0)), states(Some(2)), states(None));
        assert!(one < few && few <= states(Some(200)) && all <= states(Some(200)), "{one} {few} {all}");
    }

    #[test]
    fn a_search_that_may_not_enter_all_states_says_so() {
        let explored = explore::<Vr>(&Scope { states_max: 50, ..Scope::default() }, |_| {});
        assert!(!explored.complete && explored.violation.is_none(), "{explored}");
    }
}
