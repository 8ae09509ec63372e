"""The two servers of the HTTP shape: a FastAPI gateway that hands requests on to a FastAPI worker by httpx.

Run by the peers' interpreter: `python -m bench.peers.http_apps worker PORT`, or `… gateway PORT WORKER_PORT
CONNECTIONS`. uvicorn uses uvloop and httptools and logs nothing of a request; the gateway keeps its
connections to the worker, so many of them at most.
"""

# Its libraries stand in the peers' environment, where no type checker looks.
# pyright: reportUntypedBaseClass=none, reportUnknownParameterType=none

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel

from .plan import answer_of


class Speak(BaseModel):
    """The body of a request, as an API for speech has it."""

    text: str


def worker_app() -> FastAPI:
    """Answers with the bytes that the text asks for."""
    app = FastAPI()

    async def speak(body: Speak) -> Response:
        return Response(answer_of(body.text.encode()), media_type="audio/wav")

    app.post("/speak")(speak)
    return app


def gateway_app(worker_url: str, connections: int) -> FastAPI:
    """Hands on what it gets, with one client for all requests."""
    clients: list[httpx.AsyncClient] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        async with httpx.AsyncClient(
            base_url=worker_url, limits=limits, timeout=30, trust_env=False
        ) as client:
            clients.append(client)
            yield

    app = FastAPI(lifespan=lifespan)

    async def speak(body: Speak) -> Response:
        answer = await clients[0].post("/speak", json={"text": body.text})
        return Response(answer.content, answer.status_code, media_type=answer.headers["content-type"])

    app.post("/speak")(speak)
    return app


def main(role: str, port: str, *gateway: str) -> None:
    """Serve until SIGTERM."""
    if role == "worker":
        app = worker_app()
    else:
        worker_port, connections = gateway
        app = gateway_app(f"http://127.0.0.1:{worker_port}", int(connections))
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(port),
        log_level="warning",
        access_log=False,
        loop="uvloop",
        http="httptools",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
