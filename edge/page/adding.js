// The form that adds a voice: a recording from a file or the microphone, a name, and the speaker's consent.

import { json } from "./api.js";
import { $ } from "./dom.js";
import { complain } from "./failure.js";
import { canRecord, record } from "./recorder.js";
import { loadVoices } from "./voices.js";
import { show, tell, words } from "./words.js";

let sample = null;
let finish = null;
let changing = false;
let sending = false;

// ---- the recording

function take(blob, name = "") {
  drop();
  sample = blob;
  $("sample").src = URL.createObjectURL(blob);
  $("sample").hidden = false;
  if (name && !$("name").value) $("name").value = name.replace(/\.\w+$/, "");
}

function drop() {
  sample = null;
  $("sample").hidden = true;
  if (!$("sample").src) return;
  URL.revokeObjectURL($("sample").src);
  $("sample").removeAttribute("src");
  $("sample").load();
}

// One at a time: a second press while the microphone starts would leave the first one on.
async function toggle() {
  if (changing) return;
  changing = true;
  const focused = document.activeElement === $("record");
  $("record").disabled = true;
  try {
    if (finish) {
      const end = finish;
      finish = null;
      label("record");
      take(await end());
    } else {
      show($("voice-said"));
      finish = await record((level, seconds) => {
        $("level").value = level;
        $("recorded").textContent = `${seconds.toFixed(1)} s`;
      });
      label("record-stop");
    }
  } catch (error) {
    tell($("voice-said"), "no-mic", { why: error.message });
  } finally {
    changing = false;
    $("record").disabled = false;
    if (focused) $("record").focus();
  }
}

function label(name) {
  $("record").dataset.words = name;
  $("record").textContent = words(name);
}

// ---- keeping

async function keep(event) {
  event.preventDefault();
  if (sending) return;
  if (!sample) return tell($("voice-said"), "drop");
  const form = new FormData();
  form.set("name", $("name").value);
  form.set("consent", $("consent").value);
  form.set("audio_sample", sample, sample.name ?? "recording.wav");
  sending = true;
  $("keep").disabled = true;
  show($("voice-said"));
  try {
    const made = await json("/v1/audio/voices", { method: "POST", body: form });
    tell($("voice-said"), "kept", { name: made.name });
    $("new-voice").reset();
    drop();
    await loadVoices(made.id);
  } catch (error) {
    complain($("voice-said"), error);
  } finally {
    sending = false;
    $("keep").disabled = false;
  }
}

if (!canRecord) {
  $("record").disabled = true;
  $("needs-https").hidden = false;
}
$("record").addEventListener("click", toggle);
$("new-voice").addEventListener("submit", keep);
$("drop").addEventListener("click", () => $("file").click());
$("drop").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" && event.key !== " ") return;
  // Space would scroll the page.
  event.preventDefault();
  $("file").click();
});
$("drop").addEventListener("dragover", (event) => event.preventDefault());
$("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) take(file, file.name);
});
$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) take(file, file.name);
});
