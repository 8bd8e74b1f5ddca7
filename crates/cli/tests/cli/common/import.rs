//! An import that goes on while replicas are killed: what was acknowledged is there afterwards, once.

use super::{Cluster, eventually, text_of};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// Who is killed.
#[derive(Clone, Copy)]
pub enum Victim {
    /// Whoever has this role then.
    Role(&'static str),
    /// This one.
    Replica(usize),
}

/// So many lines for `kv import`, and as `kv export` prints them.
pub fn lines(count: usize) -> (String, String) {
    let lines = (0..count).map(|index| format!("key-{:06}\tvalue {index}", (index * 7919) % 1_000_003));
    let sorted: BTreeMap<String, String> =
        lines.clone().map(|line| (line.split('\t').next().expect("a key").to_owned(), line)).collect();
    let text = |lines: Vec<String>| lines.into_iter().map(|line| line + "\n").collect::<String>();
    (text(lines.collect()), text(sorted.into_values().collect()))
}

impl Cluster {
    /// Starts `quorate kv import`.
    pub fn import(&self, file: &Path, in_flight: usize) -> Child {
        let mut command = self.command(&["kv", "import", "--in-flight", &in_flight.to_string()]);
        command.arg(file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("import starts")
    }

    /// Imports `count` lines, so many in flight; when a percentage of them has been applied, its victim gets `kill -9` and is
    /// started again 300 ms later. `applied` says how much has been.
    pub fn import_under_kills(
        &mut self,
        (count, in_flight): (usize, usize),
        kills: &[(usize, Victim)],
        applied: impl Fn(&Self) -> u64,
    ) {
        let (text, sorted) = lines(count);
        let file = self.scratch().join("data.tsv");
        std::fs::write(&file, text).expect("a file");
        let mut import = self.import(&file, in_flight);
        for (percent, victim) in kills {
            eventually("the import comes that far", || {
                assert!(import.try_wait().expect("a child").is_none(), "it is over before it was disturbed");
                applied(self) >= (count * percent / 100) as u64
            });
            let victim = match *victim {
                Victim::Role(role) => self.find(role),
                Victim::Replica(replica) => replica,
            };
            self.kill(victim);
            std::thread::sleep(Duration::from_millis(300));
            self.serve(victim);
        }
        let status = import.wait().expect("a child");
        assert!(status.success(), "{}", text_of(import.stderr));
        assert!(self.export() == sorted.as_bytes(), "the export is not what was imported");
    }

    /// Kills everybody at once, and starts everybody again: what was acknowledged is there, and the group goes on.
    pub fn outlives_the_death_of_all(&mut self) {
        self.must(&["kv", "put", "before", "1"]);
        self.kill_all();
        (0..self.replicas).for_each(|replica| self.spawn(replica));
        (0..self.replicas).for_each(|replica| self.wait_until_ready(replica));
        assert_eq!(self.must(&["kv", "get", "before"]).trim(), "1");
        self.must(&["kv", "put", "after", "2"]);
        self.wait_until_agreed();
        eventually("all is well", || self.status()["healthy"] == true);
        self.assert_no_panic();
    }

    /// Loses a replica's disk while another write is acknowledged, and lets `quorate recover` bring it back as a new one.
    pub fn lose_and_recover(&mut self, replica: usize) {
        self.must(&["kv", "put", "before", "1"]);
        self.kill(replica);
        std::fs::remove_dir_all(self.replica(replica).join("data")).expect("its folder");
        self.must(&["kv", "put", "without", "2"]);
        let config = self.replica(replica).join("replica.toml").display().to_string();
        let said = self.must(&["recover", "--config", &config]);
        assert!(said.contains(&format!("R{replica} begins anew")), "{said}");
        self.serve(replica);
    }

    /// Takes another one away, so that the recovered one's vote is needed, and gives it back.
    pub fn needs_the_vote_without(&mut self, other: usize) {
        self.kill(other);
        self.must(&["kv", "put", "with its vote", "3"]);
        assert_eq!(self.must(&["kv", "get", "before"]).trim(), "1");
        self.serve(other);
        self.wait_until_agreed();
        self.assert_no_panic();
    }
}
