// Puts newer drawings of the server in the place of older ones. Without this script the page loads itself again now and then.
"use strict";

const live = document.getElementById("live");
const freeze = document.getElementById("freeze");
const ROWS_MAX = 500;
let held = false;

const say = (text, state) => {
  if (live.textContent !== text) live.textContent = text;
  live.dataset.state = state;
};

// A part is replaced as a whole; what is open in it stays open, and the keyboard stays where it was.
const replace = (part, html) => {
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const key = focused?.dataset.key;
  const open = [...part.querySelectorAll("details[open]")].map((it) => it.id);
  const scrolled = part.querySelector(".strip, .wide")?.scrollLeft ?? 0;
  part.innerHTML = html;
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  const wide = part.querySelector(".strip, .wide");
  if (wide) wide.scrollLeft = scrolled;
  if (key) (part.querySelector(`[data-key="${CSS.escape(key)}"]`) ?? part.querySelector("button"))?.focus();
};

const listen = (address, on) => {
  const source = new EventSource(address);
  source.onopen = () => say("live", "good");
  source.onerror = () => say("no connection to the dashboard", "bad");
  on(source);
};

if (document.getElementById("part-replicas")) {
  listen("/live", (source) => {
    source.addEventListener("parts", (event) => {
      for (const [name, html] of Object.entries(JSON.parse(event.data))) {
        const part = document.getElementById(`part-${name}`);
        if (part && !(held && name === "strip")) replace(part, html);
      }
    });
  });
}

if (freeze) {
  freeze.hidden = false;
  freeze.addEventListener("click", () => {
    held = !held;
    freeze.setAttribute("aria-pressed", String(held));
    freeze.textContent = held ? "Let it go on" : "Hold the picture";
  });
}

// A button does what its form would, without leaving the page.
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.getAttribute("action") !== "/act") return;
  event.preventDefault();
  const said = document.getElementById("said");
  const button = event.submitter;
  said.textContent = "…";
  button.setAttribute("aria-busy", "true");
  try {
    const body = new URLSearchParams(new FormData(form, button));
    const answer = await fetch("/act", { method: "POST", body, headers: { Accept: "text/plain" } });
    said.textContent = (await answer.text()).trim();
    said.dataset.state = answer.ok ? "good" : "bad";
  } catch {
    said.textContent = "The dashboard does not answer.";
    said.dataset.state = "bad";
  }
  button.removeAttribute("aria-busy");
});

const events = document.getElementById("events");
if (events?.dataset.next) {
  const rows = document.getElementById("rows");
  listen(`/live/events?from=${events.dataset.next}&prefix=${events.dataset.prefix}`, (source) => {
    source.addEventListener("rows", (event) => {
      rows.insertAdjacentHTML("afterbegin", JSON.parse(event.data).reverse().join(""));
      while (rows.rows.length > ROWS_MAX) rows.deleteRow(-1);
    });
  });
}
