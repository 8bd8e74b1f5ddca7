//! A replica's half: what is left for it on the server is brought to it, and acknowledged when it is there. The replica syncs it
//! after that: one that dies in between gets it from the others.

use super::{Names, RETRY, connect, context};
use async_nats::ServerAddr;
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use quorate_core::ids::ReplicaId;
use quorate_runtime::broker::Intake;
use std::time::Duration;
use tokio::time::sleep;
use tokio_stream::StreamExt as _;

/// Publications that one request of the replica asks for.
const BATCH_MAX: usize = 256;
/// How long a request waits on the server for publications.
const PULL: Duration = Duration::from_secs(30);
/// A server that says nothing for twice as long is not there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Publications that are given out again if they are not acknowledged: never more at a time.
const UNACKNOWLEDGED_MAX: i64 = 4096;

/// Consumes for ever.
pub(super) async fn run(address: ServerAddr, names: Names, replica: ReplicaId, intake: Intake) {
    let context = context(connect(&address, None).await);
    loop {
        let _why = consume(&context, names, replica, &intake).await; // whatever it was: all is set up again
        sleep(RETRY).await;
    }
}

async fn consume(
    context: &Context,
    names: Names,
    replica: ReplicaId,
    intake: &Intake,
) -> Result<(), async_nats::Error> {
    let stream = context.get_or_create_stream(names.stream_config()).await?;
    let name = Names::consumer(replica);
    let config = pull::Config {
        durable_name: Some(name.clone()),
        filter_subject: names.subject(replica),
        ack_policy: AckPolicy::Explicit,
        max_ack_pending: UNACKNOWLEDGED_MAX,
        ..pull::Config::default()
    };
    let consumer = stream.get_or_create_consumer(&name, config).await?;
    let pulled = consumer.stream().max_messages_per_batch(BATCH_MAX).expires(PULL).heartbeat(HEARTBEAT);
    let mut publications = pulled.messages().await?;
    while let Some(publication) = publications.next().await {
        let publication = publication?;
        intake.bring(publication.payload.clone()).await;
        publication.ack().await?;
    }
    Ok(())
}
