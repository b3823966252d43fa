"use strict";
// Sorting and filtering of the tables, deep links to networks, and the color scheme.

const create = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};

function enhanceGrid(grid) {
  const table = grid.querySelector("table");
  const bodies = [...table.tBodies];
  const rows = bodies.flatMap((body) => [...body.querySelectorAll("tr.row")].map((row) => ({ row, body })));
  if (rows.length < 2) return;
  const caption = table.caption.textContent;
  const heads = [...table.querySelectorAll("th[data-column]")];

  const key = (row, column) => {
    const cell = row.cells[column];
    const text = cell.textContent.trim();
    if (!cell.classList.contains("n")) return text === "–" ? null : text.toLowerCase();
    const number = Number.parseFloat(text.replace("−", "-").replace(/[+<,]/g, "")); // of an interval, its lower bound
    return Number.isNaN(number) ? null : number;
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  };

  // Sort all rows of a table together; the third activation restores the order of the paper with its groups.
  const sort = (head) => {
    const next = { none: "ascending", ascending: "descending", descending: "none" };
    const direction = next[head.getAttribute("aria-sort")];
    for (const each of heads) each.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", direction);
    table.classList.toggle("sorted", direction !== "none");
    if (direction === "none") {
      for (const { row, body } of rows) body.append(row);
    } else {
      const column = Number(head.dataset.column);
      const sign = direction === "ascending" ? 1 : -1;
      const keyed = rows.map(({ row }) => ({ row, value: key(row, column) }));
      const present = keyed.filter(({ value }) => value !== null);
      present.sort((a, b) => sign * compare(a.value, b.value));
      const missing = keyed.filter(({ value }) => value === null); // last in both directions
      bodies[0].append(...[...present, ...missing].map(({ row }) => row));
    }
    showGroups();
  };

  // Show the heading of a group while the table is in the order of the paper and a row of the group is shown.
  const showGroups = () => {
    const sorted = table.classList.contains("sorted");
    for (const body of bodies) {
      const heading = body.querySelector("tr.group");
      const shown = [...body.querySelectorAll("tr.row")].some((row) => !row.hidden);
      if (heading) heading.hidden = sorted || !shown;
    }
  };

  for (const head of heads) {
    head.setAttribute("aria-sort", "none");
    const button = create("button", { type: "button", className: "sort" }, ...head.childNodes);
    button.addEventListener("click", () => sort(head));
    head.append(button);
  }

  const search = create("input", { type: "search", autocomplete: "off" });
  const outcomes = [...new Set(rows.flatMap(({ row }) => row.dataset.outcomes.split(" ")))].filter(Boolean);
  const select = create("select", {}, create("option", { value: "", textContent: "any" }));
  for (const outcome of outcomes) select.append(create("option", { value: outcome, textContent: outcome }));
  const status = create("span", { className: "remark" });
  status.setAttribute("role", "status");
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { row, body } of rows) {
      const heading = body.querySelector("tr.group")?.textContent ?? "";
      const text = `${row.textContent} ${heading}`.toLowerCase();
      const outcome = !select.value || row.dataset.outcomes.split(" ").includes(select.value);
      row.hidden = !(outcome && words.every((word) => text.includes(word)));
      shown += !row.hidden;
    }
    status.textContent = `${shown} of ${rows.length} rows`;
    showGroups();
  };
  search.addEventListener("input", filter);
  select.addEventListener("change", filter);
  const controls = create("div", { className: "controls" }, create("label", {}, "Filter ", search));
  if (outcomes.length > 1) controls.append(create("label", {}, "Outcome ", select));
  controls.append(status, create("span", { className: "remark scroll-hint", textContent: "Scroll sideways for more columns →" }));
  controls.setAttribute("role", "group");
  controls.setAttribute("aria-label", `Filter: ${caption}`);
  filter();
  grid.prepend(controls);
}

// A fragment names a network; its section is opened, also after a click on a link to the same fragment.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const details = target?.closest("details");
  if (!details) return;
  for (const open of document.querySelectorAll(".note:popover-open")) open.hidePopover();
  details.open = true;
  target.scrollIntoView();
  target.focus({ preventScroll: true });
}

// A table that is wider than the page says so.
function watchWidth(box) {
  const watch = () => box.parentElement.classList.toggle("wide", box.scrollWidth > box.clientWidth + 1);
  new ResizeObserver(watch).observe(box);
}

function addThemes() {
  const select = create("select");
  for (const theme of ["system", "light", "dark"]) {
    select.append(create("option", { value: theme, textContent: theme }));
  }
  select.addEventListener("change", () => {
    document.documentElement.dataset.theme = select.value;
    document.dispatchEvent(new Event("themechange"));
  });
  document.querySelector("nav").append(create("label", { className: "theme" }, "Colors ", select));
}

// A note takes the focus when it opens; the browser returns the focus to its button.
const focusNote = (event) => {
  if (event.newState === "open" && event.target.matches(".note")) event.target.querySelector(".close").focus();
};

addThemes();
document.addEventListener("toggle", focusNote, true);
document.querySelectorAll(".grid").forEach(enhanceGrid);
document.querySelectorAll(".scroll").forEach(watchWidth);
addEventListener("hashchange", openTarget);
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (link && link.hash === location.hash) openTarget();
});
if (location.hash) openTarget();
