// The page in two languages. Who shows text that is not in the document listens for "words", and shows it anew.

import { recall, remember } from "./storage.js";
import { EN, ZH } from "./texts.js";

// What was said where, so that it can be said again in the other language.
const told = new Map();
let chosen = recall("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");

export const language = () => chosen;

const table = () => (chosen === "zh" ? ZH : EN);

export function words(name, values = {}) {
  return (table()[name] ?? name).replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
}

// Says words of the page in an element.
export function tell(element, name, values = {}) {
  told.set(element, [name, values]);
  put(element, words(name, values));
}

// Says what has no translation, such as the server's sentences; nothing, too.
export function show(element, text = "") {
  told.delete(element);
  put(element, text);
}

// A reader reads a live region out at every write, so the same is not written twice.
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function choose(next) {
  chosen = next;
  remember("language", next);
  apply();
  for (const [element, [name, values]] of told) put(element, words(name, values));
  document.dispatchEvent(new Event("words"));
}

export function apply() {
  document.documentElement.lang = chosen === "zh" ? "zh-CN" : "en";
  const all = (name) => document.querySelectorAll(`[data-${name}]`);
  for (const element of all("words")) {
    element.dataset.original ??= element.textContent;
    element.textContent = table()[element.dataset.words] ?? element.dataset.original;
  }
  for (const element of all("words-placeholder")) {
    element.dataset.originalPlaceholder ??= element.placeholder;
    element.placeholder = table()[element.dataset.wordsPlaceholder] ?? element.dataset.originalPlaceholder;
  }
  for (const element of all("words-label")) {
    element.dataset.originalLabel ??= element.getAttribute("aria-label") ?? "";
    element.setAttribute("aria-label", table()[element.dataset.wordsLabel] ?? element.dataset.originalLabel);
  }
}
