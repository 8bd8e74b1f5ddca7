//! Debian's `etcdctl`, told where a gateway is.

use super::Cluster;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};

/// A command that ends with the test, however that ends.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// `etcdctl`, told where the gateway is.
pub struct Etcdctl {
    endpoint: String,
    user: Option<String>,
}

impl Etcdctl {
    /// `None` if it is not installed.
    pub fn of(url: &str) -> Option<Self> {
        if Command::new("etcdctl").arg("version").env("ETCDCTL_API", "3").output().is_err() {
            assert!(std::env::var_os("QUORATE_NEEDS_ETCD").is_none(), "etcdctl is not installed");
            eprintln!("etcdctl is not installed: nothing was tried");
            return None;
        }
        let endpoint = url.trim_start_matches("http://").to_owned();
        Some(Self { endpoint, user: None })
    }

    /// The same, for `name:password`.
    pub fn by(&self, user: &str) -> Self {
        Self { endpoint: self.endpoint.clone(), user: Some(user.to_owned()) }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoint, "--command-timeout", "20s"]);
        command.args(self.user.iter().flat_map(|user| ["--user", user]));
        command.args(arguments);
        command
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().expect("etcdctl runs")
    }

    /// What it prints; it must succeed.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "etcdctl {arguments:?}:\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// What it says on stderr; it must fail.
    pub fn must_fail(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(!output.status.success(), "etcdctl {arguments:?} should have failed");
        String::from_utf8(output.stderr).expect("text")
    }

    /// A transaction, as etcdctl reads it.
    pub fn txn(&self, text: &str) -> String {
        self.told(&["txn"], text)
    }

    /// What it prints when it is told this; it must succeed.
    pub fn told(&self, arguments: &[&str], text: &str) -> String {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("etcdctl runs");
        child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success());
        String::from_utf8(output.stdout).expect("text")
    }
}

impl Cluster {
    /// What etcd's clients do most, before and after the replica that leads the first view is killed, and when it is back. One watch
    /// lives through all of it.
    pub fn serves_etcdctl_through_a_kill(&mut self, etcdctl: &Etcdctl) {
        let watched = etcdctl.command(&["watch", "a", "--rev", "2"]).stdout(Stdio::piped()).spawn();
        let mut watched = Running(watched.expect("etcdctl runs"));
        let mut told = BufReader::new(watched.0.stdout.take().expect("a pipe")).lines();
        let mut used = |value: &str| {
            assert_eq!(etcdctl.must(&["put", "a", value]), "OK\n");
            assert_eq!(etcdctl.must(&["get", "a"]), format!("a\n{value}\n"));
            let txn = format!("value(\"a\") = \"{value}\"\n\nput b {value}\nget b\n\nput b no\n\n");
            assert_eq!(etcdctl.txn(&txn), format!("SUCCESS\n\nOK\n\nb\n{value}\n"));
            let granted = etcdctl.must(&["lease", "grant", "60"]);
            let lease = granted.split(' ').nth(1).expect("an id");
            etcdctl.must(&["put", "leased", value, "--lease", lease]);
            assert!(etcdctl.must(&["lease", "keep-alive", "--once", lease]).contains("TTL(60)"));
            etcdctl.must(&["lease", "revoke", lease]);
            assert_eq!(etcdctl.must(&["get", "leased"]), "");
            etcdctl.must(&["put", "c/1", value]);
            assert_eq!(etcdctl.must(&["del", "c/", "--prefix"]), "1\n");
            let heard: Vec<String> = told.by_ref().take(3).map(|line| line.expect("text")).collect();
            assert_eq!(heard, ["PUT", "a", value]);
        };
        used("with-all");
        self.kill(0);
        used("without-one");
        self.spawn(0);
        self.wait_until_ready(0);
        used("with-all-again");
    }
}
