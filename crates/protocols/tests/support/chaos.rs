//! Random histories: crashes that lose what was not synced, or some of it; partitions, also of one direction; messages lost,
//! repeated and reordered; slow disks and machines; damaged records and snapshots. Whatever happens, no two replicas apply
//! different batches as one entry, nothing that was acknowledged is lost or applied twice, and a read sees every write that
//! was acknowledged before it began. Once faults end, everybody agrees. What a protocol has of its own is in its `luck.rs`.
//!
//! `CHAOS_SEEDS=20000 cargo test -p quorate-protocols --test vr chaos` runs more of them, `CHAOS_SEED=7` one.

use crate::dice::Dice;
use crate::harness::Cluster;
use crate::luck;
use quorate_core::protocol::{Consistency, Ticket};
use std::ops::Range;

struct Asked {
    operation: String,
    client: u128,
    ticket: Ticket,
}

struct Read {
    client: u128,
    ticket: Ticket,
    /// What was acknowledged when it began.
    must_see: Vec<String>,
}

struct History {
    it: Cluster,
    dice: Dice,
    asked: Vec<Asked>,
    reads: Vec<Read>,
    /// Whose disk may be damaged; `None` for nobody's.
    unlucky: Option<usize>,
}

impl History {
    fn new(seed: u64, damage: bool) -> Self {
        let mut dice = Dice::new(seed);
        let n = luck::SIZES[dice.below(luck::SIZES.len())];
        let mut it = Cluster::with(n, luck::config(&mut dice));
        it.client(1).client(2);
        let unlucky = (damage && n >= luck::REPAIRS).then(|| dice.below(n));
        Self { it, dice, asked: Vec::new(), reads: Vec::new(), unlucky }
    }

    fn step(&mut self) {
        let n = self.it.hosts.len();
        let id = self.dice.below(n);
        match self.dice.below(20) {
            0..=3 => self.submit(),
            4 => self.read(),
            5..=9 => self.shuffle(),
            10..=11 => {
                self.it.deliver();
            }
            12..=13 => {
                let ms = self.dice.next() % 400;
                self.it.run(ms);
            }
            14 => self.crash(id),
            15 => self.restart(id),
            16 => {
                self.it.isolate(id);
            }
            17 => {
                let other = self.dice.below(n);
                self.it.cut(id, other);
            }
            18 => {
                self.it.heal();
            }
            _ => {
                let (disk, machine) = (!self.dice.one_in(3), !self.dice.one_in(3));
                self.it.hosts[id].fast_disk = disk;
                self.it.hosts[id].fast_machine = machine;
                self.it.sync(id).work(id);
            }
        }
        self.check_reads();
    }

    fn submit(&mut self) {
        let client = 1 + self.dice.below(2) as u128;
        let operation = if self.dice.one_in(9) { "lease".to_owned() } else { format!("x{}", self.asked.len()) };
        let ticket = self.it.submit(client, &operation);
        self.asked.push(Asked { operation, client, ticket });
    }

    fn read(&mut self) {
        let client = 1 + self.dice.below(2) as u128;
        let must_see = self.acknowledged();
        let ticket = self.it.read(client, Consistency::Linearizable);
        self.reads.push(Read { client, ticket, must_see });
    }

    fn acknowledged(&self) -> Vec<String> {
        let done = self
            .asked
            .iter()
            .filter(|it| self.it.answer(it.client, it.ticket).is_some_and(|it| !it.starts_with("error")));
        done.map(|it| it.operation.clone()).collect()
    }

    fn check_reads(&mut self) {
        for read in std::mem::take(&mut self.reads) {
            match self.it.answer(read.client, read.ticket) {
                None => self.reads.push(read),
                Some(answer) if answer.starts_with("error") => {}
                Some(answer) => {
                    let seen: Vec<_> = answer.split(' ').collect();
                    let missed = read.must_see.iter().find(|it| !seen.contains(&it.as_str()));
                    assert_eq!(missed, None, "a read has missed what was acknowledged before it");
                }
            }
        }
    }

    /// Delivers, loses or repeats some messages, in any order.
    fn shuffle(&mut self) {
        for _ in 0..self.dice.below(12) {
            let index = self.dice.below(self.it.flying.len());
            let Some(next) = self.it.flying.remove(index) else { return };
            match self.dice.below(12) {
                0 => {}
                1 => {
                    self.it.hand_over(&next);
                    self.it.flying.push_back(next);
                }
                _ => self.it.hand_over(&next),
            }
        }
    }

    fn crash(&mut self, id: usize) {
        let host = &mut self.it.hosts[id];
        let unsynced = host.next_seq.previous().since(host.durable);
        let kept = self.dice.next() % (unsynced + 1);
        host.durable = host.durable.plus(kept); // some of what was not synced may have reached the disk
        self.it.crash(id);
        if self.unlucky == Some(id) && self.dice.one_in(2) {
            self.damage(id);
        }
    }

    fn damage(&mut self, id: usize) {
        let host = &mut self.it.hosts[id];
        if self.dice.one_in(6) {
            return host.snapshots.clear();
        }
        for _ in 0..self.dice.below(3) {
            let index = self.dice.below(host.journal.len());
            let Some(record) = host.journal.get_mut(index) else { return };
            if let Some(class) = luck::damage(&record.record(), &mut self.dice) {
                record.damaged = Some(class);
            }
        }
    }

    fn restart(&mut self, id: usize) {
        if self.it.hosts[id].process.is_some() {
            self.crash(id);
        }
        match self.it.try_restart(id) {
            Ok(()) => {}
            Err(error) if self.unlucky == Some(id) && luck::may_refuse(&error) => {}
            Err(error) => {
                for record in &self.it.hosts[id].journal {
                    let damaged = if record.damaged.is_some() { " damaged" } else { "" };
                    eprintln!("{}: {}{damaged}", record.seq, luck::brief(&record.record()));
                }
                panic!("R{id} does not start: {error}")
            }
        }
    }

    /// Faults end: everybody comes back, and agrees.
    fn end(&mut self) {
        self.it.heal();
        let n = self.it.hosts.len();
        for id in 0..n {
            self.it.hosts[id].fast_disk = true;
            self.it.hosts[id].fast_machine = true;
            self.it.sync(id).work(id);
        }
        for id in 0..n {
            if self.it.hosts[id].process.is_none() {
                self.restart(id);
            }
        }
        self.submit();
        let last = self.asked.pop().expect("just asked");
        self.it.run_until("the last call is answered", |it| it.answer(last.client, last.ticket).is_some());
        self.asked.push(last);
        self.it.run_until("everything is answered", |it| {
            self.asked.iter().all(|asked| it.answer(asked.client, asked.ticket).is_some())
        });
        self.it.run_until("everybody agrees", |it| {
            let running: Vec<_> = (0..n).filter(|id| it.hosts[*id].process.is_some()).collect();
            running.windows(2).all(|pair| it.tape(pair[0]) == it.tape(pair[1]))
        });
        self.check_reads();
        let up = (0..n).find(|id| self.it.hosts[*id].process.is_some()).expect("somebody is up");
        let tape = self.it.tape(up);
        for operation in self.acknowledged().iter().filter(|it| *it != "lease") {
            assert_eq!(tape.iter().filter(|it| *it == operation).count(), 1, "{operation} in {tape:?}");
        }
        assert!(self.it.hosts.iter().all(|host| host.halted.is_none()));
        luck::in_the_end(&self.it);
    }
}

fn histories(damage: bool) {
    for seed in seeds() {
        let run = || {
            let mut history = History::new(seed, damage);
            for _ in 0..150 {
                history.step();
            }
            history.end();
        };
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed}, damage {damage}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn seeds() -> Range<u64> {
    let told = |name| std::env::var(name).ok().and_then(|number| number.parse().ok());
    match told("CHAOS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..told("CHAOS_SEEDS").unwrap_or(luck::SEEDS),
    }
}

#[test]
fn no_history_of_crashes_and_partitions_loses_what_was_acknowledged() {
    histories(false);
}

#[test]
fn no_history_with_one_damaged_disk_loses_what_was_acknowledged() {
    histories(true);
}
