//! The etcd API behind TLS and client certificates, as a process of its own and within a replica's, with `etcdctl`.

use crate::common::Cluster;
use crate::common::etcdctl::{Etcdctl, Running};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// An authority, and what it has issued, as files in a folder.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("a folder");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate");
        fs::write(folder.join("ca.crt"), issuer.pem()).expect("it is written");
        Self { issuer, folder: folder.to_owned() }
    }

    /// Writes `NAME.crt` and `NAME.key` for these names and addresses.
    fn issue(&self, name: &str, hosts: &[&str]) {
        let key = KeyPair::generate().expect("a key");
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let certificate = CertificateParams::new(hosts).expect("parameters").signed_by(&key, &self.issuer);
        fs::write(self.file(name, "crt"), certificate.expect("a certificate").pem()).expect("it is written");
        fs::write(self.file(name, "key"), key.serialize_pem()).expect("it is written");
    }

    fn file(&self, name: &str, kind: &str) -> PathBuf {
        self.folder.join(format!("{name}.{kind}"))
    }
}

/// `etcdctl put a VALUE`, with a client's certificate of this authority or without. etcdctl tries again as long as it may.
fn put(url: &str, value: &str, patience: &str, trusted: &Authority, client: Option<&Authority>) -> Output {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", url, "--command-timeout", patience, "--dial-timeout", "2s"]);
    command.arg("--cacert").arg(trusted.file("ca", "crt"));
    if let Some(client) = client {
        command.arg("--cert").arg(client.file("client", "crt")).arg("--key").arg(client.file("client", "key"));
    }
    command.args(["put", "a", value]).output().expect("etcdctl runs")
}

/// Waits for the line that names the URL.
fn url_of(running: &mut Running) -> String {
    let mut lines = BufReader::new(running.0.stdout.take().expect("a pipe")).lines();
    let url = lines.find_map(|line| {
        let line = line.expect("text");
        line.split([' ', ',']).find(|word| word.starts_with("https://")).map(str::to_owned)
    });
    std::thread::spawn(move || lines.for_each(drop)); // so that it can go on talking
    url.expect("it says where")
}

#[test]
fn a_gateway_with_certificates_serves_those_who_have_one_of_its_authority() {
    let mut cluster = Cluster::init(3);
    let (ours, others) =
        (Authority::new(&cluster.scratch().join("ours")), Authority::new(&cluster.scratch().join("others")));
    ours.issue("server", &["localhost", "127.0.0.1"]);
    ours.issue("client", &["a client"]);
    others.issue("client", &["another client"]);
    let file = cluster.scratch().join("gateway.toml");
    let text = format!(
        "cluster = {:?}\nlisten = \"127.0.0.1:0\"\ncert_file = \"ours/server.crt\"\nkey_file = \"ours/server.key\"\n\
         client_ca_file = \"ours/ca.crt\"\n",
        cluster.folder().join("cluster.toml")
    );
    fs::write(&file, text).expect("it is written");
    let file = file.to_str().expect("a path");

    // one within a replica's process, one alone
    for replica in [1, 2] {
        cluster.serve(replica);
    }
    let config = cluster.replica(0).join("replica.toml");
    let within = ["serve", "--config", config.to_str().expect("a path"), "--gateway", file];
    let mut within = Running(cluster.command(&within).stdout(Stdio::piped()).spawn().expect("it starts"));
    let mut alone = cluster.command(&["gateway", "--config", file]);
    let mut alone = Running(alone.stdout(Stdio::piped()).spawn().expect("it starts"));
    let urls = [url_of(&mut within), url_of(&mut alone)];
    if Etcdctl::of(&urls[0]).is_none() {
        return;
    }
    for (value, url) in ["1", "2"].iter().zip(&urls) {
        let done = put(url, value, "20s", &ours, Some(&ours));
        assert!(done.status.success(), "{url}: {}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(cluster.must(&["kv", "get", "a"]), format!("{value}\n"));
        assert!(!put(url, "no", "2s", &ours, None).status.success(), "no certificate");
        assert!(!put(url, "no", "2s", &ours, Some(&others)).status.success(), "another authority's");
        assert!(!put(url, "no", "2s", &others, Some(&ours)).status.success(), "not the server that is trusted");
    }
    assert_eq!(cluster.must(&["kv", "get", "a"]), "2\n");
}
