//! Groups: persistent subscriptions whose consumers share the events of a source.
//!
//! # What it promises
//! The state of a group is part of the machine: who holds which event, how often it was given out and what was set aside are
//! ordered by the log and survive every replica. Each event of the source is given out until it is acknowledged, skipped or
//! parked; so a consumer may see one twice, and none is left out. Time is agreed time, so an event that nobody acknowledges
//! goes to somebody else at an agreed place in the log, and no replica's clock or leadership loses it.
//!
//! What never stops silently: a group that cannot go on says so to whoever takes ([`EventsError::GroupFull`]), and
//! [`GroupInfo`] shows its lag.

use super::error::{EventsError, Limit};
use super::limits::{GROUP_PARKED_MAX, GROUPS_MAX, TAKE_BYTES_SOFT_MAX};
use super::operation::{NewGroup, Read, Verdict};
use super::read::{self, Budget};
use super::reply::{Delivery, GroupInfo, ParkedInfo, Response, Taken};
use super::store::Store;
use imbl::OrdMap;
use quorate_core::machine::At;
use quorate_core::time::{Duration, WallTime};
use std::sync::Arc;

/// Parked events that [`GroupInfo`] names.
const PARKED_NAMED_MAX: usize = 100;
/// What is said of an event that was given out too often without a word from its consumers.
const NEVER_ACKNOWLEDGED: &str = "never acknowledged";

/// A group. Invariant: a number is in at most one of the three maps, and below `next`.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub made: NewGroup,
    /// The next number that was never given out.
    pub next: u64,
    /// With consumers.
    pub held: OrdMap<u64, Held>,
    /// To be given out again; how often they were.
    pub waiting: OrdMap<u64, u32>,
    /// Set aside.
    pub parked: OrdMap<u64, Parked>,
    /// Acknowledged or skipped, in all.
    pub finished: u64,
}

/// An event that a consumer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub consumer: Arc<str>,
    pub attempts: u32,
    /// When somebody else may have it.
    pub until: WallTime,
}

/// An event that is set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parked {
    pub attempts: u32,
    pub reason: Arc<str>,
}

impl Group {
    pub fn new(made: NewGroup) -> Self {
        let next = made.from.max(1);
        Self { made, next, held: OrdMap::new(), waiting: OrdMap::new(), parked: OrdMap::new(), finished: 0 }
    }

    /// An event was not acknowledged: it is given out again, or set aside.
    fn retry(&mut self, number: u64, attempts: u32, reason: &str) {
        if attempts < self.made.settings.attempts_max {
            self.waiting.insert(number, attempts);
        } else {
            self.parked.insert(number, Parked { attempts, reason: reason.into() });
        }
    }

    /// Takes back what consumers have kept too long. Whether there was anything.
    fn expire(&mut self, now: WallTime) -> bool {
        let late: Vec<_> = self.held.iter().filter(|(_, held)| held.until <= now).map(|(number, _)| *number).collect();
        for number in &late {
            if let Some(held) = self.held.remove(number) {
                self.retry(*number, held.attempts, NEVER_ACKNOWLEDGED);
            }
        }
        !late.is_empty()
    }

    fn give(&mut self, number: u64, attempts: u32, consumer: &Arc<str>, now: WallTime) {
        let until = now.plus(Duration::from_nanos(self.made.settings.retry_after_nanos));
        self.held.insert(number, Held { consumer: consumer.clone(), attempts, until });
    }
}

/// Makes a group.
pub(super) fn create(store: &mut Store, new: NewGroup) -> Result<(Response, bool), EventsError> {
    match store.groups.get(new.group.as_str()) {
        Some(group) if group.made == new => Ok((Response::Done, false)),
        Some(_) => Err(EventsError::GroupExists { group: new.group }),
        None if store.groups.len() >= GROUPS_MAX => Err(EventsError::TooLarge(Limit::Groups)),
        None => {
            store.groups.insert(new.group.as_str().into(), Group::new(new));
            Ok((Response::Done, true))
        }
    }
}

/// Forgets a group.
pub(super) fn forget(store: &mut Store, group: &str) -> Result<(Response, bool), EventsError> {
    store.groups.remove(group).map(|_| (Response::Done, true)).ok_or_else(|| no_group(group))
}

/// Gives events to a consumer: first those that wait to be given out again, then new ones.
pub(super) fn take(
    store: &mut Store,
    at: &At,
    name: &str,
    consumer: &str,
    limit: u32,
) -> Result<(Response, bool), EventsError> {
    let mut group = find(store, name)?.clone();
    let mut changed = group.expire(at.time);
    if group.parked.len() >= GROUP_PARKED_MAX {
        return Err(EventsError::GroupFull { group: name.to_owned() });
    }
    let in_flight_max = group.made.settings.in_flight_max;
    let room = in_flight_max.saturating_sub(u32::try_from(group.held.len()).unwrap_or(u32::MAX));
    let mut left = Budget { events: if limit == 0 { room } else { limit.min(room) }, bytes: TAKE_BYTES_SOFT_MAX };
    let consumer: Arc<str> = consumer.into();
    let mut events = Vec::new();
    while left.events > 0
        && left.bytes > 0
        && let Some((number, attempts)) = group.waiting.get_min().copied()
    {
        changed = true;
        group.waiting.remove(&number);
        // What was hidden meanwhile is nobody's work any more.
        let Some((position, event)) = read::visible(store, &group.made.source, number) else {
            group.finished = group.finished.saturating_add(1);
            continue;
        };
        let attempt = attempts.saturating_add(1);
        left = less(left, usize::try_from(event.len()).unwrap_or(usize::MAX));
        events.push(Delivery { number, attempt, event: store.recorded(position, event) });
        group.give(number, attempt, &consumer, at.time);
    }
    let mut end = group.waiting.is_empty();
    if left.events > 0 && left.bytes > 0 {
        let NewGroup { source, filter, .. } = &group.made;
        let (source, filter) = (source.clone(), filter.clone());
        let page =
            read::page(store, &Read { source: source.clone(), filter, from: group.next, ..Read::default() }, left);
        changed |= page.next != group.next;
        (group.next, end) = (page.next, page.end);
        for event in page.events {
            let number = event.number(&source);
            group.give(number, 1, &consumer, at.time);
            events.push(Delivery { number, attempt: 1, event });
        }
    } else {
        end = end && left.bytes > 0 && read::head(store, &group.made.source).is_none_or(|head| group.next > head);
    }
    if changed {
        store.groups.insert(name.into(), group);
    }
    Ok((Response::Taken(Taken { events, end }), changed))
}

fn less(left: Budget, bytes: usize) -> Budget {
    Budget { events: left.events.saturating_sub(1), bytes: left.bytes.saturating_sub(bytes) }
}

/// The work on events is done. Late is not too late: whoever holds them now need not do it again.
pub(super) fn ack(store: &mut Store, name: &str, numbers: &[u64]) -> Result<(Response, bool), EventsError> {
    let group = find_mut(store, name)?;
    let mut changed = false;
    for number in numbers {
        let known = group.held.remove(number).is_some()
            || group.waiting.remove(number).is_some()
            || group.parked.remove(number).is_some();
        changed |= known;
        group.finished = group.finished.saturating_add(u64::from(known));
    }
    Ok((Response::Done, changed))
}

/// A consumer could not do the work. Only who holds an event can say so: a late word must not disturb the next one.
pub(super) fn nack(
    store: &mut Store,
    name: &str,
    consumer: &str,
    numbers: &[u64],
    verdict: Verdict,
    reason: &str,
) -> Result<(Response, bool), EventsError> {
    let group = find_mut(store, name)?;
    let mut changed = false;
    for number in numbers {
        if group.held.get(number).is_none_or(|held| &*held.consumer != consumer) {
            continue;
        }
        let Some(Held { attempts, .. }) = group.held.remove(number) else { continue };
        changed = true;
        match verdict {
            Verdict::Retry => group.retry(*number, attempts, reason),
            Verdict::Park => drop(group.parked.insert(*number, Parked { attempts, reason: reason.into() })),
            Verdict::Skip => group.finished = group.finished.saturating_add(1),
        }
    }
    Ok((Response::Done, changed))
}

/// Decides about all events that are set aside.
pub(super) fn unpark(store: &mut Store, name: &str, replay: bool) -> Result<(Response, bool), EventsError> {
    let group = find_mut(store, name)?;
    let parked = std::mem::take(&mut group.parked);
    let changed = !parked.is_empty();
    if replay {
        group.waiting.extend(parked.into_iter().map(|(number, _)| (number, 0_u32)));
    } else {
        group.finished = group.finished.saturating_add(parked.len() as u64);
    }
    Ok((Response::Done, changed))
}

/// How a group is.
pub(super) fn info(store: &Store, name: &str) -> Result<GroupInfo, EventsError> {
    let group = find(store, name)?;
    let parked = group.parked.iter().take(PARKED_NAMED_MAX).map(|(number, parked)| ParkedInfo {
        number: *number,
        attempts: parked.attempts,
        reason: parked.reason.to_string(),
    });
    Ok(GroupInfo {
        group: group.made.clone(),
        next: group.next,
        head: read::head(store, &group.made.source).unwrap_or(0),
        in_flight: group.held.len() as u64,
        waiting: group.waiting.len() as u64,
        finished: group.finished,
        parked: parked.collect(),
        parked_count: group.parked.len() as u64,
    })
}

fn find<'a>(store: &'a Store, name: &str) -> Result<&'a Group, EventsError> {
    store.groups.get(name).ok_or_else(|| no_group(name))
}

fn find_mut<'a>(store: &'a mut Store, name: &str) -> Result<&'a mut Group, EventsError> {
    store.groups.get_mut(name).ok_or_else(|| no_group(name))
}

fn no_group(group: &str) -> EventsError {
    EventsError::NoGroup { group: group.to_owned() }
}
