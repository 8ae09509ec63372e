// The microphone as a WAV file: raw samples, so that nothing is lost to a codec before a voice is learnt of it.

import { toPcm, wav } from "./wav.js";

export async function record(onLevel) {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  const context = new AudioContext();
  await context.audioWorklet.addModule("/page/capture.js");
  const source = context.createMediaStreamSource(stream);
  const capture = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
  const parts = [];
  let length = 0;
  capture.port.onmessage = ({ data }) => {
    parts.push(data);
    length += data.length;
    onLevel(Math.max(...data.map(Math.abs)), length / context.sampleRate);
  };
  source.connect(capture);
  return async () => {
    source.disconnect();
    stream.getTracks().forEach((track) => track.stop());
    const rate = context.sampleRate;
    await context.close();
    onLevel(0, length / rate);
    return wav(parts.map(toPcm), rate);
  };
}
