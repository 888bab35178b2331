// One group: its media, its question, and its completions side by side.
const article = document.getElementById("group");

function signed(value) {
  return value === null ? NOTHING : (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value).toFixed(2);
}

function plain(value) {
  return value === null ? NOTHING : value.toFixed(2).replace("-", "−");
}

function drawGroup() {
  const group = state.listed[state.chosen];
  if (!group) {
    article.replaceChildren(element("p", { class: "empty" }, "No group meets all of this. Esc clears search and filters."));
    return;
  }
  const hidden = group.rollouts.length - group.shown.length;
  const shown = state.all ? group.rollouts : group.shown;
  const more = element("button", { type: "button", class: "more" },
    state.all ? "Show only those that match" : `Show the other ${hidden} too`);
  more.addEventListener("click", () => { state.all = !state.all; drawGroup(); });
  const gold = group.gold === null
    ? element("p", { class: "gold" }, "The gold answer was not logged.")
    : element("p", { class: "gold" }, "Gold answer", element("b", { dir: "auto" }, group.gold));
  article.replaceChildren(
    element("header", { class: "top" },
      element("h2", {}, `Step ${group.step}`, element("span", {}, group.id)),
      element("p", { class: "facts" }, [data.stageNames[group.stage], group.heldOut ? "evaluation" : "training",
        group.type, `${group.rollouts.length} completions`].filter(Boolean).join(" · "))),
    element("div", { class: "ask" },
      element("div", { class: "media" }, ...(group.media.length ? group.media.map(medium)
        : [element("p", { class: "note" }, "This row has no media.")])),
      element("div", { class: "problem" }, element("p", { class: "question", dir: "auto" }, group.question), gold)),
    element("div", { class: "cards" }, ...shown.map((rollout) => card(group, rollout))),
  );
  if (hidden) article.querySelector(".cards").before(element("p", { class: "hiding" },
    `${group.shown.length} of ${group.rollouts.length} completions match. `, more));
}

function medium(index) {
  const [name, type, link, reason] = data.media[index];
  if (reason) return element("p", { class: "note" }, `${name}: ${reason}.`);
  const inside = document.getElementById(`medium-${index}`);
  const source = inside ? inside.textContent : link;
  const kind = type.split("/")[0];
  const label = `${kind[0].toUpperCase()}${kind.slice(1)} ${name}`;
  const player = kind === "image" ? element("img", { alt: label })
    : element(kind, { controls: true, playsinline: kind === "video", preload: "metadata", "aria-label": label });
  const caption = element("figcaption", {}, `${name} · ${inside ? "in this page" : "linked"}`);
  player.addEventListener("error", () => { caption.textContent = `${name} could not be loaded from ${link || "this page"}.`; });
  player.src = source;
  return element("figure", {}, player, caption);
}

function card(group, rollout) {
  const verdict = rollout.score === null ? ["mark", "– not scored"]
    : rollout.score >= 1 ? ["mark right", "✓ right"]
    : rollout.score >= 0.5 ? ["mark right", `✓ ${plain(rollout.score)}`]
    : rollout.score > 0 ? ["mark wrong", `✗ ${plain(rollout.score)}`] : ["mark wrong", "✗ wrong"];
  const flags = data.flags.filter((_, bit) => rollout.flags & (1 << bit) && data.flags[bit][0] !== "wrong");
  const notes = rollout.notes.map((note, i) => [data.notes[i], note]).filter(([, note]) => note !== null);
  return element("section", { class: "card", tabindex: "-1", "aria-label": `Completion ${rollout.position + 1}` },
    element("h3", {}, `${rollout.position + 1}`, element("span", { class: verdict[0] }, verdict[1])),
    flags.length ? element("p", { class: "flags" }, ...flags.map(([, label]) => element("span", {}, label))) : null,
    element("div", { class: "text" }, ...pieces(rollout)),
    data.reasons[rollout.reason] === "ok" ? null : element("p", { class: "reason" },
      element("b", {}, data.reasons[rollout.reason].replaceAll("_", " ")), `: ${data.reasonWords[rollout.reason]}.`),
    figures(rollout),
    notes.length ? element("details", { class: "notes" }, element("summary", {}, "What the rewards noted"),
      element("dl", {}, ...notes.flatMap(([name, note]) => [element("dt", {}, name.replaceAll("_", " ")),
        element("dd", { dir: "auto" }, note)]))) : null);
}

/** Rewards, their sum and the advantages; a bar shows each advantage against the largest of the card. */
function figures(rollout) {
  const line = (name, value, kind) => element("tr", { class: kind },
    element("th", { scope: "row" }, name), element("td", {}, value));
  const rewards = data.rewards.map((name, i) => line(name.replaceAll("_", " "), plain(rollout.rewards[i]), "reward"));
  const named = new Set(rollout.pieces.filter((_, i) => i % 2 === 0).map((place) => data.places[place]));
  const beside = ["tag", "outside"].map((name) => [name, rollout.byPlace[data.places.indexOf(name)]])
    .filter(([name, value]) => value !== null && (named.has(name) || value !== 0));
  return element("table", { class: "figures" },
    element("caption", { class: "hidden" }, "Rewards and advantages"),
    element("tbody", {}, ...rewards, line("total reward", plain(rollout.total), "sum"),
      line("advantage", signed(rollout.advantage), "sum"),
      ...beside.map(([name, value]) => line(name === "tag" ? "… of the tags" : "… of what is outside", signed(value), ""))));
}

const TONES = { context: "context", think: "think", answer: "answer", reasoning: "think", conclusion: "answer",
  caption: "context", summary: "other-1", tag: "tag", outside: "outside" };

/** Sections under their names with their advantages; tags and what is outside between them. */
function pieces(rollout) {
  const made = [];
  for (let i = 0; i < rollout.pieces.length; i += 2) {
    const [place, words] = [rollout.pieces[i], rollout.pieces[i + 1]];
    const name = data.places[place];
    if (name === "tag") made.push(element("code", { class: "tag" }, words));
    else if (name === "outside") {
      if (words.trim()) made.push(element("div", { class: "outside" }, element("h4", {}, "outside"),
        element("p", { dir: "auto" }, words)));
    } else {
      const credit = rollout.byPlace[place];
      made.push(element("div", { class: `section tone-${TONES[name] || "other-1"} is-${name}` },
        element("h4", {}, name, credit === null ? null : element("span", { title: "advantage of this section" },
          `${credit > 0 ? "▲" : credit < 0 ? "▼" : "="} ${signed(credit)}`)),
        element("p", { dir: "auto" }, words)));
    }
  }
  return made.length ? made : [element("p", { class: "note" }, "Empty completion.")];
}
