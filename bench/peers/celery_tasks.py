"""Celery with Redis as broker and as result backend.

The worker has the `solo` pool: one task at a time in the worker's own process, which was faster here than
one prefork child. Gossip, mingling and heartbeats between workers are off: there is one. The client keeps
the window full and waits for the oldest result, which is the next to come from one worker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final

from .install import Place
from .load import ANSWER_S, in_bursts, play, take
from .plan import Assignment
from .redis_lists import redis_server
from .systems import Started, System, end_command, run

REDIS: Final = "BENCH_CELERY_REDIS"
"""The environment variable that tells both ends their server."""
APP: Final = f"{__package__}.celery_app"
OPTIONS: Final = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR")


class Client:
    """Sends tasks and waits for the oldest."""

    def __init__(self) -> None:
        from .celery_app import speak

        self._speak = speak
        self._sent: deque[tuple[int, Any]] = deque()

    def ask(self, texts: Sequence[tuple[int, bytes]]) -> None:
        """Send tasks."""
        self._sent += [(number, self._speak.delay(text.decode())) for number, text in texts]

    def answers(self) -> list[tuple[int, bytes]]:
        """The oldest result."""
        from celery.exceptions import TimeoutError as CeleryTimeoutError

        number, result = self._sent.popleft()
        try:
            return [(number, result.get(timeout=ANSWER_S).encode())]
        except CeleryTimeoutError as error:
            raise TimeoutError("Celery brought no result") from error


def client(assignment: str) -> None:
    """The client process."""
    take(Assignment.from_json(assignment), in_bursts(Client()))


def start(stack: ExitStack, place: Place) -> Started:
    """Redis, then worker. The first task waits until the worker takes it."""
    port, server = redis_server(stack, place)
    environ = {REDIS: f"redis://127.0.0.1:{port}/0"}
    command = [place.python, "-m", "celery", "-A", APP, "worker", "--pool", "solo", *OPTIONS]
    worker = run(stack, command, environ=environ)
    return Started(
        end_command(place.python, "celery_tasks", "client"), "", [server], [worker.pid], environ=environ
    )


SYSTEM: Final = System(
    "celery", "on Redis, pool solo", start, python=("celery", "redis", "hiredis"), debian=("redis-server",)
)

if __name__ == "__main__":
    play({"client": client})
