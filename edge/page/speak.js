// The view that speaks: a wish, what is heard of it, its waveform and its file.

import { blob as bytes, json, speech } from "./api.js";
import { $ } from "./dom.js";
import { complain } from "./failure.js";
import * as history from "./history.js";
import { Player, streamed } from "./player.js";
import { remember } from "./storage.js";
import { draw, shape } from "./wave.js";
import { show, tell, words } from "./words.js";

const SKETCH_MS = 250;
// Of the time since the last sketch, at most a quarter may go into one: a long speech takes long to decode.
const REST = 3;

const player = new Player($("player"), buttons);
let speaking = null;
let running = Promise.resolve();
let last = null;
let fetching = false;
let bars = [];
let turn = 0;
let sketchDue = 0;
let engines = [];

// ---- speaking

export function say(event) {
  event?.preventDefault();
  if (speaking) return;
  const input = $("text").value.trim();
  if (!input) {
    tell($("wrong"), "blank");
    $("text").focus();
    return;
  }
  // Without a model it is the server that chooses.
  const model = $("engine").value;
  running = speak({ input, voice: $("voice").value, speed: Number($("speed").value), ...(model && { model }) });
}

// Resolves when nothing is being spoken any more.
export function stop() {
  speaking?.abort();
  player.stop();
  return running;
}

// What was wished before, once more.
export async function again(wish) {
  await stop();
  location.hash = "#speak";
  show($("said"));
  show($("wrong"));
  $("text").value = wish.input;
  $("speed").value = wish.speed ?? 1;
  pace();
  if (wish.voice && !restore($("voice"), wish.voice)) return tell($("wrong"), "voice-gone", { voice: wish.voice });
  // "tts-1" is how this page once asked for the usual engine.
  const engine = wish.model === "tts-1" ? "" : (wish.model ?? "");
  if (!restore($("engine"), engine) && engine) return tell($("wrong"), "engine-gone", { engine });
  say();
}

function restore(select, value) {
  const there = [...select.options].some((option) => option.value === value);
  if (there) select.value = value;
  return there;
}

async function speak(wish) {
  const began = performance.now();
  const { signal } = (speaking = new AbortController());
  const mine = ++turn;
  let first = 0;
  last = null;
  bars = [];
  sketchDue = 0;
  show($("wrong"));
  tell($("said"), "speaking");
  try {
    player.prepare();
    progress();
    const response = await speech({ ...wish, response_format: streamed }, signal);
    $("heard").hidden = false;
    const blob = await player.play(response, signal, (whole) => {
      first ||= performance.now() - began;
      sketch(whole, mine);
    });
    const { peaks, seconds } = await shape(blob);
    // Sketches that end later come too late.
    turn++;
    bars = peaks;
    last = { wish, blob, engine: response.headers.get("X-Voicebus-Engine") ?? "" };
    // Kept before it is called done: whoever looks at the history then finds it. A browser that keeps none has
    // spoken all the same.
    await history.keep({ ...last, seconds }).catch(() => {});
    tell($("said"), "done", { seconds: seconds.toFixed(1), engine: last.engine, first: Math.round(first) });
  } catch (error) {
    player.quiet();
    if (signal.aborted) tell($("said"), "stopped");
    else fail(error, { count: wish.input.length });
  } finally {
    speaking = null;
    $("heard").hidden = !player.holds;
    progress();
    buttons();
  }
}

function fail(error, values) {
  show($("said"));
  // The body may be too large before anybody counts characters.
  if (error.code === "body_too_large") tell($("wrong"), "too-long", values);
  else complain($("wrong"), error, values);
}

function buttons() {
  $("go").disabled = speaking !== null;
  $("stop").disabled = speaking === null && !player.sounds;
  $("download").disabled = last === null || fetching;
  $("speak").setAttribute("aria-busy", String(speaking !== null));
}

// ---- the waveform

// Of what is there so far. `whole` copies all of it, so it is called only when a sketch is due.
async function sketch(whole, mine) {
  const begun = performance.now();
  if (begun < sketchDue) return;
  sketchDue = Infinity;
  try {
    const { peaks } = await shape(whole());
    if (mine === turn) {
      bars = peaks;
      progress();
    }
  } catch {
    // The first bytes may not be a whole frame yet.
  }
  const ended = performance.now();
  if (mine === turn) sketchDue = Math.max(begun + SKETCH_MS, ended + REST * (ended - begun));
}

export function progress() {
  const { currentTime, duration } = $("player");
  draw($("wave"), bars, duration ? currentTime / duration : 0);
}

// ---- the file

async function download() {
  if (!last || fetching) return;
  const { wish, blob } = last;
  const format = $("format").value;
  fetching = true;
  buttons();
  try {
    const is = blob.type.endsWith(format === "mp3" ? "mpeg" : format);
    save(is ? blob : await bytes(await speech({ ...wish, response_format: format })), `voicebus.${format}`);
  } catch (error) {
    fail(error);
  } finally {
    fetching = false;
    buttons();
  }
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// ---- the fields

export async function loadEngines() {
  try {
    const { data } = await json("/v1/models");
    engines = data.filter((model) => model.owned_by === "voicebus").map(({ id }) => id);
  } catch (error) {
    complain($("wrong"), error);
  }
  showEngines();
}

function showEngines() {
  const chosen = $("engine").value;
  $("engine").replaceChildren(new Option(words("any-engine"), ""), ...engines.map((id) => new Option(id, id)));
  restore($("engine"), chosen);
}

function pace() {
  $("speed-shown").textContent = `${Number($("speed").value)}×`;
}

$("wish").addEventListener("submit", say);
$("stop").addEventListener("click", stop);
$("download").addEventListener("click", download);
$("player").addEventListener("timeupdate", progress);
$("speed").addEventListener("input", pace);
$("voice").addEventListener("change", () => remember("voice", $("voice").value));
addEventListener("resize", progress);
document.addEventListener("theme", progress);
document.addEventListener("words", showEngines);
