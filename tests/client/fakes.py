"""A link that carries nothing: tests say what comes back."""

from __future__ import annotations

from collections import deque

from voicebus.client.task import Phase, Task
from voicebus.common.errors import BusError
from voicebus.common.messages import Done, Started

RATE_HZ = 8000


class FakeLink:
    def __init__(self) -> None:
        self.submitted: list[Task] = []
        self.calls: list[int] = []
        "How many tasks each call has handed over."
        self.cancelled: list[Task] = []
        self.left: list[Task] = []

    def submit(self, *tasks: Task) -> None:
        self.submitted += tasks
        self.calls.append(len(tasks))
        for task in tasks:
            if task.listening:
                task.heard = deque()

    def listen(self, task: Task) -> None:
        task.listening = True
        task.heard = deque(task.chunks)
        task.chunks = []

    def cancel(self, task: Task) -> None:
        self.cancelled.append(task)

    def leave(self, task: Task) -> None:
        self.left.append(task)


def started(task: Task, worker: str = "w") -> None:
    task.started = Started(worker, "tone", RATE_HZ)
    task.phase = Phase.SPEAKING


def chunk(task: Task, pcm: bytes) -> None:
    if task.heard is None:
        task.chunks.append(pcm)
    else:
        task.heard.append(pcm)


def end(task: Task, error: BusError | None = None) -> None:
    task.error = error
    task.done = Done(1, 1)
    task.phase = Phase.ENDED
