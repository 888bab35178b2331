"use strict";
// The page is complete without this script: it adds buttons that filter clips by kind, and lets one clip play at a time.
document.addEventListener("play", (event) => {
  for (const media of document.querySelectorAll("video, audio")) {
    if (media !== event.target) media.pause();
  }
}, true);

const clips = [...document.querySelectorAll(".clip")];
const kinds = [...new Set(clips.map((clip) => clip.dataset.kind))];
if (kinds.length > 1) {
  const bar = document.createElement("div");
  bar.className = "filter";
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", "Show clips of one kind");
  const buttons = ["all", ...kinds].map((kind, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = kind;
    button.setAttribute("aria-pressed", String(index === 0));
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      for (const clip of clips) clip.hidden = index > 0 && clip.dataset.kind !== kind;
    });
    return button;
  });
  bar.append(...buttons);
  document.querySelector(".clips").before(bar);
}
