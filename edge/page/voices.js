// The view of all voices: hear one, remove one. The choice of voices in the speaking view is filled from here too.

import { blob, call, json } from "./api.js";
import { $, make } from "./dom.js";
import { complain } from "./failure.js";
import { recall } from "./storage.js";
import { tell, words } from "./words.js";

let voices = [];
// The recording that is being heard, if any; its sound is there a little later.
let hearing = null;

export async function loadVoices(chosen = $("voice").value || recall("voice")) {
  ({ voices } = await json("/v1/audio/voices"));
  $("voice").replaceChildren(...voices.map(({ id, name }) => new Option(name, id, false, id === chosen)));
  showCards();
}

function showCards() {
  $("voice-list").replaceChildren(...voices.map(card));
  mark();
}

function card(voice) {
  const item = make("li");
  const about = [voice.language, voice.seconds && `${voice.seconds.toFixed(1)} s`, voice.licence].filter(Boolean).join(" · ");
  const buttons = make("div", "", { class: "row" });
  const listen = make("button", "", { type: "button", "data-hear": voice.id });
  listen.onclick = () => hear(voice.id);
  buttons.append(listen);
  if (!voice.shipped) {
    const gone = make("button", words("remove"), { type: "button" });
    gone.onclick = () => remove(voice, gone);
    buttons.append(gone);
  }
  item.append(make("strong", voice.name), make("span", about, { class: "hint" }), buttons);
  return item;
}

// ---- hearing

async function hear(id) {
  const stops = hearing?.id === id;
  hush();
  if (stops) return;
  const mine = (hearing = { id, sound: null });
  mark();
  try {
    // Fetched rather than named as a source: an <audio> element cannot send a key.
    const recording = await blob(await call(`/v1/audio/voices/${encodeURIComponent(id)}/sample`));
    if (hearing !== mine) return;
    mine.sound = new Audio(URL.createObjectURL(recording));
    mine.sound.onended = () => hearing === mine && hush();
    await mine.sound.play();
  } catch (error) {
    // Whoever was stopped before it sounded has not failed.
    if (hearing !== mine) return;
    hush();
    complain($("voice-said"), error);
  }
}

function hush() {
  const sound = hearing?.sound;
  hearing = null;
  mark();
  if (!sound) return;
  sound.pause();
  URL.revokeObjectURL(sound.src);
}

function mark() {
  for (const button of document.querySelectorAll("[data-hear]")) {
    button.textContent = button.dataset.hear === hearing?.id ? words("stop") : words("hear");
  }
}

// ---- removing

async function remove(voice, button) {
  if (!confirm(words("confirm-remove", { name: voice.name }))) return;
  button.disabled = true;
  if (hearing?.id === voice.id) hush();
  try {
    await call(`/v1/audio/voices/${encodeURIComponent(voice.id)}`, { method: "DELETE" });
    tell($("voice-said"), "removed", { name: voice.name });
    await loadVoices();
  } catch (error) {
    complain($("voice-said"), error);
    button.disabled = false;
  }
  // The button that had the focus is gone.
  $("voices-title").focus();
}

document.addEventListener("words", showCards);
