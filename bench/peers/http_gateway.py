"""An HTTP gateway before HTTP workers: FastAPI on uvicorn, httpx between, the shape most services begin with.

Two gateways. `http-gateway` leaves httpx its default of 100 connections, as nearly everybody does. Its pool
looks at every connection for every request, so `http-gateway-tuned` has eight of them, the best of 2 to 100
here. The client is aiohttp, with a kept connection for each place in the window, because httpx in its place
would be the limit before the gateway is; HTTP/1.1 has no other way to have 64 requests under way.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from ..processes import free_port, wait_listening
from .install import Place
from .load import ANSWER_S, in_tasks, play, take
from .plan import WINDOW, Assignment
from .systems import START_S, Started, System, end_command, run

HTTPX_CONNECTIONS: Final = 100
TUNED_CONNECTIONS: Final = 8


def client(assignment: str) -> None:
    """The client process."""
    import uvloop

    given = Assignment.from_json(assignment)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        session = runner.run(_session(given.address))

        async def ask(text: bytes) -> bytes:
            async with session.post("/speak", json={"text": text.decode()}) as answer:
                answer.raise_for_status()
                return await answer.read()

        take(given, lambda tally: runner.run(in_tasks(ask, tally)))
        runner.run(session.close())


async def _session(address: str) -> Any:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=WINDOW)
    return aiohttp.ClientSession(address, connector=connector, timeout=aiohttp.ClientTimeout(ANSWER_S))


def _start(stack: ExitStack, place: Place, *, connections: int) -> Started:
    """Worker, then gateway."""
    ports = free_port(), free_port()
    told = [str(ports[1]), str(ports[0]), str(connections)]
    worker = run(stack, end_command(place.python, "http_apps", "worker", str(ports[0])))
    gateway = run(stack, end_command(place.python, "http_apps", "gateway", *told))
    for port in ports:
        wait_listening(port, START_S)
    command = end_command(place.python, "http_gateway", "client")
    return Started(command, f"http://127.0.0.1:{ports[1]}", [gateway.pid], [worker.pid])


PACKAGES: Final = ("aiohttp", "fastapi", "httptools", "httpx", "sniffio", "uvicorn", "uvloop")

SYSTEMS: Final = (
    System(
        "http-gateway",
        "FastAPI gateway, httpx with its defaults, FastAPI worker",
        partial(_start, connections=HTTPX_CONNECTIONS),
        python=PACKAGES,
        quick=True,
    ),
    System(
        "http-gateway-tuned",
        "the same with eight connections to the worker",
        partial(_start, connections=TUNED_CONNECTIONS),
        python=PACKAGES,
    ),
)

if __name__ == "__main__":
    play({"client": client})
