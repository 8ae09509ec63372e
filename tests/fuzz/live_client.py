"""A real client in a process of its own, told to speak all the time: what a hostile broker is tried on.

    python -m tests.fuzz.live_client ADDRESS [ADDRESS …]

It prints a line for each job, `ok` or the code of its error, and ends when its standard input does.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable

from voicebus.client import Client
from voicebus.common.errors import BusError

DEADLINE_S = 3.0
AT_ONCE = 12


def main() -> None:
    """See the module."""
    logging.basicConfig(level=logging.WARNING)
    ended = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    with Client(sys.argv[1:]) as client:
        print("client ready", flush=True)
        number = 0
        while not ended.is_set():
            number += 1
            jobs = [client.submit("Say this.", engine="evil", deadline_s=DEADLINE_S) for _ in range(AT_ONCE)]
            for job in jobs:
                _tell(lambda job=job: job.result())
            if number % 2:
                _tell(lambda: list(client.stream("Stream this.", engine="evil", deadline_s=DEADLINE_S)))
            else:
                _tell(client.status)


def _tell(ask: Callable[[], object]) -> None:
    try:
        ask()
        print("ok", flush=True)
    except BusError as error:
        print(error.code, flush=True)


if __name__ == "__main__":
    main()
