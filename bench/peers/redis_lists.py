"""Redis lists: jobs are pushed on one list and popped from it by the worker, answers go back on another.

Two ways. `redis` blocks for one element at a time with BRPOP, which is how lists are made queues of in
Redis' documentation; each end joins its push and its next pop in one pipeline, so that a job costs each end
one round trip. `redis-batched` takes what has come with BLMPOP (Redis 7) and pushes a burst with one LPUSH:
the fastest that could be written over the same server, and less like a queue of jobs: a worker takes them
all. redis-py parses with hiredis; nothing is persisted.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from ..processes import free_port, wait_listening
from .install import Place
from .load import ANSWER_S, in_bursts, play, take
from .plan import WINDOW, Assignment, answer_of, number_of
from .systems import READY, START_S, Started, System, end_command, run, run_end

JOBS: Final = "jobs"
ANSWERS: Final = "answers"
WAIT_S: Final = int(ANSWER_S)


def redis_at(port: str) -> Any:
    """A connection."""
    import redis

    return redis.Redis(port=int(port))


def redis_server(stack: ExitStack, place: Place) -> tuple[int, int]:
    """Start a server that keeps nothing on disk: its port and process id."""
    port = free_port()
    command = [place.server("redis-server"), "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    server = run(stack, [*command, "--appendonly", "no", "--daemonize", "no"], environ=place.environ)
    wait_listening(port, START_S)
    return port, server.pid


def worker(port: str) -> None:
    """One job at a time; its answer goes out together with the wish for the next."""
    connection = redis_at(port)
    print(READY, flush=True)
    job = None
    while True:
        pipeline = connection.pipeline(transaction=False)
        if job is not None:
            pipeline.lpush(ANSWERS, answer_of(job[1]))
        pipeline.brpop(JOBS, WAIT_S)
        job = pipeline.execute()[-1]


def batched_worker(port: str) -> None:
    """All that has come; all answers at once."""
    connection = redis_at(port)
    print(READY, flush=True)
    answers: list[bytes] = []
    while True:
        pipeline = connection.pipeline(transaction=False)
        if answers:
            pipeline.lpush(ANSWERS, *answers)
        pipeline.blmpop(WAIT_S, 1, JOBS, direction="RIGHT", count=WINDOW)
        found = pipeline.execute()[-1]
        answers = [answer_of(text) for text in found[1]] if found else []


class Client:
    """Pushes what it is asked to and pops what is there, in one pipeline."""

    def __init__(self, port: str, batched: bool) -> None:
        self._redis = redis_at(port)
        self._batched = batched
        self._unsent: list[bytes] = []

    def ask(self, texts: Sequence[tuple[int, bytes]]) -> None:
        """Keep texts for the next round trip."""
        self._unsent += [text for _, text in texts]

    def answers(self) -> list[tuple[int, bytes]]:
        """One round trip: what was kept is pushed, and an answer, or all of them, popped."""
        pipeline = self._redis.pipeline(transaction=False)
        if self._unsent:
            pipeline.lpush(JOBS, *self._unsent)
            self._unsent = []
        if self._batched:
            pipeline.blmpop(WAIT_S, 1, ANSWERS, direction="RIGHT", count=WINDOW)
        else:
            pipeline.brpop(ANSWERS, WAIT_S)
        found = pipeline.execute()[-1]
        if not found:
            raise TimeoutError("no answer on the list")
        texts = found[1] if self._batched else [found[1]]
        return [(number_of(answer), answer) for answer in texts]


def client(assignment: str) -> None:
    """The client process."""
    given = Assignment.from_json(assignment)
    take(given, in_bursts(Client(given.address, bool(given.options["batched"]))))


def _start(stack: ExitStack, place: Place, *, batched: bool) -> Started:
    """Server, then worker."""
    port, server = redis_server(stack, place)
    role = "batched-worker" if batched else "worker"
    end = run_end(stack, end_command(place.python, "redis_lists", role, str(port)))
    command = end_command(place.python, "redis_lists", "client")
    return Started(command, str(port), [server], [end.pid], {"batched": batched})


PACKAGES: Final = ("redis", "hiredis")

SYSTEMS: Final = (
    System(
        "redis",
        "lists, BRPOP and LPUSH, one pipeline a job",
        partial(_start, batched=False),
        python=PACKAGES,
        debian=("redis-server",),
        quick=True,
    ),
    System(
        "redis-batched",
        "lists, BLMPOP of all that is there and one LPUSH",
        partial(_start, batched=True),
        python=PACKAGES,
        debian=("redis-server",),
    ),
)

if __name__ == "__main__":
    play({"worker": worker, "batched-worker": batched_worker, "client": client})
