"""Many lines by all workers at once, in order, with the failures among them.

python examples/batch.py lines.txt out --voice amber
"""

from __future__ import annotations

import argparse
from pathlib import Path

from voicebus.client import Client


def main() -> None:
    """Speak each line of a file to a numbered WAV."""
    parser = argparse.ArgumentParser(description="Speak every line of a file.")
    parser.add_argument("lines", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--voice", default="")
    parser.add_argument("--engine", default="")
    parser.add_argument("--broker", default="tcp://127.0.0.1:5555")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with Client(arguments.broker) as bus, arguments.lines.open(encoding="utf-8") as lines:
        # The file is read as results come, so it may be of any length.
        texts = (line.strip() for line in lines if line.strip())
        for result in bus.map(texts, voice=arguments.voice, engine=arguments.engine):
            if result.speech is None:
                print(f"{result.index}: {result.error}")
                continue
            result.speech.save(arguments.folder / f"{result.index:05d}.wav")
            print(f"{result.index}: {result.speech.duration_s:.2f} s by {result.speech.worker}")


if __name__ == "__main__":
    main()
