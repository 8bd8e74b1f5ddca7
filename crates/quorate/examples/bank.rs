//! Bank accounts as aggregates over the event store: `cargo run -p quorate --example bank`. Four replicas, one of which may lie;
//! a transfer changes two accounts, or none.

use quorate::events::{Aggregate, CommandError, Event, EventStore, Repository};
use quorate::{ClientOptions, Events, Local, Pbft, ReplicaId, pbft};
use thiserror::Error;

#[derive(Clone, Debug, Default)]
struct Account {
    open: bool,
    cents: i64,
}

#[derive(Clone, Copy, Debug)]
enum Command {
    Open,
    /// Cents; negative to withdraw.
    Move(i64),
}

#[derive(Clone, Debug, PartialEq)]
enum Happened {
    Opened,
    Moved(i64),
}

#[derive(Debug, Error, PartialEq)]
enum Refused {
    #[error("the account is open already")]
    AlreadyOpen,
    #[error("there is no such account")]
    NotOpen,
    #[error("only {0} cents are there")]
    TooLittle(i64),
}

impl Event for Happened {
    fn kind(&self) -> &'static str {
        match self {
            Happened::Opened => "opened",
            Happened::Moved(_) => "moved",
        }
    }

    fn encode(&self) -> Vec<u8> {
        match self {
            Happened::Opened => b"{}".to_vec(),
            Happened::Moved(cents) => format!("{{\"cents\":{cents}}}").into_bytes(),
        }
    }

    fn decode(kind: &str, data: &[u8]) -> Result<Self, String> {
        match kind {
            "opened" => Ok(Happened::Opened),
            "moved" => {
                let text = String::from_utf8_lossy(data);
                let digits = text.trim_start_matches("{\"cents\":").trim_end_matches('}');
                digits.parse().map(Happened::Moved).map_err(|_| format!("no number of cents: {text}"))
            }
            other => Err(format!("an account knows nothing of `{other}`")),
        }
    }
}

impl Aggregate for Account {
    const CATEGORY: &'static str = "account";
    type Command = Command;
    type Event = Happened;
    type Error = Refused;

    fn handle(&self, command: Command) -> Result<Vec<Happened>, Refused> {
        match command {
            Command::Open if self.open => Err(Refused::AlreadyOpen),
            Command::Open => Ok(vec![Happened::Opened]),
            Command::Move(_) if !self.open => Err(Refused::NotOpen),
            Command::Move(cents) if self.cents.saturating_add(cents) < 0 => Err(Refused::TooLittle(self.cents)),
            Command::Move(cents) => Ok(vec![Happened::Moved(cents)]),
        }
    }

    fn apply(&mut self, event: &Happened) {
        match event {
            Happened::Opened => self.open = true,
            Happened::Moved(cents) => self.cents = self.cents.saturating_add(*cents),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut cluster = Local::start::<Pbft, _>(4, pbft::Config::default(), Events::new)?;
    let (config, key) = cluster.cluster();
    let store = EventStore::connect::<Pbft>(config, key, ClientOptions::default())?;
    let accounts = Repository::<Account>::new(store.clone());

    accounts.execute("ann", Command::Open).await?;
    accounts.execute("bob", Command::Open).await?;
    accounts.execute("ann", Command::Move(100)).await?;
    let transfer = |cents: i64| [("ann", Command::Move(-cents)), ("bob", Command::Move(cents))];
    accounts.execute_all(transfer(30)).await?;
    cluster.crash(ReplicaId::new(0)); // the one that led
    match accounts.execute_all(transfer(500)).await {
        Err(CommandError::Rejected(why)) => println!("500 cents more are refused: {why}"),
        other => println!("unexpected: {other:?}"),
    }
    for name in ["ann", "bob"] {
        let account = accounts.load(name).await?;
        println!("{name} has {} cents after {} events", account.state.cents, account.version);
    }
    println!("{} events in all", store.status().await?.position);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate::events::Given;

    #[test]
    fn an_account_gives_what_it_has_and_nothing_more() {
        let opened = || [Happened::Opened, Happened::Moved(50)];
        Given::<Account>::nothing().when(Command::Open).then([Happened::Opened]);
        Given::<Account>::nothing().when(Command::Move(1)).then_fails("no such account");
        Given::<Account>::events(opened()).when(Command::Open).then_fails("open already");
        Given::<Account>::events(opened()).when(Command::Move(-50)).then([Happened::Moved(-50)]);
        Given::<Account>::events(opened()).when(Command::Move(-51)).then_fails("only 50 cents");
    }
}
