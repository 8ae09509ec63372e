// Joins the views to the API. One view is shown at a time; which one is in the address, so that it can be linked.

import { call, json, speech } from "./api.js";
import * as past from "./history.js";
import { follow } from "./live.js";
import { play, streamed } from "./player.js";
import { record } from "./recorder.js";
import { draw, shape } from "./wave.js";
import { apply, choose, language, words } from "./words.js";

const VIEWS = ["speak", "voices", "live", "history"];
const $ = (id) => document.getElementById(id);
let speaking = null;
let sketching = false;
let bars = [];
let last = null;
let recording = null;
let sample = null;

// ---- views, language, theme

function view() {
  const wanted = location.hash.slice(1);
  const chosen = VIEWS.includes(wanted) ? wanted : "speak";
  for (const name of VIEWS) $(name).hidden = name !== chosen;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${chosen}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (chosen === "history") showPast();
  if (chosen === "speak") progress();
}

function theme(next) {
  if (next) localStorage.theme = next;
  const dark = (localStorage.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").setAttribute("aria-pressed", String(dark));
}

function tongue() {
  apply();
  $("language").textContent = language() === "zh" ? "EN" : "中文";
  $("language").setAttribute("aria-label", language() === "zh" ? "English" : "中文");
}

// ---- speaking

async function say(event) {
  event?.preventDefault();
  const text = $("text").value.trim();
  if (!text || speaking) return;
  const wish = { input: text, voice: $("voice").value, model: $("engine").value || "tts-1", speed: Number($("speed").value) };
  const began = performance.now();
  speaking = new AbortController();
  busy(true);
  $("wrong").textContent = "";
  $("said").textContent = words("speaking");
  try {
    const response = await speech({ ...wish, response_format: streamed }, speaking.signal);
    bars = [];
    $("heard").hidden = false;
    let first = 0;
    const blob = await play($("player"), response, speaking.signal, (soFar) => {
      first ||= performance.now() - began;
      sketch(soFar);
    });
    const { peaks: all, seconds } = await shape(blob);
    bars = all;
    last = { wish, blob, engine: response.headers.get("X-Voicebus-Engine") ?? "" };
    $("said").textContent = words("done", { seconds: seconds.toFixed(1), engine: last.engine, first: Math.round(first) });
    progress();
    await past.keep({ ...last, seconds });
  } catch (error) {
    if (error.name === "AbortError") $("said").textContent = words("stopped");
    else fail(error);
  } finally {
    speaking = null;
    busy(false);
  }
}

// The waveform of what is there so far, a few times a second at most.
async function sketch(soFar) {
  if (sketching) return;
  sketching = true;
  try {
    bars = (await shape(soFar)).peaks;
    progress();
  } catch {
    // The first bytes may not be a whole frame yet.
  }
  setTimeout(() => (sketching = false), 250);
}

function stop() {
  speaking?.abort();
  $("player").pause();
}

function busy(is) {
  $("go").disabled = is;
  $("stop").disabled = !is;
  $("speak").setAttribute("aria-busy", String(is));
}

function fail(error) {
  $("said").textContent = "";
  $("wrong").textContent = error.message;
}

function progress() {
  const { currentTime, duration } = $("player");
  if (bars.length) draw($("wave"), bars, duration ? currentTime / duration : 0);
}

async function download() {
  if (!last) return;
  const format = $("format").value;
  try {
    const blob = last.blob.type.endsWith(format === "mp3" ? "mpeg" : format) ? last.blob : await (await speech({ ...last.wish, response_format: format })).blob();
    save(blob, `voicebus.${format}`);
  } catch (error) {
    fail(error);
  }
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// ---- voices

async function showVoices(chosen = $("voice").value || localStorage.voice) {
  const { voices } = await json("/v1/audio/voices");
  $("voice").replaceChildren(...voices.map(({ id, name }) => new Option(name, id, false, id === chosen)));
  $("voice-list").replaceChildren(...voices.map(card));
}

function card(voice) {
  const item = document.createElement("li");
  const name = document.createElement("strong");
  name.textContent = voice.name;
  const about = document.createElement("span");
  about.className = "hint";
  about.textContent = [voice.language, voice.seconds && `${voice.seconds.toFixed(1)} s`, voice.licence].filter(Boolean).join(" · ");
  const hear = document.createElement("button");
  hear.type = "button";
  hear.textContent = words("hear");
  // Fetched rather than named as a source: an <audio> element cannot send a key.
  hear.onclick = () => sampleOf(voice.id).then((url) => new Audio(url).play()).catch(voiceFail);
  const buttons = document.createElement("div");
  buttons.className = "row";
  buttons.append(hear);
  item.append(name, about, buttons);
  if (!voice.shipped) {
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = words("remove");
    remove.onclick = async () => {
      if (!confirm(words("confirm-remove", { name: voice.name }))) return;
      await call(`/v1/audio/voices/${encodeURIComponent(voice.id)}`, { method: "DELETE" }).catch(voiceFail);
      await showVoices();
    };
    buttons.append(remove);
  }
  return item;
}

async function sampleOf(id) {
  const response = await call(`/v1/audio/voices/${encodeURIComponent(id)}/sample`);
  return URL.createObjectURL(await response.blob());
}

function take(blob, name = "") {
  sample = blob;
  $("sample").src = URL.createObjectURL(blob);
  $("sample").hidden = false;
  if (name && !$("name").value) $("name").value = name.replace(/\.\w+$/, "");
}

async function toggleRecording() {
  if (recording) {
    const finish = recording;
    recording = null;
    $("record").textContent = words("record");
    take(await finish());
    return;
  }
  try {
    recording = await record((level, seconds) => {
      $("level").value = level;
      $("recorded").textContent = `${seconds.toFixed(1)} s`;
    });
    $("record").textContent = words("record-stop");
  } catch (error) {
    voiceFail(new Error(words("no-mic", { why: error.message })));
  }
}

async function keepVoice(event) {
  event.preventDefault();
  if (!sample) return voiceFail(new Error(words("drop")));
  const form = new FormData();
  form.set("name", $("name").value);
  form.set("consent", $("consent").value);
  form.set("audio_sample", sample, sample.name ?? "recording.wav");
  try {
    const made = await json("/v1/audio/voices", { method: "POST", body: form });
    $("voice-said").textContent = words("kept", { name: made.name });
    $("new-voice").reset();
    $("sample").hidden = true;
    sample = null;
    await showVoices(made.id);
  } catch (error) {
    voiceFail(error);
  }
}

function voiceFail(error) {
  $("voice-said").textContent = error.message;
}

// ---- history

async function showPast() {
  const entries = await past.all();
  $("past").replaceChildren(
    ...entries.map((entry) => {
      const item = document.createElement("li");
      const text = document.createElement("p");
      text.textContent = entry.wish.input.slice(0, 300);
      const sound = document.createElement("audio");
      sound.controls = true;
      sound.src = URL.createObjectURL(entry.blob);
      const again = document.createElement("button");
      again.type = "button";
      again.textContent = words("again");
      again.onclick = () => {
        $("text").value = entry.wish.input;
        $("voice").value = entry.wish.voice;
        location.hash = "#speak";
        say();
      };
      item.append(text, sound, again);
      return item;
    }),
  );
}

// ---- all together

$("wish").addEventListener("submit", say);
$("stop").addEventListener("click", stop);
$("download").addEventListener("click", download);
$("player").addEventListener("timeupdate", progress);
$("speed").addEventListener("input", () => ($("speed-shown").textContent = `${Number($("speed").value)}×`));
$("voice").addEventListener("change", () => (localStorage.voice = $("voice").value));
$("language").addEventListener("click", () => (choose(language() === "zh" ? "en" : "zh"), tongue()));
$("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
$("record").addEventListener("click", toggleRecording);
$("new-voice").addEventListener("submit", keepVoice);
$("forget").addEventListener("click", async () => (await past.clear(), showPast()));
$("drop").addEventListener("click", () => $("file").click());
$("drop").addEventListener("keydown", ({ key }) => (key === "Enter" || key === " ") && $("file").click());
$("drop").addEventListener("dragover", (event) => event.preventDefault());
$("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) take(file, file.name);
});
$("file").addEventListener("change", () => $("file").files[0] && take($("file").files[0], $("file").files[0].name));
addEventListener("hashchange", view);
addEventListener("resize", progress);
addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !$("speak").hidden) say(event);
  if (event.key === "Escape") stop();
});

theme();
tongue();
view();
follow({ totals: $("totals"), workers: $("workers"), events: $("events"), said: $("live-said"), pulse: $("pulse") });
showVoices().catch(fail);
json("/v1/models")
  .then(({ data }) =>
    $("engine").replaceChildren(new Option(words("any-engine"), ""), ...data.filter((model) => model.owned_by === "voicebus").map(({ id }) => new Option(id, id))),
  )
  .catch(fail);
