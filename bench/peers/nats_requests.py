"""NATS, request-reply: one nats-server, one connection each for client and worker.

Two clients. `nats` asks as nats-py documents it: `request`, a coroutine for each place in the window; the
replies come by the inbox that nats-py shares between requests. `nats-inbox` is the fastest that could be
written over the same library: it publishes with an inbox of its own and has one callback for all replies,
so that no future is made for a request. It is what a thin client of ours is to be held against. uvloop
makes both faster.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from ..processes import free_port, wait_listening
from .install import Place
from .load import ANSWER_S, Tally, in_tasks, play, take
from .plan import Assignment, answer_of, number_of
from .systems import READY, START_S, Started, System, end_command, run, run_end

SUBJECT = "speak"


def worker(address: str) -> None:
    """Answer every message as it comes."""
    import nats
    import uvloop

    async def serve() -> None:
        connection = await nats.connect(address)

        async def speak(message: Any) -> None:
            await message.respond(answer_of(message.data))

        await connection.subscribe(SUBJECT, queue="workers", cb=speak)
        await connection.flush()
        print(READY, flush=True)
        await asyncio.Event().wait()

    uvloop.run(serve())


def client(assignment: str) -> None:
    """The client process."""
    import nats
    import uvloop

    given = Assignment.from_json(assignment)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        connection = runner.run(nats.connect(given.address))

        async def ask(text: bytes) -> bytes:
            return (await connection.request(SUBJECT, text, timeout=ANSWER_S)).data

        take(given, lambda tally: runner.run(in_tasks(ask, tally)))
        runner.run(connection.close())


def inbox_client(assignment: str) -> None:
    """The client process that has one callback for everything."""
    import nats
    import uvloop

    given = Assignment.from_json(assignment)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        connection = runner.run(nats.connect(given.address))
        take(given, lambda tally: runner.run(_over_inbox(connection, tally)))
        runner.run(connection.close())


async def _over_inbox(connection: Any, tally: Tally) -> None:
    inbox = connection.new_inbox()
    over = asyncio.Event()

    async def ask() -> None:
        _, text = tally.request()
        await connection.publish(SUBJECT, text, reply=inbox)

    async def heard(message: Any) -> None:
        tally.answered(number_of(message.data), message.data)
        if tally.open:
            await ask()
        elif not tally.waiting:
            over.set()

    subscription = await connection.subscribe(inbox, cb=heard)
    for _ in range(tally.phase.window):
        await ask()
    try:
        async with asyncio.timeout(tally.phase.seconds + ANSWER_S):
            await over.wait()
    except TimeoutError:
        tally.lost("no answer")
    await subscription.unsubscribe()


def _start(stack: ExitStack, place: Place, *, role: str) -> Started:
    """Server, then worker."""
    port = free_port()
    address = f"nats://127.0.0.1:{port}"
    server = run(
        stack,
        [place.server("nats-server"), "--addr", "127.0.0.1", "--port", str(port)],
        environ=place.environ,
    )
    wait_listening(port, START_S)
    end = run_end(stack, end_command(place.python, "nats_requests", "worker", address))
    return Started(end_command(place.python, "nats_requests", role), address, [server.pid], [end.pid])


PACKAGES: Final = ("nats-py", "uvloop")

SYSTEMS: Final = (
    System(
        "nats",
        "request-reply as nats-py documents it",
        partial(_start, role="client"),
        python=PACKAGES,
        debian=("nats-server",),
        quick=True,
    ),
    System(
        "nats-inbox",
        "the same, publishing with one inbox and one callback",
        partial(_start, role="inbox"),
        python=PACKAGES,
        debian=("nats-server",),
    ),
)

if __name__ == "__main__":
    play({"worker": worker, "client": client, "inbox": inbox_client})
