//! The dashboard of `quorate dev` in a real Chromium, and what it refuses to strangers.

use crate::browser::Browser;
use crate::common::{Cluster, eventually};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

/// `quorate dev` with its dashboard at a free port; and where that is, `http://host:port`.
fn dev(flags: &[&str]) -> (Cluster, String) {
    let mut cluster = Cluster::made();
    let mut all = vec!["--etcd", "off", "--dashboard", "127.0.0.1:0"];
    all.extend(flags);
    let said = cluster.start_dev_with(&all);
    let url = said.iter().find_map(|line| line.trim().strip_prefix("look at it, and break it, at "));
    (cluster, url.expect("it says where").to_owned())
}

/// A request as it is, and the answer as it is.
fn raw(url: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(url: &str, path: &str) -> String {
    let host = url.trim_start_matches("http://");
    raw(url, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
}

fn post(url: &str, headers: &str, form: &str) -> String {
    let (host, length) = (url.trim_start_matches("http://"), form.len());
    raw(
        url,
        &format!(
            "POST /act HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             {headers}Content-Length: {length}\r\n\r\n{form}"
        ),
    )
}

fn status_of(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

/// A form's token, as the page has it.
fn token(url: &str) -> String {
    let page = get(url, "/");
    let (_, rest) = page.split_once("name=\"token\" value=\"").expect("a form");
    rest.split('"').next().expect("a token").to_owned()
}

#[test]
fn the_page_shows_the_replicas_and_its_numbers_move() {
    let (mut cluster, url) = dev(&[]);
    let mut browser = Browser::start(1280, 900);
    browser.open(&url);
    assert!(browser.text(".verdict h1").starts_with("Healthy: all 3 replicas answer"));
    assert_eq!(browser.value("document.querySelectorAll('.replicas tbody tr').length"), 3);
    assert_eq!(browser.value("document.querySelectorAll('.badge.leads').length"), 1);
    let before = browser.text("#replica-0 td[data-label=Committed]");
    for number in 0..5 {
        cluster.must(&["kv", "put", &format!("key-{number}"), "value"]);
    }
    browser.until("the stream brings newer numbers", |page| page.contains("· 5 keys ·"));
    assert_ne!(browser.text("#replica-0 td[data-label=Committed]"), before);
    browser.until("messages are drawn", |page| page.contains("class=\"head\""));
    assert!(browser.text(".legend").contains("Commit"), "{}", browser.text(".legend"));
    assert_eq!(browser.text("#live"), "live");
    assert_eq!(browser.troubles(), Vec::<String>::new(), "neither its script nor its policy complains");
    assert!(cluster.stop_dev());
}

#[test]
fn a_replica_is_stopped_and_started_by_clicking_and_the_cluster_goes_on() {
    let (mut cluster, url) = dev(&[]);
    let mut browser = Browser::start(1280, 900);
    browser.open(&url);
    browser.click("button[data-key=stop-0]");
    browser.until("R0 is stopped", |page| page.contains("<span class=\"badge down\">stopped</span>"));
    browser.until("it says so", |page| page.contains("R0 was stopped"));
    assert!(cluster.pid(0).is_none());
    cluster.must(&["kv", "put", "without", "R0"]);
    browser.until("another leads", |page| page.contains("badge leads") && page.contains("Degraded"));
    browser.click("button[data-key=start-0]");
    browser.until("all is well again", |page| page.contains("verdict good"));
    assert!(cluster.pid(0).is_some());
    browser.click("button[data-key=kill-1]");
    browser.until("R1 is gone", |page| page.contains("R1 was killed"));
    eventually("its process is gone", || cluster.pid(1).is_none());
    assert_eq!(cluster.must(&["kv", "get", "without"]), "R0\n");
    assert!(cluster.stop_dev());
}

#[test]
fn a_replica_that_stands_still_or_is_cut_off_is_seen_and_comes_back() {
    let (mut cluster, url) = dev(&[]);
    let mut browser = Browser::start(1280, 900);
    browser.open(&url);
    browser.click("button[data-key=pause-2]");
    browser.until("R2 stands still", |page| page.contains("<span class=\"badge down\">paused</span>"));
    browser.click("button[data-key=resume-2]");
    browser.until("R2 goes on", |page| page.contains("verdict good"));
    browser.click("button[data-key=isolate-0]");
    browser.until("R0 is cut off", |page| page.contains("cut off from R1, R2"));
    let view = |text: &str| text.trim().parse::<u64>().unwrap_or(0);
    browser.until("the others lead themselves", |page| page.contains("class=\"m") && page.contains("leads"));
    eventually("a newer view", || view(&browser.text("#replica-1 td[data-label=View]")) > 0);
    cluster.must(&["kv", "put", "across", "the cut"]);
    browser.until("messages are lost", |page| page.contains("class=\"cross\""));
    browser.click("button[data-key=heal-0]");
    browser.until("R0 follows", |page| page.contains("verdict good"));
    cluster.wait_until_agreed();
    assert!(cluster.stop_dev(), "also after one has stood still");
}

#[test]
fn a_replica_that_lies_is_found_out_and_the_others_bear_it() {
    let (mut cluster, url) = dev(&["--protocol", "pbft"]);
    let mut browser = Browser::start(1280, 900);
    browser.open(&url);
    let lie = |browser: &mut Browser, replica: u8, name: &str| {
        browser.value(&format!("document.getElementById('d-lies-{replica}').open = true"));
        browser.value(&format!("document.querySelector('#d-lies-{replica} select').value = '{name}'"));
        browser.click(&format!("button[data-key=lie-{replica}]"));
        browser.until("it lies", |page| page.contains(&format!("lies: {name}")));
    };
    lie(&mut browser, 0, "equivocate");
    assert!(!browser.document().contains("Let it lie"), "one liar at a time");
    for number in 0..20 {
        cluster.must(&["kv", "put", &format!("key-{number}"), "value"]);
    }
    browser.until("a proof against R0 is shown", |page| {
        page.contains("<b>proof</b> held by R") && page.contains("R0 signed two different")
    });
    let status = cluster.must(&["status"]);
    assert!(status.contains("proven: R0 signed two different"), "{status}");
    browser.click("button[data-key=honest-0]");
    browser.until("it keeps its word again", |page| page.contains("keeps its word") && !page.contains("badge lies"));
    browser.until("all is well", |page| page.contains("verdict good"));
    lie(&mut browser, 1, "corrupt");
    cluster.must(&["kv", "put", "garbage", "is ignored"]);
    browser.until("who sends garbage is noticed", |page| page.contains("lies, the last:"));
    lie_is_told_loudly(&cluster, 1);
    assert_eq!(cluster.must(&["kv", "get", "key-7"]), "value\n");
    assert_eq!(browser.troubles(), Vec::<String>::new());
    assert!(cluster.stop_dev());
}

fn lie_is_told_loudly(cluster: &Cluster, replica: usize) {
    let log = std::fs::read_to_string(cluster.replica(replica).join("log")).expect("its log");
    assert!(log.contains(&format!("THIS REPLICA LIES, AS TOLD: R{replica}")), "{log}");
}

#[test]
fn where_replicas_believe_each_other_none_can_be_told_to_lie() {
    let (mut cluster, url) = dev(&[]);
    let page = get(&url, "/");
    assert!(page.contains("Under vr replicas believe each other") && !page.contains("Let it lie"), "{page}");
    let form = format!("token={}&replica=1&act=lie&lie=silent", token(&url));
    let answer = post(&url, "Accept: text/plain\r\n", &form);
    assert!(answer.contains("Under vr replicas believe each other"), "{answer}");
    assert!(cluster.pid(1).is_some(), "and nothing has happened to it");
    assert!(cluster.stop_dev());
}

#[test]
fn a_replica_lies_only_in_a_cluster_that_dev_has_made_and_only_as_long_as_dev_holds_it() {
    let cluster = Cluster::init_of("pbft", 4);
    let config = cluster.replica(0).join("replica.toml").display().to_string();
    let lie = ["serve", "--config", &config, "--lie", "silent"];
    let alone = cluster.run(&lie);
    assert!(!alone.ok && alone.stderr.contains("--until-stdin-closes"), "{}", alone.stderr);
    let held = [&lie[..], &["--until-stdin-closes"]].concat();
    let kept = cluster.run(&held);
    assert!(!kept.ok && kept.stderr.contains("`quorate dev` has not made"), "{}", kept.stderr);
    let marker = cluster.replica(0).join("../MADE-BY-DEV");
    std::fs::write(&marker, "cluster 00000000000000000000000000000001\n").expect("a file");
    assert!(!cluster.run(&held).ok, "the file names another cluster");
    assert!(!cluster.replica(0).join("data/superblock").exists(), "nothing was begun");
    let file = cluster.replica(0).join("replica.toml");
    let text = std::fs::read_to_string(&file).expect("a file");
    let number =
        text.lines().find_map(|line| line.strip_prefix("cluster = ")).expect("its number").trim_matches('"').to_owned();
    std::fs::write(&marker, play(&number)).expect("a file");
    std::fs::write(&file, text.replacen("127.0.0.1", "10.0.0.1", 1)).expect("a file");
    let far = cluster.run(&held);
    assert!(!far.ok && far.stderr.contains("loopback"), "{}", far.stderr);
    let help = cluster.run(&["serve", "--help"]);
    let help = String::from_utf8_lossy(&help.stdout);
    assert!(help.contains("--gateway") && !help.contains("--lie"), "nobody is offered it: {help}");
}

/// What `dev` writes into the folder of a cluster that it has made.
fn play(number: &str) -> String {
    format!(
        "cluster {number}\n`quorate dev` has made this cluster, to play with. Its replicas can be told to lie, by a button of its \
         dashboard. Remove this file, and they cannot.\n"
    )
}

#[test]
fn without_scripts_the_tables_are_there_and_forms_do_what_buttons_do() {
    let (mut cluster, url) = dev(&[]);
    cluster.must(&["kv", "put", "greeting", "<b>hello</b>"]);
    let mut browser = Browser::start(1280, 900);
    browser.without_scripts();
    browser.open(&url);
    let page = browser.document();
    assert!(
        page.contains("<b>R0</b>") && page.contains("badge leads") && page.contains("http-equiv=\"refresh\""),
        "{page}"
    );
    browser.click("button[data-key=stop-2]");
    browser.until("the next page says so", |page| page.contains("R2 was stopped") && page.contains("badge down"));
    browser.open(&format!("{url}/keys"));
    let page = browser.document();
    assert!(page.contains("&lt;b&gt;hello&lt;/b&gt;") && page.contains("href=\"/key?key=greeting\""), "{page}");
    browser.click("th a");
    browser.until("the key's page", |page| page.contains("What happened to it") && page.contains("created"));
    browser.open(&format!("{url}/events"));
    assert!(browser.document().contains("greeting"));
    assert!(cluster.stop_dev());
}

#[test]
fn events_come_in_while_the_page_is_open_and_keys_have_pages() {
    let (mut cluster, url) = dev(&[]);
    let lines: String = (0..120).map(|number| format!("item/{number:03}\tvalue {number}\n")).collect();
    let file = cluster.scratch().join("items.tsv");
    std::fs::write(&file, lines).expect("a file");
    cluster.must(&["kv", "import", file.to_str().expect("a path")]);
    let mut browser = Browser::start(1280, 900);
    browser.open(&format!("{url}/events?prefix=item/"));
    browser.value("document.title = 'the same page'");
    cluster.must(&["kv", "put", "item/new", "just now"]);
    cluster.must(&["kv", "put", "other", "not of interest"]);
    browser.until("the put comes in", |page| page.contains("just now"));
    assert_eq!(browser.text("#rows tr:first-child th"), "item/new");
    assert_eq!(browser.value("document.title"), "the same page", "and nothing was loaded anew");
    browser.open(&format!("{url}/keys?prefix=item/"));
    browser.click("a[rel=next]");
    browser.until("the next page", |page| page.contains("From the beginning") && page.contains("item/050"));
    let rows = "document.querySelectorAll('tbody tr').length";
    assert_eq!(browser.value(rows), 50);
    let next = browser.value("document.querySelector('a[rel=next]').getAttribute('href')");
    browser.open(&format!("{url}{}", next.as_str().expect("an address")));
    assert_eq!(browser.value(rows), 21, "121 keys on three pages");
    assert_eq!(browser.text("tbody tr:last-child th"), "item/new");
    assert!(!browser.document().contains("rel=\"next\""));
    assert_eq!(browser.troubles(), Vec::<String>::new());
    assert!(cluster.stop_dev());
}

#[test]
fn a_phone_shows_it_without_scrolling_sideways_and_a_keyboard_is_enough() {
    let (mut cluster, url) = dev(&[]);
    let mut browser = Browser::start(390, 844);
    for path in ["/", "/keys", "/events"] {
        browser.open(&format!("{url}{path}"));
        let overflow = browser.value("document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(overflow, 0, "{path}");
    }
    browser.open(&url);
    let unnamed = "[...document.querySelectorAll('button, a, input:not([type=hidden])')].filter((it) => \
                   !it.textContent.trim() && !it.labels?.length).map((it) => it.outerHTML)";
    assert_eq!(browser.value(unnamed), serde_json::json!([]), "whatever can be pressed has a name");
    browser.value("document.querySelector('[data-key=stop-1]').focus()");
    browser.key("Enter", 13);
    browser.until("R1 is stopped", |page| page.contains("R1 was stopped"));
    browser.until("its button is another", |page| page.contains("data-key=\"start-1\""));
    let focused = browser.value("document.activeElement.closest('fieldset, body').tagName");
    assert_eq!(focused, "FIELDSET", "the keyboard stays among the buttons");
    assert!(cluster.stop_dev());
}

#[test]
fn strangers_neither_read_the_page_nor_press_its_buttons() {
    let (mut cluster, url) = dev(&[]);
    let host = url.trim_start_matches("http://").to_owned();
    let (_, port) = host.rsplit_once(':').expect("a port");
    let bent = raw(&url, &format!("GET / HTTP/1.1\r\nHost: evil.example:{port}\r\nConnection: close\r\n\r\n"));
    assert_eq!(status_of(&bent), "421", "{bent}");
    assert!(!bent.contains("token"));
    let token = token(&url);
    let good = format!("token={token}&replica=1&act=stop");
    for (headers, form, why) in [
        ("Origin: http://evil.example\r\n", good.as_str(), "another origin"),
        ("Origin: null\r\n", &good, "a hidden origin"),
        ("Sec-Fetch-Site: cross-site\r\n", &good, "another site"),
        ("", "replica=1&act=stop", "no token"),
        ("", "token=00000000000000000000000000000000&replica=1&act=stop", "a wrong token"),
    ] {
        assert_eq!(status_of(&post(&url, headers, form)), "403", "{why}");
    }
    let plain = raw(
        &url,
        &format!(
            "POST /act HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{good}",
            good.len()
        ),
    );
    assert_eq!(status_of(&plain), "415");
    assert_eq!(status_of(&post(&url, "", &format!("{good}&x={}", "x".repeat(5000)))), "400");
    assert_eq!(status_of(&get(&url, &format!("/act?{good}"))), "404", "a link does nothing");
    assert!(cluster.pid(1).is_some(), "nothing was obeyed");
    assert_eq!(status_of(&post(&url, &format!("Origin: {url}\r\n"), &good)), "303");
    assert!(cluster.pid(1).is_none());
    let page = get(&url, "/");
    assert!(page.contains("content-security-policy: default-src 'none'; script-src 'self'"), "{page}");
    assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains(" onclick="), "nothing is inline");
    assert!(cluster.stop_dev());
}

#[test]
fn a_dashboard_alone_has_no_buttons_and_asks_nothing_while_nobody_looks() {
    let (mut cluster, _) = dev(&[]);
    let mut alone = cluster.command(&["dashboard", "--listen", "127.0.0.1:0"]);
    let mut alone = alone.stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(alone.stdout.as_mut().expect("a pipe")), &mut line)
        .expect("text");
    let url = line.split([' ', ',']).find(|word| word.starts_with("http://")).expect("a URL").to_owned();
    let page = get(&url, "/");
    assert!(page.contains("<b>R0</b>") && !page.contains("<form"), "{page}");
    assert_eq!(status_of(&post(&url, "", "replica=1&act=stop")), "404");
    drop((alone.kill(), alone.wait()));
    assert!(cluster.stop_dev());
}

/// Takes the pictures in `docs/`: into the folder that `QUORATE_PICTURES` names, otherwise only to see that they can be taken.
#[test]
fn pictures_of_the_pages_can_be_taken() {
    let (mut cluster, url) = dev(&[]);
    let mut browser = Browser::start(1240, 1500);
    browser.open(&url);
    for number in 0..40 {
        cluster.must(&[
            "kv",
            "put",
            &format!("user/{number:03}"),
            &format!("{{\"name\":\"somebody\",\"visits\":{number}}}"),
        ]);
    }
    browser.until("its numbers have moved", |page| page.contains("· 40 keys ·"));
    let mut pictures = Vec::new();
    browser.click("button[data-key=kill-0]");
    browser.until("another leads", |page| page.contains("R0 was killed") && page.contains("badge leads"));
    (0..3).for_each(|number| drop(cluster.must(&["kv", "put", &format!("user/{number:03}"), "changed"])));
    browser.until("what it did is told", |page| page.contains("has started") && page.contains("Degraded: 2 of 3"));
    pictures.push(("cluster", browser.picture()));
    browser.colours("dark");
    browser.size(390, 1800);
    pictures.push(("phone", browser.picture()));
    browser.size(1240, 900);
    browser.open(&format!("{url}/keys?prefix=user/"));
    pictures.push(("keys", browser.picture()));
    for (name, picture) in pictures {
        assert!(picture.len() > 10_000 && picture.starts_with(b"RIFF"), "{name}: {} bytes", picture.len());
        if let Some(folder) = std::env::var_os("QUORATE_PICTURES") {
            std::fs::write(Path::new(&folder).join(format!("{name}.webp")), picture).expect("a picture is written");
        }
    }
    assert!(cluster.stop_dev());
}
