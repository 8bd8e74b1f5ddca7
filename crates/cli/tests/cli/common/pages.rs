//! Pages of the documentation whose commands are run as they stand there: what a page says must work.

use super::{PATIENCE, signal};
use rustix::process::Signal;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What runs in the background ends with the script, however that ends.
const FRAME: &str = "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n";

/// The boxes of a page in `docs/` that begin with `sh`, in order.
pub fn script_of(page: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    let text = std::fs::read_to_string(&file).expect("the page");
    let boxes = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let script = boxes.collect::<Vec<_>>().concat();
    assert!(script.lines().count() > 25, "{page}: {script}");
    script
}

/// Runs a script in an empty folder, with our programs in its path.
///
/// # Panics
/// If a command fails, if one panics, or if it takes too long.
pub fn run(script: &str) {
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
        signal(child.id(), Signal::TERM);
        let _reaped = child.wait();
    }
    let said = std::fs::read_to_string(folder.path().join("said")).expect("text");
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}\n{said}");
    assert!(!said.contains("panicked"), "{said}");
}
