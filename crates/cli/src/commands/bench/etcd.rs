//! The load through etcd's API: put on a gateway of ours, in a process of its own, or on whatever speaks that API elsewhere.
//! The same requests, the same loop, the same clock: only who answers differs.

use crate::errors::{Advise, failure};
use bytes::Bytes;
use quorate_server::proto::etcdserverpb::kv_client::KvClient;
use quorate_server::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_server::proto::etcdserverpb::{PutRequest, RangeRequest, StatusRequest};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tonic::transport::{Channel, Endpoint};

/// How long a connection may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the load is put on.
pub struct Front {
    urls: Vec<String>,
    /// Ours; it ends with this value, and with this process.
    gateway: Option<Child>,
}

impl Front {
    /// Starts `quorate gateway` for a cluster.
    ///
    /// # Errors
    /// If it ends instead of getting ready.
    pub async fn gateway(cluster_file: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().explain("cannot tell where this program is")?;
        let mut gateway = Command::new(program)
            .args(["gateway", "--until-stdin-closes", "--listen", "127.0.0.1:0", "--cluster"])
            .arg(cluster_file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .explain("cannot start a gateway")?;
        let mut lines = BufReader::new(gateway.stdout.take().ok_or_else(|| failure("no pipe", "try again"))?).lines();
        let line = lines.next_line().await?.unwrap_or_default();
        let url = line.split([' ', ',']).find(|word| word.starts_with("http://"));
        let url = url.ok_or_else(|| failure("the gateway ended before it was ready", "its message is above"))?;
        Ok(Self { urls: vec![url.to_owned()], gateway: Some(gateway) })
    }

    /// These endpoints; only the leader's, if one of them is: through another member a put takes one more hop.
    ///
    /// # Errors
    /// If one of them does not answer.
    pub async fn against(urls: &[String]) -> anyhow::Result<Self> {
        let mut front = Self { urls: urls.to_vec(), gateway: None };
        for url in urls {
            let status = MaintenanceClient::new(connect(url).await?).status(StatusRequest::default()).await;
            let status =
                status.advise(format!("{url} does not say how it is"), "name endpoints of etcd's v3 API")?.into_inner();
            if urls.len() > 1 && status.header.is_some_and(|header| header.member_id == status.leader) {
                front.urls = vec![url.clone()];
            }
        }
        Ok(front)
    }

    /// The gateway's process, if it is ours.
    pub fn process(&self) -> Option<u32> {
        self.gateway.as_ref().and_then(Child::id)
    }

    /// Where the load goes.
    pub fn names(&self) -> String {
        self.urls.join(", ")
    }

    /// A connection for each of so many clients, spread over the endpoints.
    ///
    /// # Errors
    /// If one cannot be made.
    pub async fn clients(&self, count: u32) -> anyhow::Result<Vec<KvClient<Channel>>> {
        let mut clients = Vec::new();
        for url in self.urls.iter().cycle().take(usize::try_from(count)?) {
            clients.push(KvClient::new(connect(url).await?));
        }
        Ok(clients)
    }
}

async fn connect(url: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned());
    let endpoint = endpoint.advise(format!("`{url}` is no URL"), "write http://host:port")?;
    let endpoint = endpoint.connect_timeout(CONNECT_PATIENCE).timeout(PATIENCE).tcp_nodelay(true);
    endpoint
        .connect()
        .await
        .advise(format!("cannot connect to {url}"), "is it running, and does it speak etcd's v3 API?")
}

/// Writes a key. Whether it was acknowledged.
pub async fn put(client: &mut KvClient<Channel>, key: Bytes, value: Bytes) -> bool {
    client.put(PutRequest { key, value, ..PutRequest::default() }).await.is_ok()
}

/// Reads a key, linearizably. Whether there was an answer.
pub async fn get(client: &mut KvClient<Channel>, key: Bytes) -> bool {
    client.range(RangeRequest { key, ..RangeRequest::default() }).await.is_ok()
}
