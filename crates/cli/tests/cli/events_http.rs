//! The commands of `docs/events-http.md`, run as they stand there.

use crate::common::PATIENCE;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What runs in the background ends with the script, however that ends. A refusal is an error, unless it is expected.
const FRAME: &str =
    "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\ncurl() { command curl -fsS \"$@\"; }\n";

/// Where the page says that the store is.
const USUAL: &str = "127.0.0.1:2381";

#[test]
fn every_command_of_the_page_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/events-http.md")).expect("the page");
    let boxes = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let script = boxes.collect::<Vec<_>>().concat();
    assert!(script.lines().count() > 25, "{script}");
    // Others may use the usual port.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port();
    let address = format!("127.0.0.1:{port}");
    let dev = format!("quorate dev --events --http {address}");
    let script = script.replace(USUAL, &address).replace("quorate dev --events", &dev);
    let folder = tempfile::Builder::new().prefix("quorate-test-").tempdir().expect("a folder");
    let program: PathBuf = env!("CARGO_BIN_EXE_quorate").into();
    let programs = program.parent().expect("a folder").display().to_string();
    let said = std::fs::File::create(folder.path().join("said")).expect("a file");
    let mut child = Command::new("bash")
        .args(["-x", "-c", &format!("{FRAME}{script}")])
        .current_dir(folder.path())
        .env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap_or_default()))
        .env("XDG_RUNTIME_DIR", folder.path())
        .stdin(Stdio::null())
        .stdout(said.try_clone().expect("a file"))
        .stderr(said)
        .process_group(0)
        .spawn()
        .expect("bash starts");
    let until = Instant::now() + 4 * PATIENCE;
    let ended = loop {
        match child.try_wait().expect("a child") {
            Some(status) => break Some(status),
            None if Instant::now() > until => break None,
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    if ended.is_none() {
        crate::common::signal(child.id(), rustix::process::Signal::TERM);
        let _reaped = child.wait();
    }
    let said = std::fs::read_to_string(folder.path().join("said")).expect("text");
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}\n{said}");
    assert!(!said.contains("panicked"), "{said}");
}
