// Plays speech while it still arrives: as MP3 in the <audio> element where the browser can take it in parts, else as
// bare samples by Web Audio, and then the element has the whole to play again.

import { fromPcm, wav } from "./wav.js";

const MP3 = "audio/mpeg";
const PCM_HZ = 24000;
const canStream = "MediaSource" in window && MediaSource.isTypeSupported(MP3);

// The format to ask for.
export const streamed = canStream ? "mp3" : "pcm";

// Resolves to the whole as a Blob. `onMore` is called with what is there so far.
export async function play(element, response, signal, onMore = () => {}) {
  const sink = canStream ? await intoElement(element) : byWebAudio(signal);
  const parts = [];
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    await sink.append(value);
    if (element.paused && parts.length === 1 && canStream) element.play().catch(() => {});
    onMore(sink.whole(parts));
  }
  await sink.end();
  const blob = sink.whole(parts);
  if (!canStream) element.src = URL.createObjectURL(blob);
  return blob;
}

async function intoElement(element) {
  const source = new MediaSource();
  element.src = URL.createObjectURL(source);
  await new Promise((resolve) => source.addEventListener("sourceopen", resolve, { once: true }));
  const buffer = source.addSourceBuffer(MP3);
  // Looked at again after each event: the one that comes may be of the append before.
  const settled = async () => {
    while (buffer.updating) await new Promise((resolve) => buffer.addEventListener("updateend", resolve, { once: true }));
  };
  return {
    whole: (parts) => new Blob(parts, { type: MP3 }),
    async append(bytes) {
      await settled();
      if (source.readyState === "open") buffer.appendBuffer(bytes);
    },
    async end() {
      await settled();
      if (source.readyState === "open") source.endOfStream();
    },
  };
}

function byWebAudio(signal) {
  const context = new AudioContext();
  signal?.addEventListener("abort", () => context.close().catch(() => {}), { once: true });
  let at = 0;
  let odd = new Uint8Array(0);
  let last = null;
  return {
    whole: (parts) => wav(parts, PCM_HZ),
    async append(bytes) {
      const all = new Uint8Array(odd.length + bytes.length);
      all.set(odd);
      all.set(bytes, odd.length);
      odd = all.slice(all.length & ~1);
      const samples = fromPcm(all.subarray(0, all.length & ~1));
      if (!samples.length) return;
      const buffer = context.createBuffer(1, samples.length, PCM_HZ);
      buffer.copyToChannel(samples, 0);
      last = context.createBufferSource();
      last.buffer = buffer;
      last.connect(context.destination);
      at = Math.max(at, context.currentTime + 0.02);
      last.start(at);
      at += buffer.duration;
    },
    async end() {
      if (last) last.addEventListener("ended", () => context.close().catch(() => {}), { once: true });
    },
  };
}
