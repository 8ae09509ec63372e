"""Two texts at once in asyncio, each heard from its first chunk on.

python examples/stream_async.py --voice amber
"""

from __future__ import annotations

import argparse
import asyncio
import time

from voicebus.client import AsyncClient

TEXTS = {
    "first": "The harbour was quiet. A single boat came in. Nobody waited for it.",
    "second": "It rained all night. In the morning the street shone like glass.",
}


async def listen(bus: AsyncClient, name: str, text: str, voice: str, engine: str) -> float:
    """Take a stream as it comes; returns the seconds of audio."""
    begun_at = time.monotonic()
    heard_s = 0.0
    async for chunk in bus.stream(text, voice=voice, engine=engine):
        if not heard_s:
            print(f"{name}: first audio after {time.monotonic() - begun_at:.3f} s from {chunk.worker}")
        heard_s += chunk.duration_s  # a player would take bytes(chunk) or chunk.samples here
    print(f"{name}: {heard_s:.2f} s in all")
    return heard_s


async def main() -> None:
    """Read the command line and listen to both texts."""
    parser = argparse.ArgumentParser(description="Stream two texts at once.")
    parser.add_argument("--voice", default="")
    parser.add_argument("--engine", default="")
    parser.add_argument("--broker", default="tcp://127.0.0.1:5555")
    arguments = parser.parse_args()
    async with AsyncClient(arguments.broker) as bus:
        await asyncio.gather(
            *(listen(bus, name, text, arguments.voice, arguments.engine) for name, text in TEXTS.items())
        )


if __name__ == "__main__":
    asyncio.run(main())
