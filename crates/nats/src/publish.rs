//! A client's half: what it publishes is written to the server, and the server's word is waited for.

use super::{ANSWER_MAX, Link, Names, QUEUE_MAX, RETRY, connect, context};
use async_nats::ServerAddr;
use async_nats::jetstream::Context;
use bytes::Bytes;
use quorate_core::ids::ReplicaId;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Publishes for ever. Whenever the server fails, what comes goes elsewhere until the stream is known to be there again.
pub(super) async fn run(
    address: ServerAddr,
    names: Names,
    link: Arc<Link>,
    mut waiting: mpsc::Receiver<(ReplicaId, Bytes)>,
) {
    let client = connect(&address, Some(link.clone())).await;
    let context = context(client.clone());
    loop {
        if context.get_or_create_stream(names.stream_config()).await.is_err() {
            sleep(RETRY).await;
            continue;
        }
        link.payload_bytes_max.store(client.max_payload(), Ordering::Relaxed);
        link.is_well.store(true, Ordering::Relaxed);
        let went_on = publish_all(&context, names, &link, &mut waiting).await;
        link.is_well.store(false, Ordering::Relaxed);
        if !went_on {
            return; // nobody will publish any more
        }
        while waiting.try_recv().is_ok() {} // it is submitted directly before the server is back
    }
}

/// Publishes until the server fails; false when there will be nothing more.
async fn publish_all(
    context: &Context,
    names: Names,
    link: &Link,
    waiting: &mut mpsc::Receiver<(ReplicaId, Bytes)>,
) -> bool {
    let mut words: JoinSet<bool> = JoinSet::new();
    loop {
        tokio::select! {
            next = waiting.recv(), if words.len() < QUEUE_MAX => {
                let Some((to, body)) = next else { return false };
                let Ok(Ok(word)) = timeout(ANSWER_MAX, context.publish(names.subject(to), body)).await else {
                    return true;
                };
                words.spawn(async move { word.await.is_ok() });
            }
            () = link.lost.notified() => return true,
            Some(said) = words.join_next() => if !matches!(said, Ok(true)) {
                return true;
            }
        }
    }
}
