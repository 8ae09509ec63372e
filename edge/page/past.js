// The view of what was spoken before: hear it, say it again, forget it.

import { $, make } from "./dom.js";
import * as history from "./history.js";
import { again } from "./speak.js";
import { show, tell, words } from "./words.js";

const SHOWN_CHARS = 300;
const LABEL_CHARS = 60;
let shown = [];
let turn = 0;

export async function showPast() {
  const mine = ++turn;
  let entries = [];
  try {
    entries = await history.all();
    show($("past-said"));
  } catch {
    tell($("past-said"), "no-history");
  }
  // Another look has begun meanwhile, and knows more.
  if (mine !== turn) return;
  for (const { sound } of shown) {
    sound.pause();
    URL.revokeObjectURL(sound.src);
  }
  shown = entries.map(item);
  $("past").replaceChildren(...shown.map(({ place }) => place));
  name();
}

function item(entry) {
  const place = make("li");
  const sound = make("audio", "", { controls: "" });
  sound.src = URL.createObjectURL(entry.blob);
  const button = make("button", "", { type: "button" });
  button.onclick = () => {
    for (const other of shown) other.sound.pause();
    again(entry.wish);
  };
  place.append(make("p", entry.wish.input.slice(0, SHOWN_CHARS)), sound, button);
  return { place, sound, button, text: entry.wish.input.slice(0, LABEL_CHARS) };
}

// Names alone change with the language: what is being heard goes on.
function name() {
  for (const { sound, button, text } of shown) {
    sound.setAttribute("aria-label", words("spoken", { text }));
    button.textContent = words("again");
  }
}

async function forget() {
  if (!confirm(words("confirm-forget"))) return;
  await history.clear().catch(() => {});
  await showPast();
}

$("forget").addEventListener("click", forget);
document.addEventListener("words", name);
