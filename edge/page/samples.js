// Bare samples, played by Web Audio as they come: for browsers whose <audio> takes no stream.

import { fromPcm } from "./wav.js";

const AHEAD_S = 0.02;

export class Samples {
  #context = new AudioContext();
  #rate;
  #changed;
  #at = 0;
  #odd = new Uint8Array(0);
  #waiting = 0;
  #whole = false;

  // Made while the browser still sees a press: it may refuse to sound otherwise. `changed` is called when it is over.
  constructor(rate, changed) {
    this.#rate = rate;
    this.#changed = changed;
    this.#context.resume().catch(() => {});
  }

  get live() {
    return this.#context !== null;
  }

  append(bytes) {
    if (!this.#context) return;
    const all = new Uint8Array(this.#odd.length + bytes.length);
    all.set(this.#odd);
    all.set(bytes, this.#odd.length);
    this.#odd = all.slice(all.length & ~1);
    const samples = fromPcm(all.subarray(0, all.length & ~1));
    if (!samples.length) return;
    const buffer = this.#context.createBuffer(1, samples.length, this.#rate);
    buffer.copyToChannel(samples, 0);
    const source = this.#context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.#context.destination);
    this.#waiting++;
    source.onended = () => {
      this.#waiting--;
      this.#closeIfHeard();
    };
    this.#at = Math.max(this.#at, this.#context.currentTime + AHEAD_S);
    source.start(this.#at);
    this.#at += buffer.duration;
  }

  // No more will come.
  end() {
    this.#whole = true;
    this.#closeIfHeard();
  }

  close() {
    const context = this.#context;
    this.#context = null;
    if (!context) return;
    context.close().catch(() => {});
    this.#changed();
  }

  #closeIfHeard() {
    if (this.#whole && !this.#waiting) this.close();
  }
}
