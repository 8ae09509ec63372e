// Workers, queues and what happens to them, as the edge pushes it.

import { $, make } from "./dom.js";
import { key } from "./keys.js";
import { show, tell, words } from "./words.js";

const SHOWN = 30;
const SOONEST_MS = 500;
const SLOWEST_MS = 8000;

let delay = SOONEST_MS;
let known = new Map();
let status = null;
// What happened, the latest first: when, and a function that tells it in the language of the moment.
let notes = [];

export function follow() {
  let socket;
  try {
    const protocols = ["voicebus.status", ...(key() ? [`voicebus.key.${key()}`] : [])];
    socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws/status`, protocols);
  } catch {
    return lost();
  }
  socket.onopen = () => {
    delay = SOONEST_MS;
    tell($("live-said"), "connected");
  };
  socket.onmessage = ({ data }) => take(JSON.parse(data));
  socket.onclose = lost;
}

function lost() {
  tell($("live-said"), "lost");
  tell($("pulse"), "lost");
  $("pulse").dataset.state = "lost";
  setTimeout(follow, delay);
  delay = Math.min(SLOWEST_MS, 2 * delay);
}

function take(news) {
  if (news.type === "status") {
    status = news;
    if (news.error) show($("live-said"), news.error.message);
    else if (news.workers) tell($("live-said"), "connected");
    else tell($("live-said"), "not-shown");
    compare(news.workers ?? []);
    beat(news);
    showStatus();
  }
  for (const event of news.events ?? []) note(() => told(event));
}

function compare(workers) {
  const now = new Map(workers.map((worker) => [worker.id, worker]));
  for (const name of now.keys()) if (!known.has(name)) note(() => words("came", { name }));
  for (const name of known.keys()) if (!now.has(name)) note(() => words("went", { name }));
  known = now;
}

function beat({ error, jobs, workers, ready }) {
  // Without the scope `operate` a key is told whether the bus would speak, and no more.
  if (!workers) {
    $("pulse").dataset.state = ready ? "idle" : "lost";
    return ready ? tell($("pulse"), "ready") : tell($("pulse"), "lost");
  }
  const waiting = jobs?.queued ?? 0;
  $("pulse").dataset.state = error || !workers.length ? "lost" : waiting + (jobs?.running ?? 0) ? "busy" : "idle";
  if (error) tell($("pulse"), "lost");
  else tell($("pulse"), "pulse", { workers: workers.length, waiting });
}

function told({ kind, id, state, engine, worker, voice, audio_s: seconds, done, total, code }) {
  const what = words(`${kind}-${state}`, { id: id.slice(0, 8), engine, worker, voice, seconds: seconds.toFixed(1), done, total });
  return code ? `${what} (${code})` : what;
}

// ---- showing

function showStatus() {
  if (!status?.workers) return;
  const { jobs, totals, jobs_per_s: rate, workers } = status;
  const figures = [
    [words("waiting"), jobs?.queued],
    [words("running"), jobs?.running],
    [words("finished"), totals?.done],
    [words("rate"), rate?.toFixed(1)],
    [words("workers"), workers.length],
  ];
  $("totals").replaceChildren(
    ...figures.map(([name, value]) => {
      const pair = make("div");
      pair.append(make("dt", name), make("dd", String(value ?? 0)));
      return pair;
    }),
  );
  $("workers").replaceChildren(...workers.map(row));
}

function row(worker) {
  const line = make("tr", "", { "data-worker": worker.id });
  line.append(
    make("th", worker.id, { scope: "row" }), make("td", worker.engine), make("td", words(`state-${worker.state}`)),
    make("td", `${worker.open ?? 0} / ${worker.slots ?? 1}`), make("td", (worker.warm_voices ?? []).join(", ")),
  );
  return line;
}

function note(tells) {
  const one = { at: new Date().toLocaleTimeString(), tells };
  notes = [one, ...notes].slice(0, SHOWN);
  $("events").prepend(line(one));
  while ($("events").children.length > SHOWN) $("events").lastChild.remove();
}

const line = ({ at, tells }) => make("li", `${at} ${tells()}`);

document.addEventListener("words", () => {
  showStatus();
  $("events").replaceChildren(...notes.map(line));
});
