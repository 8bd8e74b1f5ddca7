//! A batch exchange in the manner of SPEEDEX, small: the reason for a leader that runs ahead. Orders to buy and to sell shares
//! gather in a book; each block settles the book of the blocks before it at one price for all. Finding the price is work,
//! done on all cores, by the leader alone; whoever is told a price settles in a moment, and need not believe it: at any
//! price nobody buys dearer or sells cheaper than he said, and nothing is made from nothing.
//!
//! `cargo run --profile ci -p quorate --example exchange -- [SECONDS] [MILLISECONDS]` trades twice for so long: with a leader whose
//! machine waits for each block to be committed, and with one that runs ahead; with replicas that are so many milliseconds apart
//! (10; one way, between any two; 0: none). A price takes P, a round of consensus V, and a block is committed with the third
//! round after its own. So a block takes P + 3V and a little without running ahead, and the longer of P and V with it:
//! there is something to gain as long as a price is not much dearer than three rounds.

use quorate::borsh::{BorshDeserialize, BorshSerialize, to_vec};
use quorate::{At, Consistency, HotStuff, Local, Output, Small, hotstuff};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Prices, in hundredths of a cent: up to 100.00.
const PRICES: u64 = 1_000_000;
const UNIT: u64 = 10_000;
/// What everybody begins with.
const SHARES: u64 = 1_000_000;
const MONEY: u64 = 1_000_000_000_000_000;
/// Orders of a block.
const BLOCK: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
enum Side {
    Buy,
    Sell,
}

/// "I buy (or sell) so many shares at this price or a better one."
#[derive(Clone, Copy, Debug, BorshSerialize, BorshDeserialize)]
struct Order {
    trader: u32,
    side: Side,
    shares: u64,
    limit: u64,
}

impl Order {
    fn takes(&self, price: u64) -> bool {
        match self.side {
            Side::Buy => self.limit >= price,
            Side::Sell => self.limit <= price,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Account {
    shares: u64,
    money: u64,
}

#[derive(Clone, Debug, Default, BorshSerialize, BorshDeserialize)]
struct Exchange {
    accounts: BTreeMap<u32, Account>,
    book: Vec<Order>,
    price: u64,
    settled: u64,
    traded: u64,
}

impl Exchange {
    /// Shares that change hands at a price: what the smaller side offers.
    fn volume(&self, price: u64) -> u64 {
        let total = |side| {
            let orders = self.book.iter().filter(|it| it.side == side && it.takes(price));
            orders.fold(0_u64, |sum, it| sum.saturating_add(it.shares))
        };
        total(Side::Buy).min(total(Side::Sell))
    }

    /// The price at which most shares change hands, the lowest of several: all prices are tried, on all cores.
    fn best_price(&self) -> u64 {
        let cores = thread::available_parallelism().map_or(1, usize::from) as u64;
        let best = |from: u64, to: u64| (from..to).map(|price| (self.volume(price), u64::MAX - price)).max();
        let found = thread::scope(|scope| {
            let parts = (0..cores).map(|core| (1 + PRICES * core / cores, 1 + PRICES * (core + 1) / cores));
            let threads: Vec<_> = parts.map(|(from, to)| scope.spawn(move || best(from, to))).collect();
            threads.into_iter().filter_map(|it| it.join().ok().flatten()).max()
        });
        found.map_or(0, |(_, price)| u64::MAX - price)
    }

    /// Settles the book at a price: the smaller side in full, the larger in the order of arrival, as far as it goes.
    fn settle(&mut self, price: u64) {
        let mut left = [self.volume(price); 2];
        for order in std::mem::take(&mut self.book) {
            let side = usize::from(order.side == Side::Sell);
            let shares = if order.takes(price) { order.shares.min(left[side]) } else { 0 };
            left[side] -= shares;
            let Some(account) = self.accounts.get_mut(&order.trader) else { continue };
            let paid = shares.saturating_mul(price);
            match order.side {
                // What an order may cost was set aside when it came.
                Side::Buy => {
                    account.shares = account.shares.saturating_add(shares);
                    let aside = order.shares.saturating_mul(order.limit);
                    account.money = account.money.saturating_add(aside.saturating_sub(paid));
                }
                Side::Sell => {
                    account.money = account.money.saturating_add(paid);
                    account.shares = account.shares.saturating_add(order.shares - shares);
                }
            }
            self.traded = self.traded.saturating_add(if order.side == Side::Sell { shares } else { 0 });
        }
        (self.price, self.settled) = (price, self.settled + 1);
    }

    /// Takes an order, and sets aside what it may cost.
    fn take(&mut self, order: Order) -> Result<(), &'static str> {
        if order.limit == 0 || order.limit > PRICES || order.shares == 0 || order.shares > SHARES {
            return Err("not an order");
        }
        let account = self.accounts.entry(order.trader).or_insert(Account { shares: SHARES, money: MONEY });
        let (purse, cost) = match order.side {
            Side::Buy => (&mut account.money, order.shares * order.limit),
            Side::Sell => (&mut account.shares, order.shares),
        };
        *purse = purse.checked_sub(cost).ok_or("not enough")?;
        self.book.push(order);
        Ok(())
    }
}

impl Small for Exchange {
    fn apply(&mut self, _at: &At, operation: &[u8], out: &mut Output) {
        match Order::try_from_slice(operation).map_err(|_| "not an order").and_then(|order| self.take(order)) {
            Ok(()) => out.reply(b"in the book"),
            Err(why) => out.reply(why.as_bytes()),
        }
    }

    /// The expensive part: on the leader, on a fork, beside everything else.
    fn propose(&self, _at: &At, _operations: &[quorate::Bytes]) -> Option<Vec<u8>> {
        to_vec(&self.best_price()).ok()
    }

    /// The cheap part, on every replica. A leader that names another price costs trades, and nobody money.
    fn proposed(&mut self, _at: &At, made: &[u8], _out: &mut Output) {
        if let Some(price) = u64::try_from_slice(made).ok().filter(|price| (1..=PRICES).contains(price)) {
            self.settle(price);
        }
    }

    fn query(&self, _query: &[u8], reply: &mut Vec<u8>) {
        let traders = self.accounts.len() as u64;
        let aside = |side| self.book.iter().filter(move |it| it.side == side);
        let shares: u64 = self.accounts.values().map(|it| it.shares).sum::<u64>()
            + aside(Side::Sell).map(|it| it.shares).sum::<u64>();
        let conserved = shares == traders * SHARES;
        let line = format!(
            "{} blocks settled, {} shares traded, last price {}.{:02}, {}",
            self.settled,
            self.traded,
            self.price / UNIT,
            self.price % UNIT / (UNIT / 100),
            if conserved { "no share lost or made" } else { "SHARES LOST OR MADE" },
        );
        reply.extend_from_slice(line.as_bytes());
    }
}

/// Orders around 50.00, different for every number.
fn order(trader: u32, number: u64) -> Order {
    let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let side = if mixed & 1 == 0 { Side::Buy } else { Side::Sell };
    Order { trader, side, shares: 1 + mixed / 2 % 90, limit: 47 * UNIT + mixed / 256 % (6 * UNIT) }
}

/// Trades for some seconds; returns orders answered in a second.
fn trade(name: &str, run_ahead: usize, seconds: u64, apart: Duration) -> Result<f64, Box<dyn std::error::Error>> {
    const TRADERS: u32 = 256;
    let config = hotstuff::Config { run_ahead, block_requests: BLOCK, ..hotstuff::Config::default() };
    let cluster = match apart.is_zero() {
        true => Local::start::<HotStuff, _>(4, config, Exchange::default)?,
        false => Local::start_apart::<HotStuff, _>(4, config, Exchange::default, apart)?,
    };
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let clients: Vec<_> = (0..TRADERS).map(|_| cluster.client::<HotStuff>()).collect::<Result<_, _>>()?;
    let begun = Instant::now();
    thread::scope(|scope| {
        for (trader, client) in (0..).zip(&clients) {
            let (stop, done) = (&stop, &done);
            scope.spawn(move || {
                for number in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let bytes =
                        to_vec(&order(trader, number * u64::from(TRADERS) + u64::from(trader))).unwrap_or_default();
                    if client.apply(bytes).is_ok() {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        thread::sleep(Duration::from_secs(seconds));
        stop.store(true, Ordering::Relaxed);
    });
    let rate = done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    let answer = clients[0].read(Consistency::Linearizable, "")?;
    println!("{name:>22}: {rate:7.0} orders a second; {}", String::from_utf8_lossy(&answer.reply));
    Ok(rate)
}

/// How long a price takes when nothing else is done.
fn price_takes() -> Duration {
    let mut exchange = Exchange::default();
    for number in 0..BLOCK as u64 {
        let _in_the_book = exchange.take(order(0, number));
    }
    let begun = Instant::now();
    let price = exchange.best_price();
    assert!((1..=PRICES).contains(&price), "a price is one of the prices");
    begun.elapsed()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|it| it.parse().ok()).collect();
    let seconds = numbers.first().copied().unwrap_or(5);
    let apart = Duration::from_millis(numbers.get(1).copied().unwrap_or(10));
    println!("a price takes {:.1?} on an idle machine; replicas are {apart:?} apart", price_takes());
    let waiting = trade("one block at a time", 1, seconds, apart)?;
    let ahead = trade("three blocks ahead", 3, seconds, apart)?;
    println!("{:.1} times as many with a leader that runs ahead", ahead / waiting.max(1.0));
    Ok(())
}
