// Makes the picture live. Without it everything is still there: arrows have titles, kinds are hidden by the style sheet,
// the table shows how the picture ends.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const picture = $("picture"), all = $("all"), scroll = document.querySelector(".scroll");
  const { points, states } = JSON.parse($("data").textContent);
  const width = Number(picture.getAttribute("width"));
  const numbers = (text) => text.split(" ").map(Number);
  document.body.classList.add("live");

  // Titles become tips: the browser's own come late and cannot be styled.
  const tip = document.body.appendChild(document.createElement("div"));
  tip.id = "tip";
  tip.hidden = true;
  for (const title of [...all.querySelectorAll("title")]) {
    title.parentNode.dataset.tip = title.textContent;
    title.remove();
  }

  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "path");
  cursor.id = "cursor";
  picture.append(cursor);

  // Zoom stretches time only: letters, heights and marks keep their size.
  let zoom = 1;
  const placed = [...all.querySelectorAll("[data-x]")].map((element) => ({
    element, x: numbers(element.dataset.x), y: numbers(element.dataset.y || "0"),
  }));
  const matrix = (x1, y1, x2, y2, x, y) => {
    const length = Math.hypot(x2 - x1, y2 - y1) || 1, cos = (x2 - x1) / length, sin = (y2 - y1) / length;
    return `matrix(${cos} ${sin} ${-sin} ${cos} ${x} ${y})`;
  };
  const layout = () => {
    for (const { element, x, y } of placed) {
      const [x1, x2] = [x[0] * zoom, (x[1] ?? 0) * zoom];
      if (element.tagName === "rect") {
        element.setAttribute("x", x1);
        element.setAttribute("width", Math.max(x2 - x1, 0.5));
      } else if (element.dataset.t) {
        const t = Number(element.dataset.t);
        element.setAttribute("transform", matrix(x1, y[0], x2, y[1], x1 + (x2 - x1) * t, y[0] + (y[1] - y[0]) * t));
      } else if (element.tagName === "path") {
        element.setAttribute("d", `M${x1} ${y[0]}L${x2} ${y[1]}`);
      } else if (x.length === 1) {
        element.setAttribute("transform", `translate(${x1} ${y[0]})`);
      } else {
        for (const path of element.querySelectorAll(".wide, .shaft")) path.setAttribute("d", `M${x1} ${y[0]}L${x2} ${y[1]}`);
        element.querySelector(".head").setAttribute("transform", matrix(x1, y[0], x2, y[1], x2, y[1]));
      }
    }
    picture.setAttribute("width", width * zoom);
    all.classList.toggle("zoomed", zoom >= 1.7);
  };
  const zoomTo = (to, at = scroll.clientWidth / 2) => {
    const place = (scroll.scrollLeft + at) / zoom;
    zoom = Math.min(12, Math.max(Math.min(1, scroll.clientWidth / width), to));
    layout();
    scroll.scrollLeft = place * zoom - at;
  };
  $("in").onclick = () => zoomTo(zoom * 1.4);
  $("out").onclick = () => zoomTo(zoom / 1.4);
  $("fit").onclick = () => zoomTo(scroll.clientWidth / width);
  scroll.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoomTo(zoom * Math.exp(-event.deltaY / 300), event.clientX - scroll.getBoundingClientRect().left);
  }, { passive: false });

  // Time and place.
  const between = (from, to, value) => {
    let low = 0, high = points.length - 1;
    if (high < 0) return 0;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (points[middle][from] <= value) low = middle; else high = middle;
    }
    const [a, b] = [points[low], points[high]];
    const share = b[from] === a[from] ? 0 : (value - a[from]) / (b[from] - a[from]);
    return a[to] + (b[to] - a[to]) * Math.min(1, Math.max(0, share));
  };
  const cell = (name, text, kind = "") => Object.assign(document.createElement(name), { textContent: text, className: kind });
  const row = ([, replica, role, view, ...numbers]) => {
    const tr = document.createElement("tr");
    tr.className = role === undefined ? "down" : "";
    tr.append(cell("th", "R" + replica), cell("td", role ?? "down"), cell("td", view ?? "", `view v${view % 6}`));
    tr.append(...[0, 1, 2, 3].map((index) => cell("td", numbers[index] ?? "")));
    return tr;
  };
  const show = (x) => {
    const micros = between(1, 0, x / zoom);
    const rows = [];
    for (const state of states) if (state[0] <= micros + 1 || !rows[state[1]]) rows[state[1]] = state;
    $("states").replaceChildren(...rows.map(row));
    $("moment").textContent = (micros / 1000).toFixed(3) + " ms";
    cursor.setAttribute("d", `M${x} 26V${picture.getAttribute("height")}`);
  };

  // Pointing: the tip, the cursor, the table. Dragging pans.
  let drag = null;
  scroll.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button === 0) drag = { x: event.clientX, left: scroll.scrollLeft };
  });
  addEventListener("pointerup", () => { drag = null; scroll.classList.remove("dragged"); });
  scroll.addEventListener("pointermove", (event) => {
    if (drag) {
      scroll.classList.add("dragged");
      scroll.scrollLeft = drag.left - (event.clientX - drag.x);
    }
    show(event.clientX - picture.getBoundingClientRect().left);
    const over = event.target.closest("[data-tip]");
    tip.hidden = !over;
    if (!over) return;
    const [first, ...rest] = over.dataset.tip.split("\n");
    tip.replaceChildren(Object.assign(document.createElement("small"), { textContent: first }), "\n" + rest.join("\n"));
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(6, Math.min(event.clientX + 16, innerWidth - box.width - 8)) + "px";
    tip.style.top = (event.clientY + 20 + box.height > innerHeight ? event.clientY - box.height - 12 : event.clientY + 20) + "px";
  });
  scroll.addEventListener("pointerleave", () => { tip.hidden = true; });

  // Jumping: to the violation, to what offends, to where a sentence of the story belongs.
  const jump = (target, smooth) => {
    if (!target) return;
    const x = numbers(target.dataset.x)[0] * zoom;
    scroll.scrollTo({ left: x - scroll.clientWidth / 2, behavior: smooth ? "smooth" : "instant" });
    for (const old of all.querySelectorAll(".flash")) old.classList.remove("flash");
    target.classList.add("flash");
    show(x);
  };
  const bad = all.querySelector(".offends") || all.querySelector(".violated");
  if ($("bad")) $("bad").onclick = () => jump(bad, true);
  addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#e"]');
    const target = link && $(link.getAttribute("href").slice(1));
    if (!target) return;
    event.preventDefault();
    jump(target, true);
    if (scroll.getBoundingClientRect().bottom > innerHeight) scroll.scrollIntoView({ block: "nearest", behavior: "smooth" });
  });
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const button = { "+": "in", "=": "in", "-": "out", "0": "fit", v: "bad" }[event.key];
    if (button && $(button)) $(button).click();
  });
  if (bad) jump(bad, false);
  else show(width);
})();
