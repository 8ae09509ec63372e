"""A client process under fire: speaks lines over the bus and writes down every answer it gets.

    python -m tests.chaos.talker BROKERS LOG NAME FIRST LAST

One line of the log an answer: index, code (or `done`) and the SHA-256 of the audio. A log is only appended
to, so it tells the truth about a process that was killed as well.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator


def text_of(name: str, index: int) -> str:
    """The line of this client with this number; long ones now and then."""
    sentence = f"{name} says line {index}, which is {index * 7919 % 10007} in a row."
    return " ".join([sentence] * (4 if index % 17 == 0 else 1))


def main() -> None:
    """Speak lines FIRST to LAST - 1."""
    from voicebus.client import Client

    brokers, log, name, first, last = sys.argv[1:6]
    lines: Iterator[dict[str, str]] = (
        {"text": text_of(name, index)} for index in range(int(first), int(last))
    )
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with Client(brokers, tenant=name, connect_timeout_s=60.0, heartbeat_interval_s=0.25) as client:
        for result in client.map(lines, voice="amber", engine="tone", window=48, in_order=False):
            speech = result.speech
            digest = hashlib.sha256(speech.samples.tobytes()).hexdigest() if speech is not None else "-"
            code = result.error.code if result.error is not None else "done"
            os.write(out, f"{int(first) + result.index} {code} {digest}\n".encode())
    print("talker ready to leave", flush=True)


if __name__ == "__main__":
    main()
