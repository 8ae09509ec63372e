// Plays speech while it still arrives: as MP3 in the <audio> element where the browser can take it in parts, else as
// bare samples by Web Audio, and then the element has the whole to play again.

import { Failure } from "./failure.js";
import { Samples } from "./samples.js";
import { wav } from "./wav.js";

const MP3 = "audio/mpeg";
const PCM_HZ = 24000;
const MISSED_S = 0.5;
const canStream = "MediaSource" in window && MediaSource.isTypeSupported(MP3);

// The format to ask for.
export const streamed = canStream ? "mp3" : "pcm";

export class Player {
  #element;
  #changed;
  #samples = null;
  #url = "";

  // `changed` is called whenever `sounds` may be another.
  constructor(element, changed) {
    this.#element = element;
    this.#changed = changed;
    for (const name of ["play", "pause", "ended", "emptied", "error"]) element.addEventListener(name, changed);
    // One of the two at a time.
    element.addEventListener("play", () => this.quiet());
  }

  // Whether anything is to be heard.
  get sounds() {
    return Boolean(this.#samples?.live) || !(this.#element.paused || this.#element.ended);
  }

  // Whether there is anything to play.
  get holds() {
    return Boolean(this.#url);
  }

  // To be called while the browser still sees the press. What was there is gone.
  prepare() {
    this.stop();
    this.#hold("");
    if (!canStream) this.#samples = new Samples(PCM_HZ, this.#changed);
    this.#changed();
  }

  stop() {
    this.#element.pause();
    this.quiet();
  }

  // Ends what sounds outside the element.
  quiet() {
    this.#samples?.close();
  }

  // Resolves to the whole as a Blob. `onMore` is given a function that makes a Blob of what is there so far. Where the
  // stream breaks off, what has come can still be played.
  async play(response, signal, onMore = () => {}) {
    const parts = [];
    const whole = canStream ? () => new Blob(parts, { type: MP3 }) : () => wav(parts, PCM_HZ);
    const sink = canStream ? await this.#intoElement(signal) : this.#intoSamples();
    const reader = response.body.getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read().catch(() => {
          throw new Failure("broken");
        });
        if (done) break;
        parts.push(value);
        await sink.append(value);
        if (canStream && parts.length === 1 && !signal.aborted) this.#element.play().catch(() => {});
        onMore(whole);
      }
    } catch (error) {
      this.quiet();
      if (parts.length) await sink.end(whole);
      else this.#hold("");
      throw error;
    }
    await sink.end(whole);
    return whole();
  }

  async #intoElement(signal) {
    const element = this.#element;
    const source = new MediaSource();
    this.#hold(URL.createObjectURL(source));
    await new Promise((resolve) => {
      source.addEventListener("sourceopen", resolve, { once: true });
      signal.addEventListener("abort", resolve, { once: true });
    });
    if (signal.aborted) {
      this.#hold("");
      throw signal.reason;
    }
    const buffer = source.addSourceBuffer(MP3);
    let takes = true;
    // Looked at again after each event: the one that comes may be of the append before.
    const settled = async () => {
      while (buffer.updating) await new Promise((resolve) => buffer.addEventListener("updateend", resolve, { once: true }));
    };
    return {
      async append(bytes) {
        await settled();
        if (!takes) return;
        try {
          buffer.appendBuffer(bytes);
        } catch {
          // The element's memory is full. It plays what it has, and gets the whole when that is there.
          takes = false;
        }
      },
      end: async (whole) => {
        await settled();
        // An element that is nearly full drops what was heard, and could not go back to it.
        const begins = buffer.buffered.length ? buffer.buffered.start(0) : 0;
        if (takes && source.readyState === "open" && begins < MISSED_S) return source.endOfStream();
        const { currentTime, paused } = element;
        this.#hold(URL.createObjectURL(whole()));
        element.currentTime = currentTime;
        if (!paused) element.play().catch(() => {});
      },
    };
  }

  #intoSamples() {
    return {
      append: (bytes) => this.#samples.append(bytes),
      end: (whole) => {
        this.#hold(URL.createObjectURL(whole()));
        this.#samples.end();
      },
    };
  }

  #hold(url) {
    if (url) {
      this.#element.src = url;
    } else {
      this.#element.removeAttribute("src");
      this.#element.load();
    }
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = url;
  }
}
