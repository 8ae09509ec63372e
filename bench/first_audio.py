"""How soon the kokoro engine is heard, for sentences of some twenty words that can be cut differently.

    python -m bench.first_audio [--voice amber]

The cloning benchmark times one sentence with nine voices; this times several with one, since the length of
the first phrase decides. The engine is called in this process, warm; the bus adds what `bench.bus` says.
"""

from __future__ import annotations

import statistics
import time

import click

from bench.bus import TEXT, Direct
from voicebus.workers.engine import Request

SENTENCES = (
    TEXT,
    "We walked along the river until the light was gone and then turned back towards the warm and quiet "
    "house there.",
    "The quick brown fox jumps over the lazy dog near the river bank while seven small birds watch it from "
    "above.",
    "My younger brother bought seventeen expensive electronic keyboards yesterday because somebody promised "
    "unbelievable discounts throughout every single shop downtown this week.",
)


@click.command()
@click.option("--voice", default="amber", show_default=True)
@click.option("--rounds", default=5, show_default=True)
def main(voice: str, rounds: int) -> None:
    """Print median and worst time to the first audio, and the real-time factor, of each sentence."""
    direct = Direct("kokoro", voice)
    for sentence in SENTENCES:
        taken = [direct.first_audio_s(sentence) for _ in range(rounds)]
        segments = direct.engine.segments(sentence, "en-us")
        begun, samples = time.perf_counter(), 0
        for segment in segments:
            for part in direct.engine.speak(Request(segment, "en-us"), direct.state):
                samples += len(part)
        factor = (time.perf_counter() - begun) * direct.engine.sample_rate / samples
        click.echo(
            f"first audio p50 {statistics.median(taken):.2f} s, worst {max(taken):.2f} s, "
            f"real-time factor {factor:.2f}: {segments[0]} | …"
        )


if __name__ == "__main__":
    main()
