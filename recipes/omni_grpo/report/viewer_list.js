"use strict";
// The rows, what is asked of them, and the list of groups, of which only what can be seen is in the page.
const data = JSON.parse(document.getElementById("data").textContent);
const ROW_HEIGHT = 76; // as in viewer.css
const NOTHING = "–";

const groups = data.groups.map(([stage, step, heldOut, id, question, gold, type, media, packed], index) => {
  const rollouts = packed.map(([pieces, rewards, total, advantage, byPlace, notes, flags, reason], position) => ({
    pieces, rewards, total, advantage, byPlace, notes, flags, reason, position,
    score: data.answer < 0 ? null : rewards[data.answer],
  }));
  const totals = rollouts.map((r) => r.total).filter((t) => t !== null);
  const mean = totals.length ? totals.reduce((a, b) => a + b, 0) / totals.length : -Infinity;
  const spread = totals.length ? Math.max(...totals) - Math.min(...totals) : 0;
  return { index, stage, step, heldOut, id, question, gold, type, media, rollouts, mean, spread, shown: rollouts };
});

const ORDERS = [
  ["Latest step first", (a, b) => b.step - a.step || a.index - b.index],
  ["Earliest step first", (a, b) => a.index - b.index],
  ["Lowest mean reward first", (a, b) => a.mean - b.mean || a.index - b.index],
  ["Highest mean reward first", (a, b) => b.mean - a.mean || a.index - b.index],
  ["Widest spread of rewards first", (a, b) => b.spread - a.spread || a.index - b.index],
];

const state = { flags: 0, words: [], ids: [], steps: null, stage: -1, order: 0, listed: [], chosen: -1, all: false };

function haystack(group, rollout) {
  if (rollout.text === undefined) {
    const own = rollout.pieces.filter((_, i) => i % 2).join("") + "\n" + rollout.notes.filter(Boolean).join("\n");
    rollout.text = own.toLowerCase();
  }
  if (group.text === undefined) group.text = [group.question, group.gold || "", group.id].join("\n").toLowerCase();
  return [rollout.text, group.text];
}

function meets(group, rollout) {
  if ((rollout.flags & state.flags) !== state.flags) return false;
  if (!state.words.length) return true;
  const texts = haystack(group, rollout);
  return state.words.every((word) => texts.some((text) => text.includes(word)));
}

/** Groups that have a completion which meets all that is asked, in the order asked for. */
function list() {
  state.listed = [];
  let completions = 0;
  for (const group of groups) {
    if (state.stage >= 0 && group.stage !== state.stage) continue;
    if (state.steps && (group.step < state.steps[0] || group.step > state.steps[1])) continue;
    if (!state.ids.every((id) => group.id.toLowerCase().includes(id))) continue;
    group.shown = group.rollouts.filter((rollout) => meets(group, rollout));
    if (!group.shown.length) continue;
    completions += group.shown.length;
    state.listed.push(group);
  }
  state.listed.sort(ORDERS[state.order][1]);
  return completions;
}

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

function mark(score) {
  return score === null ? NOTHING : score >= 0.5 ? "✓" : "✗";
}

const box = document.getElementById("list");
const tall = document.getElementById("tall");

/** Put the rows that can be seen, and a few beside them, into the list. */
function drawList() {
  const first = Math.max(0, Math.floor(box.scrollTop / ROW_HEIGHT) - 4);
  const last = Math.min(state.listed.length, Math.ceil((box.scrollTop + box.clientHeight) / ROW_HEIGHT) + 4);
  tall.style.height = `${state.listed.length * ROW_HEIGHT}px`;
  tall.replaceChildren(...state.listed.slice(first, last).map((group, i) => listRow(group, first + i)));
  box.setAttribute("aria-activedescendant", state.chosen >= 0 ? `row-${state.chosen}` : "");
}

function listRow(group, place) {
  const chosen = place === state.chosen;
  const marks = group.rollouts.map((rollout) => mark(rollout.score)).join("");
  const right = group.rollouts.filter((rollout) => rollout.score >= 0.5 && rollout.score !== null).length;
  const narrowed = group.shown.length < group.rollouts.length;
  const row = element(
    "div",
    { class: "row", role: "option", id: `row-${place}`, "aria-selected": String(chosen),
      "aria-setsize": state.listed.length, "aria-posinset": place + 1 },
    element("p", { class: "where" },
      element("b", {}, `step ${group.step}`), element("span", { class: "which" }, group.id),
      element("span", { class: "hits" }, narrowed ? `${group.shown.length} of ${group.rollouts.length} match` : "")),
    element("p", { class: "asked", dir: "auto" }, group.question),
    element("p", { class: "marks" }, data.answer < 0 ? `${group.rollouts.length} completions` : marks,
      element("span", {}, data.answer < 0 ? "" : `${right} of ${group.rollouts.length} right`)),
  );
  row.style.top = `${place * ROW_HEIGHT}px`;
  row.addEventListener("click", () => {
    choose(place);
    if (matchMedia("(max-width: 720px)").matches) article.scrollIntoView(); // the group is below the list there
  });
  return row;
}

/** Bring a place of the list into sight. */
function reveal(place) {
  const top = place * ROW_HEIGHT;
  if (top < box.scrollTop) box.scrollTop = top;
  else if (top + ROW_HEIGHT > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW_HEIGHT - box.clientHeight;
}
