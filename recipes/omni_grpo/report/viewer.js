// Controls: filters, search, order, stage, keys, and the address, which remembers the chosen group.
const search = document.getElementById("search");
const count = document.getElementById("count");
const number = new Intl.NumberFormat("en");

function choose(place, keep) {
  state.chosen = Math.max(0, Math.min(place, state.listed.length - 1));
  if (!state.listed.length) state.chosen = -1;
  if (!keep) state.all = false;
  if (state.chosen >= 0) {
    reveal(state.chosen);
    history.replaceState(null, "", `#${state.listed[state.chosen].index}`);
  }
  drawList();
  drawGroup();
}

/** List anew; the chosen group stays chosen if it is still there. */
function refresh() {
  const before = state.listed[state.chosen];
  const completions = list();
  count.textContent = `${number.format(state.listed.length)} of ${number.format(groups.length)} groups, `
    + `${number.format(completions)} completions`;
  box.scrollTop = 0;
  choose(Math.max(0, before ? state.listed.indexOf(before) : 0));
}

const filters = data.flags.map(([name, label, words], bit) => {
  const total = groups.reduce((sum, group) => sum + group.rollouts.filter((r) => r.flags & (1 << bit)).length, 0);
  const button = element("button", { type: "button", "aria-pressed": "false", title: words, "data-flag": name },
    label, element("span", {}, number.format(total)));
  button.addEventListener("click", () => {
    state.flags ^= 1 << bit;
    button.setAttribute("aria-pressed", String(Boolean(state.flags & (1 << bit))));
    refresh();
  });
  return button;
});
document.getElementById("filters").append(...filters);

function readSearch() {
  const terms = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const steps = terms.map((term) => /^step:(\d+)(?:[-–](\d+))?$/.exec(term)).filter(Boolean).pop();
  state.steps = steps ? [Number(steps[1]), Number(steps[2] || steps[1])] : null;
  state.ids = terms.filter((term) => term.startsWith("id:")).map((term) => term.slice(3));
  state.words = terms.filter((term) => !/^(id:|step:\d)/.test(term));
  refresh();
}
search.addEventListener("input", readSearch);

function picker(id, names, apply) {
  const select = document.getElementById(id);
  select.append(...names.map((name, i) => element("option", { value: i }, name)));
  select.addEventListener("change", () => { apply(select.selectedIndex); refresh(); });
  if (names.length < 2) select.parentElement.hidden = true;
}
picker("sort", ORDERS.map(([name]) => name), (i) => { state.order = i; });
const stages = data.stages.length > 1 ? ["All", ...data.stageNames] : ["All"];
picker("stage", stages, (i) => { state.stage = i - 1; });

function clear() {
  search.value = "";
  state.flags = 0;
  for (const button of filters) button.setAttribute("aria-pressed", "false");
  readSearch();
}

function stepCards(by) {
  const cards = [...article.querySelectorAll(".card")];
  const now = cards.indexOf(document.activeElement.closest(".card"));
  const next = cards[Math.max(0, Math.min(cards.length - 1, now + by))];
  if (next) { next.focus({ preventScroll: true }); next.scrollIntoView({ block: "nearest" }); }
}

const KEYS = {
  ArrowDown: () => choose(state.chosen + 1), ArrowUp: () => choose(state.chosen - 1),
  j: () => choose(state.chosen + 1), k: () => choose(state.chosen - 1),
  ArrowRight: () => stepCards(1), ArrowLeft: () => stepCards(-1),
  Home: () => choose(0), End: () => choose(state.listed.length - 1),
  "/": () => search.focus(), Escape: clear,
};
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, video, audio");
  if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  if (typing && event.key !== "Escape") return;
  if (event.key === "Escape") event.target.blur();
  event.preventDefault();
  KEYS[event.key]();
});

document.addEventListener("play", (event) => {
  for (const player of document.querySelectorAll("video, audio")) if (player !== event.target) player.pause();
}, true);
box.addEventListener("scroll", drawList, { passive: true });
addEventListener("resize", drawList);

const asked = Number(location.hash.slice(1));
list();
const start = location.hash ? state.listed.findIndex((group) => group.index === asked) : 0;
refresh();
choose(Math.max(0, start));
document.documentElement.dataset.ready = "true";
