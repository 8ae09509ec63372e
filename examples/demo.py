"""The whole way in one file: start a bus, clone the shipped voice, write a WAV, print what it cost.

`make demo` runs this. It uses nothing but the public client API and the launcher behind `vc up`.
"""

from __future__ import annotations

from pathlib import Path

import click

from voicebus.client import Client
from voicebus.client.launch import Bus
from voicebus.common.errors import BusError

TEXT = (
    "Good morning, and welcome aboard. This voice was cloned a moment ago, on a bare processor, "
    "from a few seconds of speech."
)


@click.command()
@click.option("--text", default=TEXT, help="What to say.")
@click.option("--voice", default="amber", show_default=True)
@click.option("--engine", default="kokoro", show_default=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("out/demo.wav"), show_default=True
)
def main(text: str, voice: str, engine: str, output: Path) -> None:
    """Speak one text with a cloned voice over a bus of its own."""
    click.echo(f"starting a broker and a {engine} worker …")
    try:
        with Bus(engines={engine: 1}) as bus, Client(bus.frontend) as client:
            click.echo(f"enrolling the voice {voice} (once; the result is cached) …")
            client.say("Ready.", voice=voice, engine=engine)
            speech = client.say(text, voice=voice, engine=engine)
    except BusError as error:
        raise SystemExit(f"demo: {error}") from None
    output.parent.mkdir(parents=True, exist_ok=True)
    speech.save(output)
    click.echo(f"file                  {output}")
    click.echo(f"engine                {speech.engine}")
    click.echo(f"voice                 {voice}")
    click.echo(f"seconds of audio      {speech.duration_s:.2f}")
    click.echo(f"time to first audio   {speech.first_audio_s:.2f} s")
    click.echo(f"real-time factor      {speech.engine_s / speech.duration_s:.2f}")


if __name__ == "__main__":
    main()
