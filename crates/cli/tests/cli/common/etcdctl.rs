//! Debian's `etcdctl`, told where a gateway is.

use std::io::Write;
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
