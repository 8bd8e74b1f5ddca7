//! The pictures in a real Chromium: the page renders, its script runs, and pointing at a message shows what it says.
//!
//! A browser is asked to print the page's document, or a screenshot, once a script at the end of the page has looked for the
//! message where it is on the screen and pointed at it. That needs no driver, no port and no protocol: one process that ends
//! by itself.

use quorate_sim::diagram::page;
use quorate_sim::scenarios::find;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A browser that has not ended by now never will.
const PATIENCE: Duration = Duration::from_secs(120);

/// Notes errors of the page's own script, before it runs.
const WATCH: &str = "<script>window.onerror = (text) => { document.documentElement.dataset.error = text; };</script>";

/// Looks for an arrow that says `WORDS`, where it is the topmost thing on the screen, and points there.
const POINT: &str = r#"<script>
for (const arrow of document.querySelectorAll(".m.arrived")) {
  if (!arrow.dataset.tip.includes("WORDS") || document.body.dataset.pointed) continue;
  arrow.scrollIntoView({ block: "center" });
  const box = document.getElementById("picture").getBoundingClientRect();
  const [x1, x2] = arrow.dataset.x.split(" ").map(Number), [y1, y2] = arrow.dataset.y.split(" ").map(Number);
  for (const share of [0.5, 0.3, 0.7, 0.2, 0.8]) {
    const at = { clientX: box.left + x1 + (x2 - x1) * share, clientY: box.top + y1 + (y2 - y1) * share, bubbles: true };
    const top = document.elementFromPoint(at.clientX, at.clientY);
    if (top?.closest(".m") !== arrow) continue;
    top.dispatchEvent(new PointerEvent("pointermove", at));
    document.body.dataset.pointed = "yes";
    break;
  }
}
document.body.dataset.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
</script>"#;

/// The page of a scenario, which points at the message that says `words` as soon as it is there.
fn pointing(scenario: &str, words: &str) -> String {
    let named = find(scenario).expect(scenario);
    let played = (named.play)();
    let page = page(&played.recording, &named.picture(&played));
    let page = page.replacen("<head>", &format!("<head>{WATCH}"), 1);
    page.replace("</body>", &format!("{}</body>", POINT.replace("WORDS", words)))
}

fn browser() -> &'static str {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let runs = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
    names.into_iter().find(runs).unwrap_or_else(|| {
        panic!("the pictures are tested in a real browser and there is none: install one (`apt-get install chromium`)")
    })
}

/// Lets the browser open a page, and returns what it printed.
fn open(page: &str, width: u32, folder: &Path, action: &str) -> String {
    let file = folder.join("page.html");
    std::fs::write(&file, page).expect("a page is written");
    let printed = folder.join("printed");
    let output = std::fs::File::create(&printed).expect("a file for what it prints");
    let browser = Command::new(browser())
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("--window-size={width},1100"))
        .arg(action)
        .arg(format!("file://{}", file.display()))
        .stdout(output)
        .stderr(Stdio::null())
        .spawn()
        .expect("the browser starts");
    let ended = wait(browser);
    assert!(ended, "the browser has neither opened the page nor given up within {PATIENCE:?}");
    std::fs::read_to_string(printed).expect("what it printed")
}

/// False if it had to be killed.
fn wait(mut browser: Child) -> bool {
    let pause = Duration::from_millis(50);
    for _ in 0..PATIENCE.as_millis() / pause.as_millis() {
        if browser.try_wait().expect("the browser is our child").is_some() {
            return true;
        }
        std::thread::sleep(pause);
    }
    browser.kill().expect("a child that has not ended can be killed");
    browser.wait().expect("it is our child");
    false
}

/// What stands in the element with this id, without tags.
fn text_of(document: &str, id: &str) -> String {
    let (_, rest) = document.split_once(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no {id}: {document}"));
    let (_, rest) = rest.split_once('>').expect("an element's end");
    let inside = rest.split_once("</div>").map_or(rest, |(inside, _)| inside);
    let mut text = String::new();
    let mut in_tag = false;
    for c in inside.chars() {
        match c {
            '<' => in_tag = true,
            '>' => in_tag = false,
            c if !in_tag => text.push(c),
            _ => {}
        }
    }
    text
}

#[test]
fn pointing_at_a_message_shows_what_it_says() {
    for (scenario, words, shown) in [
        ("naive-divergence", "Request   div 2", "session 1, request"),
        ("vr-leader-crash", "R1 → R2   StartView", "view 1 has started"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let document = open(&pointing(scenario, words), 1400, folder.path(), "--dump-dom");
        assert!(!document.contains("data-error"), "{scenario}: the page's script fails: {document}");
        assert!(document.contains("data-pointed=\"yes\""), "{scenario}: the message is not where it should be");
        let tip = text_of(&document, "tip");
        assert!(tip.contains(words) && tip.contains(shown), "{scenario}: {tip}");
        assert!(!document.contains("id=\"tip\" hidden"), "{scenario}: the tip is hidden");
    }
}

#[test]
fn a_narrow_screen_scrolls_the_picture_and_not_the_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let document = open(&pointing("vr-leader-crash", "PrepareOk"), 520, folder.path(), "--dump-dom");
    assert!(document.contains("data-overflow=\"0\""), "the page is wider than the screen");
}

#[test]
fn a_screenshot_shows_lines_arrows_the_violation_and_the_tip() {
    let folder = tempfile::tempdir().expect("a folder");
    let shot = folder.path().join("shot.png");
    let page = pointing("naive-divergence", "Request   div 2");
    open(&page, 1400, folder.path(), &format!("--screenshot={}", shot.display()));
    let decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&shot).expect("a screenshot")));
    let mut reader = decoder.read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let frame = reader.next_frame(&mut pixels).expect("pixels");
    let bytes = frame.color_type.samples();
    assert!(frame.width == 1400 && bytes >= 3, "{frame:?}");
    let like = |colour: [u8; 3]| {
        let near = |pixel: &[u8]| pixel.iter().zip(colour).all(|(it, wanted)| it.abs_diff(wanted) < 8);
        pixels.chunks_exact(bytes).filter(|pixel| near(pixel)).count()
    };
    for (what, colour, least) in [
        ("a red violation", [0xd0, 0x2b, 0x2b], 500),
        ("blue requests", [0x2f, 0x6f, 0xde], 500),
        ("green replies", [0x0c, 0x85, 0x77], 300),
        ("the tip", [0x1b, 0x20, 0x28], 12_000),
        ("paper", [0xff, 0xff, 0xff], 500_000),
    ] {
        assert!(like(colour) >= least, "{what}: {} pixels, at least {least} wanted", like(colour));
    }
}
