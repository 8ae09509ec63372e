// The waveform of what was spoken, and how far it has been heard.

const BARS = 300;
const ROOM_PX = 3;

export async function shape(blob) {
  const context = new OfflineAudioContext(1, 1, 24000);
  const audio = await context.decodeAudioData(await blob.arrayBuffer());
  const samples = audio.getChannelData(0);
  const step = Math.max(1, Math.floor(samples.length / BARS));
  const peaks = Array.from({ length: Math.min(BARS, samples.length) }, (_, bar) => {
    let most = 0;
    for (let at = bar * step; at < Math.min(samples.length, (bar + 1) * step); at++) most = Math.max(most, Math.abs(samples[at]));
    return most;
  });
  return { peaks, seconds: audio.duration };
}

export function draw(canvas, bars, heard = 0) {
  const ratio = devicePixelRatio || 1;
  const width = (canvas.width = canvas.clientWidth * ratio);
  const height = (canvas.height = canvas.clientHeight * ratio);
  const paint = canvas.getContext("2d");
  if (!bars.length) return;
  const style = getComputedStyle(canvas);
  // As many bars as there is room for, the loudest as tall as the canvas.
  const count = Math.max(1, Math.min(bars.length, Math.floor(canvas.clientWidth / ROOM_PX)));
  const shown = Array.from({ length: count }, (_, bar) =>
    Math.max(0, ...bars.slice(Math.floor((bar * bars.length) / count), Math.floor(((bar + 1) * bars.length) / count))),
  );
  const loudest = Math.max(...shown) || 1;
  const wide = width / count;
  shown.forEach((peak, bar) => {
    paint.fillStyle = style.getPropertyValue(bar / count < heard ? "--accent" : "--quiet");
    const tall = Math.max(2 * ratio, (peak / loudest) * height);
    paint.fillRect(bar * wide, (height - tall) / 2, Math.max(1, wide * 0.7), tall);
  });
}
