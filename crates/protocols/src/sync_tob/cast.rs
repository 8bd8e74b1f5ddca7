//! Casting (UCB) by a replica: what its clients ask goes to all, and whoever holds it signs that it does. See `ucb.rs` for what
//! is remembered.

use super::clock::Reading;
use super::content::Bundle;
use super::durable::Record;
use super::message::{Cast, Chain, Echo, Message};
use super::replica::Replica;
use super::scb::Instance;
use super::ucb::Gathered;
use super::{Broadcast, Outbox, Timer};
use crate::pbft::{self, Group, Requests};
use quorate_core::crypto::{ClientKey, Evidence, Signed, Verified};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{OpNumber, Peer, ReplicaId, View};
use quorate_core::mutated;
use quorate_core::time::WallTime;

/// So many lives may begin after one block and before the next: more than a process can be started in any time.
const LIVES_PER_BLOCK: u64 = 1 << 20;

/// Every life that begins before this block is committed is below this.
pub(super) const fn lives_from(op: OpNumber) -> u64 {
    op.get().saturating_mul(LIVES_PER_BLOCK)
}

/// Casts.
impl Replica {
    /// Input `x` at the broadcast: it is cast to all. Requests that were executed before are ordered again: whoever applies
    /// them knows, and answers again.
    pub(super) fn on_request(&mut self, from: Peer, group: Verified<Requests, ClientKey>, out: &mut Outbox) {
        let client = group.statement().client;
        self.need_clock(out);
        let group: Group = group.into_signed();
        let now = self.now(out);
        let since = WallTime::from_nanos(now.as_nanos().saturating_sub(self.remembered()));
        let refused = self.silent || self.reading(out) == Reading::Unsynced;
        let gathered = match refused {
            true => Gathered::Full,
            false => self.ucb.gather(group, (since, now), self.config.sender_bytes, self.config.client_bytes),
        };
        match gathered {
            Gathered::Full => {
                let busy = pbft::Message::Busy { view: View::ZERO };
                out.send_unsynced(Peer::Client(client), Message::Client(busy)); // promises nothing
                out.ignore(from, Why::Busy);
            }
            Gathered::Known => out.ignore(from, Why::Duplicate),
            Gathered::New => {
                self.cast_more(out);
                self.expect_progress(out);
            }
        }
    }

    /// What others have cast is waited for so long, nanoseconds.
    fn remembered(&self) -> u64 {
        u64::try_from(self.schedule.window().as_nanos()).unwrap_or(u64::MAX).saturating_mul(4)
    }

    /// Casts what has gathered: at once, or after a pause in which more may come.
    pub(super) fn cast_more(&mut self, out: &mut Outbox) {
        if !self.ucb.has_gathered() || self.reading(out) != Reading::Synced || self.silent {
            return;
        }
        if let Some(at) = self.ucb.cast_at {
            let passed = out.now().since(at);
            if passed < self.config.cast_pause {
                return out.arm(Timer::Cast, self.config.cast_pause.saturating_sub(passed));
            }
        }
        let moved = self.order.next_of(self.me).life;
        if self.ucb.life().is_none_or(|life| life < moved) && !self.begin_life(out) {
            return;
        }
        if self.ucb.is_waiting(self.me) {
            return; // first some of them have to be moved
        }
        let Some((id, bundle)) = self.ucb.take(self.me) else { return };
        let cast = Cast { id, start: self.now(out), bundle: bundle.digest(), bytes: bundle.len() as u64 };
        let head = self.keyring.sign(cast);
        self.ucb.cast_at = Some(out.now());
        let seq = self.persist(Record::Bundle(Some(head.clone()), bundle.clone()), out);
        let chain = Chain::new(head);
        let message = Message::Cast { chain: chain.clone(), bundle: bundle.clone() };
        if mutated!("sync-tob/cast-before-the-sync") {
            out.broadcast_unsynced(message);
        } else {
            out.broadcast(message); // then the record of this life is on disk, too
        }
        self.ucb.insert(chain);
        self.ucb.hold(bundle, seq, self.now(out), true);
        self.arm_epoch(out);
        if self.ucb.has_gathered() {
            out.arm(Timer::Cast, self.config.cast_pause);
        }
    }

    /// Begins a life, in which names of casts are new. It is above all earlier ones, whatever was lost: see `README.md`, *Why
    /// no name is used twice*. False if that has to wait.
    pub(super) fn begin_life(&mut self, out: &mut Outbox) -> bool {
        let life = self.life.max(self.order.next_of(self.me).life).saturating_add(1);
        if life >= lives_from(self.committed.next()) {
            return false; // first something has to be committed
        }
        self.life = life;
        self.persist(Record::Life(life), out);
        self.ucb.begin(self.me, life);
        true
    }

    /// ⟨sender, seq, τ, H(x)⟩ with x. Signed by whoever holds it; with Dolev and Strong, only if it came in time.
    pub(super) fn on_cast(
        &mut self,
        from: ReplicaId,
        chain: Chain<Cast>,
        bundle: Bundle,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let cast = *chain.statement();
        self.need_clock(out);
        if let Some(why) = self.refuses_cast(from, &chain, out) {
            out.ignore(Peer::Replica(from), why);
            return Ok(());
        }
        if self.ucb.get(cast.id).is_some_and(|known| *known.chain.statement() != cast) {
            let known = self.ucb.get(cast.id).and_then(|known| known.chain.head.clone().verified().ok());
            let other = chain.head.verified()?;
            self.convict(known.and_then(|known| Evidence::of(&known, &other)), out);
            return Ok(());
        }
        if self.ucb.get(cast.id).is_none() {
            self.ucb.insert(Chain::new(chain.head.clone()));
        }
        if !self.ucb.bundles.contains_key(&cast.bundle) {
            let seq = self.persist(Record::Bundle(Some(chain.head.clone()), bundle.clone()), out);
            self.ucb.hold(bundle.clone(), seq, self.now(out), false);
        }
        for echo in &chain.echoes {
            self.count_echo(cast, echo.clone());
        }
        self.sign_cast(from, chain, bundle, out);
        self.arm_epoch(out);
        self.vote_more(out);
        self.dispatch(out);
        self.expect_progress(out);
        Ok(())
    }

    fn refuses_cast(&self, from: ReplicaId, chain: &Chain<Cast>, out: &Outbox) -> Option<Why> {
        let cast = chain.statement();
        if !self.order.is_open(cast.id) || from == self.me {
            return Some(Why::Duplicate);
        }
        if self.ucb.get(cast.id).is_none() && !self.has_room(cast) {
            return Some(Why::Busy);
        }
        let clock = self.now(out);
        let opens = self.schedule.opens(cast.start, chain.signers());
        let in_time = clock >= opens && clock <= self.schedule.deadline(cast.start, chain.signers());
        let judged = self.config.broadcast == Broadcast::DolevStrong && self.ucb.get(cast.id).is_none();
        (judged && !(in_time && self.reading(out) == Reading::Synced)).then_some(Why::OutsideWindow)
    }

    /// Is there room for one more cast of its sender?
    fn has_room(&self, cast: &Cast) -> bool {
        let is_next = self.order.is_next(cast.id);
        self.ucb.has_room(cast.id.sender, cast.bytes, is_next, self.config.sender_bytes)
    }

    /// Signs that it is here, once it is on disk. Dolev and Strong pass it on with all signatures, unless the chain is long
    /// enough; the flooding back-end tells everybody that it has it.
    fn sign_cast(&mut self, from: ReplicaId, chain: Chain<Cast>, bundle: Bundle, out: &mut Outbox) {
        let (cast, me) = (*chain.statement(), self.me());
        let Some(known) = self.ucb.get_mut(cast.id) else { return };
        if let Some(echo) = known.echo.clone() {
            if from == cast.id.sender {
                let head = known.chain.head.clone();
                out.send(Peer::Replica(from), Message::Echo { head, echo }); // it asks again: the first one was lost
            }
            return;
        }
        let echo = self.keyring.sign(Echo(cast));
        known.echo = Some(echo.clone());
        let head = known.chain.head.clone();
        let pass_on = chain.signers() <= self.quorums.faults();
        match self.config.broadcast {
            Broadcast::Flood => out.broadcast(Message::Echo { head: head.clone(), echo: echo.clone() }),
            Broadcast::DolevStrong if pass_on => {
                let longer = chain.clone().with(echo.clone());
                for other in Instance::strangers(&chain, self.others()) {
                    out.send(Peer::Replica(other), Message::Cast { chain: longer.clone(), bundle: bundle.clone() });
                }
                out.send(Peer::Replica(cast.id.sender), Message::Echo { head: head.clone(), echo: echo.clone() });
            }
            Broadcast::DolevStrong => {}
        }
        out.send(me, Message::Echo { head, echo });
    }

    /// ⟨I have what was cast⟩, one's own included: it comes back when it is on disk.
    pub(super) fn on_echo(
        &mut self,
        head: Signed<Cast>,
        echo: Signed<Echo<Cast>>,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let (cast, by, other) = (*head.statement(), echo.by(), head.clone().verified()?);
        if !self.order.is_open(cast.id) || by == cast.id.sender {
            out.ignore(Peer::Replica(by), Why::Duplicate);
            return Ok(());
        }
        if self.ucb.get(cast.id).is_none() {
            if !self.has_room(&cast) {
                out.ignore(Peer::Replica(by), Why::Busy);
                return Ok(());
            }
            self.ucb.insert(Chain::new(head)); // the echo has overtaken the cast
        }
        if let Some(known) = self.ucb.get(cast.id).filter(|known| *known.chain.statement() != cast) {
            let known = known.chain.head.clone().verified()?;
            self.convict(Evidence::of(&known, &other), out);
            return Ok(());
        }
        self.count_echo(cast, echo);
        self.arm_epoch(out);
        Ok(())
    }

    fn count_echo(&mut self, cast: Cast, echo: Signed<Echo<Cast>>) {
        let Some(known) = self.ucb.get_mut(cast.id).filter(|known| *known.chain.statement() == cast) else { return };
        let empty = Chain::new(known.chain.head.clone());
        known.chain = std::mem::replace(&mut known.chain, empty).with(echo);
    }
}
