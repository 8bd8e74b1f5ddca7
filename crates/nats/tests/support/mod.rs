//! A `nats-server` for tests: on a free port, with a folder of its own, killed when the test ends.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A server that can be killed and started again.
pub struct Server {
    dir: TempDir,
    port: u16,
    monitor: u16,
    child: Option<Child>,
}

/// Below the range from which systems take the ports of outgoing connections, so that nobody takes it while the server is down.
fn free_port() -> u16 {
    let chance = RandomState::new().build_hasher().finish() % 8_000;
    let start = u16::try_from(chance).expect("small");
    let mut ports = (0..8_000).map(|step| 12_000 + (start + step) % 8_000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

impl Server {
    /// Starts one; `None` where none is installed, unless the tests are told that there must be one.
    pub fn start() -> Option<Self> {
        if Command::new("nats-server").arg("--version").output().is_err() {
            assert!(std::env::var_os("QUORATE_NEEDS_NATS").is_none(), "nats-server is not installed");
            eprintln!("nats-server is not installed: nothing was tried");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("quorate-nats-").tempdir().expect("a temporary folder");
        let port = free_port();
        let mut server = Self { dir, port, monitor: 0, child: None };
        server.spawn();
        Some(server)
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts it again, from its disk.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).expect("a log");
        self.monitor = free_port();
        let child = Command::new("nats-server")
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string(), "-m", &self.monitor.to_string(), "-js", "-sd"])
            .arg(self.data())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("it starts"));
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < until, "it does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("a child");
        child.wait().expect("a child");
    }

    /// Its disk is gone. It must be down.
    pub fn lose_disk(&self) {
        assert!(self.child.is_none(), "it runs");
        std::fs::remove_dir_all(self.data()).expect("a folder");
    }

    /// Messages that clients have sent it since it started.
    pub fn messages(&self) -> u64 {
        let Ok(mut connection) = TcpStream::connect(("127.0.0.1", self.monitor)) else { return 0 };
        let asked = connection.write_all(b"GET /varz HTTP/1.0\r\n\r\n");
        let mut said = String::new();
        if asked.is_err() || connection.read_to_string(&mut said).is_err() {
            return 0;
        }
        let number = said.split("\"in_msgs\":").nth(1).map(|rest| rest.trim_start());
        let digits = number.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _dead_already = child.kill();
            let _reaped = child.wait();
        }
    }
}
