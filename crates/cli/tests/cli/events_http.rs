//! The commands of `docs/events-http.md`.

use crate::common::pages;
use std::net::TcpListener;

/// A refusal is an error, unless it is expected.
const CURL: &str = "curl() { command curl -fsS \"$@\"; }\n";

/// Where the page says that the store is.
const USUAL: &str = "127.0.0.1:2381";

#[test]
fn every_command_of_the_page_works() {
    // Others may use the usual port.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port();
    let address = format!("127.0.0.1:{port}");
    let dev = format!("quorate dev --events --http {address}");
    let script = pages::script_of("events-http.md").replace(USUAL, &address).replace("quorate dev --events", &dev);
    pages::run(&format!("{CURL}{script}"));
}
