// Workers, queues and what happens to them, as the edge pushes it.

import { keys } from "./api.js";
import { words } from "./words.js";

const SHOWN = 30;
const SLOWEST_MS = 8000;

export function follow({ totals, workers, events, said, pulse }) {
  let delay = 500;
  let known = new Map();
  function connect() {
    const protocols = ["voicebus.status", ...(keys.get() ? [`voicebus.key.${keys.get()}`] : [])];
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws/status`, protocols);
    socket.onopen = () => {
      delay = 500;
      said.textContent = words("connected");
    };
    socket.onmessage = ({ data }) => show(JSON.parse(data));
    socket.onclose = () => {
      said.textContent = pulse.textContent = words("lost");
      pulse.dataset.state = "lost";
      setTimeout(connect, delay);
      delay = Math.min(SLOWEST_MS, 2 * delay);
    };
  }

  function show(news) {
    if (news.type === "status") {
      said.textContent = news.error ? news.error.message : words("connected");
      figures(news);
      beat(news);
      rows(news.workers);
    }
    for (const event of news.events ?? []) note(told(event));
  }

  function told({ kind, id, state, engine, worker, voice, audio_s: seconds, done, total, code }) {
    const what = words(`${kind}-${state}`, { id: id.slice(0, 8), engine, worker, voice, seconds: seconds.toFixed(1), done, total });
    return code ? `${what} (${code})` : what;
  }

  function figures({ jobs, totals: all, jobs_per_s: rate, workers: here }) {
    const values = { waiting: jobs?.queued, running: jobs?.running, finished: all?.done, rate: rate?.toFixed(1), workers: here.length };
    totals.replaceChildren(
      ...Object.entries(values).map(([name, value]) => {
        const pair = document.createElement("div");
        pair.append(text("dt", words(name)), text("dd", String(value ?? 0)));
        return pair;
      }),
    );
  }

  function beat({ error, jobs, workers: here }) {
    const waiting = jobs?.queued ?? 0;
    pulse.dataset.state = error || !here.length ? "lost" : waiting + (jobs?.running ?? 0) ? "busy" : "idle";
    pulse.textContent = error ? words("lost") : words("pulse", { workers: here.length, waiting });
  }

  function rows(all) {
    const now = new Map(all.map((worker) => [worker.id, worker]));
    for (const id of now.keys()) if (!known.has(id)) note(words("came", { name: id }));
    for (const id of known.keys()) if (!now.has(id)) note(words("went", { name: id }));
    known = now;
    workers.replaceChildren(
      ...all.map((worker) => {
        const row = document.createElement("tr");
        row.dataset.worker = worker.id;
        const warm = (worker.warm_voices ?? []).join(", ");
        row.append(
          text("th", worker.id, { scope: "row" }), text("td", worker.engine), text("td", worker.state),
          text("td", `${worker.open ?? 0} / ${worker.slots ?? 1}`), text("td", warm),
        );
        return row;
      }),
    );
  }

  function note(line) {
    events.prepend(text("li", `${new Date().toLocaleTimeString()} ${line}`));
    while (events.children.length > SHOWN) events.lastChild.remove();
  }

  connect();
}

function text(tag, content, attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = content;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
