"""A Ray actor: a Python object in a process of its own, called directly by the client, with nothing between.

So there is no middle to account. Small answers come inline, those of 200 KB through Ray's shared memory.
Ray is started by the client, as its users do, without dashboard; its own servers run beside, and cost start
and memory.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final

from .install import Place
from .load import ANSWER_S, in_bursts, play, take
from .plan import Assignment, answer_of
from .systems import Started, System, end_command, scratch

STORE_BYTES: Final = 256 * 1024 * 1024


class Client:
    """Calls in bursts, and takes the calls that have ended."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._called: dict[Any, int] = {}

    def ask(self, texts: Sequence[tuple[int, bytes]]) -> None:
        """Call the actor for each."""
        for number, text in texts:
            self._called[self._actor.speak.remote(text)] = number

    def answers(self) -> list[tuple[int, bytes]]:
        """Those that have ended; the actor answers in order."""
        import ray

        waiting = list(self._called)
        ended, _ = ray.wait(waiting[:1], timeout=ANSWER_S)
        if not ended:
            raise TimeoutError("the actor gave no answer")
        ended, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        return [(self._called.pop(call), answer) for call, answer in zip(ended, ray.get(ended), strict=True)]


def client(assignment: str) -> None:
    """The client process, which starts everything else."""
    import ray

    class Worker:
        """The actor."""

        def pid(self) -> int:
            """Its process."""
            return os.getpid()

        def speak(self, text: bytes) -> bytes:
            """Echo."""
            return answer_of(text)

    given = Assignment.from_json(assignment)
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=STORE_BYTES,
        _temp_dir=given.address,
    )
    actor: Any = ray.remote(Worker).remote()
    given = replace(given, worker=[ray.get(actor.pid.remote())])
    take(given, in_bursts(Client(actor)))
    ray.shutdown()


def start(stack: ExitStack, place: Place) -> Started:
    """Nothing but the folder for Ray's sockets; Ray calls home unless it is told not to."""
    environ = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "PYTHONWARNINGS": "ignore"}
    command = end_command(place.python, "ray_actor", "client")
    return Started(command, str(scratch(stack)), environ=environ)


SYSTEM: Final = System("ray", "an actor called directly, no middle", start, python=("ray",))

if __name__ == "__main__":
    play({"client": client})
