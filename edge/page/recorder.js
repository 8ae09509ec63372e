// The microphone as a WAV file: raw samples, so that nothing is lost to a codec before a voice is learnt of it.

import { toPcm, wav } from "./wav.js";

// Browsers hand out a microphone only over HTTPS, and on this machine itself.
export const canRecord = Boolean(navigator.mediaDevices?.getUserMedia);

export async function record(onLevel) {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  let context = null;
  const release = async () => {
    stream.getTracks().forEach((track) => track.stop());
    await context?.close();
  };
  try {
    context = new AudioContext();
    await context.audioWorklet.addModule("/page/capture.js");
    return capture(context, stream, onLevel, release);
  } catch (error) {
    // Nobody could stop it any more.
    await release().catch(() => {});
    throw error;
  }
}

// Returns what ends the recording.
function capture(context, stream, onLevel, release) {
  const source = context.createMediaStreamSource(stream);
  const pieces = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
  const parts = [];
  let length = 0;
  pieces.port.onmessage = ({ data }) => {
    parts.push(data);
    length += data.length;
    onLevel(Math.max(...data.map(Math.abs)), length / context.sampleRate);
  };
  source.connect(pieces);
  return async () => {
    const rate = context.sampleRate;
    source.disconnect();
    await release();
    onLevel(0, length / rate);
    return wav(parts.map(toPcm), rate);
  };
}
