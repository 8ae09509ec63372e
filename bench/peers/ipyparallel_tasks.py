"""ipyparallel: one engine behind its task scheduler, with the scheme `pure` (ZeroMQ's own) or `lru` (Python).

The controller keeps no database of results. The client has a window of tasks in a load-balanced view and
waits for the oldest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from ..processes import until
from .install import Place
from .load import ANSWER_S, in_bursts, play, take
from .plan import Assignment, answer_of
from .systems import START_S, Started, System, end_command, family, run, scratch

SCHEMES: Final = ("pure", "lru")


class Client:
    """Submits in bursts and waits for the oldest task."""

    def __init__(self, connection_file: str) -> None:
        import ipyparallel

        self._client: Any = ipyparallel.Client(connection_file, timeout=START_S)
        self._client.wait_for_engines(1, timeout=START_S, interactive=False)
        self._view: Any = self._client.load_balanced_view()
        self._sent: deque[tuple[int, Any]] = deque()

    def ask(self, texts: Sequence[tuple[int, bytes]]) -> None:
        """Submit tasks."""
        self._sent += [(number, self._view.apply_async(answer_of, text)) for number, text in texts]

    def answers(self) -> list[tuple[int, bytes]]:
        """The oldest task, and those that have ended with it; their records are dropped."""
        found: list[tuple[int, bytes]] = []
        while self._sent and (not found or self._sent[0][1].ready()):
            number, task = self._sent.popleft()
            found.append((number, task.get(timeout=ANSWER_S)))
            self._client.purge_local_results(task)
        return found


def client(assignment: str) -> None:
    """The client process."""
    given = Assignment.from_json(assignment)
    take(given, in_bursts(Client(given.address)))


def _start(stack: ExitStack, place: Place, *, scheme: str) -> Started:
    """Controller, then engine."""
    profile = scratch(stack)
    told = [f"--profile-dir={profile}", "--log-level=ERROR"]
    controller = run(
        stack,
        [
            *(place.python, "-m", "ipyparallel.controller", *told),
            *("--ip=127.0.0.1", "--nodb", f"--scheme={scheme}"),
        ],
        group=True,
    )
    for_engine, for_client = (
        Path(profile, "security", f"ipcontroller-{end}.json") for end in ("engine", "client")
    )
    until(lambda: for_engine.exists() and for_client.exists(), START_S, "ipyparallel's controller")
    engine = run(stack, [place.python, "-m", "ipyparallel.engine", *told, f"--file={for_engine}"], group=True)
    command = end_command(place.python, "ipyparallel_tasks", "client")
    return Started(command, str(for_client), family(controller.pid), family(engine.pid))


SYSTEMS: Final = tuple(
    System(
        f"ipyparallel-{scheme}",
        f"a task scheduler, scheme {scheme}",
        partial(_start, scheme=scheme),
        python=("ipyparallel", "pyzmq"),
    )
    for scheme in SCHEMES
)

if __name__ == "__main__":
    play({"client": client})
