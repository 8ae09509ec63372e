// Joins the views. One is shown at a time; which one is in the address, so that it can be linked.

import "./adding.js";
import { $ } from "./dom.js";
import { complain } from "./failure.js";
import { follow } from "./live.js";
import { showPast } from "./past.js";
import { loadEngines, progress, say, stop } from "./speak.js";
import { recall, remember } from "./storage.js";
import { loadVoices } from "./voices.js";
import { apply, choose, language } from "./words.js";

const VIEWS = ["speak", "voices", "live", "history"];
let shown = "";

function view() {
  const wanted = location.hash.slice(1);
  const is = VIEWS.includes(wanted);
  // A place in the page, such as where the skip link leads, is no view.
  if (wanted && !is && shown) return;
  shown = is ? wanted : "speak";
  for (const name of VIEWS) $(name).hidden = name !== shown;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${shown}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (shown === "history") showPast();
  if (shown === "speak") progress();
}

function theme(next) {
  if (next) remember("theme", next);
  const chosen = recall("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = chosen === "dark" ? "dark" : "light";
  $("theme").setAttribute("aria-pressed", String(chosen === "dark"));
  document.dispatchEvent(new Event("theme"));
}

// The button names the other language, in that language.
function tongue() {
  const other = language() === "zh" ? ["EN", "English", "en"] : ["中文", "中文", "zh-CN"];
  $("language").textContent = other[0];
  $("language").setAttribute("aria-label", other[1]);
  $("language").lang = other[2];
}

$("language").addEventListener("click", () => choose(language() === "zh" ? "en" : "zh"));
$("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
document.addEventListener("words", tongue);
addEventListener("hashchange", view);
addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !$("speak").hidden) say(event);
  if (event.key === "Escape") stop();
});

theme();
apply();
tongue();
view();
loadVoices().catch((error) => complain($("wrong"), error));
loadEngines();
// Last: whatever becomes of the status, the page is there.
follow();
