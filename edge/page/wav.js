// 16-bit mono WAV files of what this page has recorded or received.

const HEADER = 44;

export function wav(data, rate) {
  const view = new DataView(new ArrayBuffer(HEADER));
  const word = (at, text) => [...text].forEach((letter, place) => view.setUint8(at + place, letter.charCodeAt(0)));
  const size = data.reduce((sum, part) => sum + part.byteLength, 0);
  word(0, "RIFF");
  view.setUint32(4, HEADER - 8 + size, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  word(36, "data");
  view.setUint32(40, size, true);
  return new Blob([view, ...data], { type: "audio/wav" });
}

// Samples of -1 to 1 as little-endian 16-bit integers.
export function toPcm(samples) {
  const view = new DataView(new ArrayBuffer(2 * samples.length));
  samples.forEach((sample, at) => view.setInt16(2 * at, Math.max(-1, Math.min(1, sample)) * 32767, true));
  return view;
}

export function fromPcm(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Float32Array.from({ length: bytes.byteLength >> 1 }, (_, at) => view.getInt16(2 * at, true) / 32768);
}
