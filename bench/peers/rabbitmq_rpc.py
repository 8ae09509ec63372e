"""RabbitMQ, remote procedure call: a queue of jobs and direct reply-to, the fast way of its documentation.

Nothing is persisted or acknowledged, both of which would only cost. The server is the unpacked Debian
package: Erlang is told where it stands by a launcher of ours, since its own names the place it would be
installed at.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from ..processes import free_port, wait_listening
from .install import Place, SkippedError
from .load import ANSWER_S, in_bursts, play, take
from .plan import Assignment, answer_of, number_of
from .systems import READY, START_S, Started, System, end_command, family, run, run_end, scratch

QUEUE: Final = "jobs"
REPLIES: Final = "amq.rabbitmq.reply-to"
LAUNCHER: Final = """#!/bin/sh
export ROOTDIR='{erlang}' BINDIR='{programs}' EMU=beam PROGNAME=erl
exec '{programs}/erlexec' "$@"
"""


def _pika() -> Any:
    """Imported by name: its types come with the type checker, but not the package itself."""
    return import_module("pika")


def _channel(port: str) -> Any:
    pika = _pika()
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(port), heartbeat=0))
    return connection.channel()


def worker(port: str) -> None:
    """Answer every job to the address that it names."""
    pika = _pika()
    channel = _channel(port)
    channel.queue_declare(QUEUE)

    def speak(_: Any, __: Any, properties: Any, text: bytes) -> None:
        channel.basic_publish("", properties.reply_to, answer_of(text), pika.BasicProperties())

    channel.basic_consume(QUEUE, speak, auto_ack=True)
    print(READY, flush=True)
    channel.start_consuming()


class Client:
    """Publishes in bursts; replies are collected as they come."""

    def __init__(self, port: str) -> None:
        self._channel = _channel(port)
        self._connection = self._channel.connection
        self._properties = _pika().BasicProperties(reply_to=REPLIES)
        self._found: deque[bytes] = deque()
        self._channel.basic_consume(REPLIES, self._heard, auto_ack=True)

    def _heard(self, _: Any, __: Any, ___: Any, answer: bytes) -> None:
        self._found.append(answer)

    def ask(self, texts: Sequence[tuple[int, bytes]]) -> None:
        """Publish a burst."""
        for _, text in texts:
            self._channel.basic_publish("", QUEUE, text, self._properties)

    def answers(self) -> list[tuple[int, bytes]]:
        """What has come."""
        self._connection.process_data_events(ANSWER_S)
        if not self._found:
            raise TimeoutError("RabbitMQ brought no reply")
        found = [(number_of(answer), answer) for answer in self._found]
        self._found.clear()
        return found


def client(assignment: str) -> None:
    """The client process."""
    given = Assignment.from_json(assignment)
    take(given, in_bursts(Client(given.address)))


def _environ(place: Place, folder: Path, port: int, epmd_port: int) -> Mapping[str, str]:
    """What makes an unpacked RabbitMQ live in a folder and on ports of its own."""
    erlang = _only(place.debian / "usr/lib/erlang/erts-*/bin")
    launcher = folder / "bin" / "erl"
    launcher.parent.mkdir()
    launcher.write_text(LAUNCHER.format(erlang=erlang.parents[1], programs=erlang))
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)
    (folder / "plugins").write_text("[].")
    return {
        **place.environ,
        "PATH": os.pathsep.join([str(launcher.parent), str(erlang), os.environ.get("PATH", "")]),
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"bench{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
    }


def _only(pattern: Path) -> Path:
    """The one path that a pattern means. Raises `SkippedError`."""
    root = Path(pattern.anchor)
    found = sorted(root.glob(str(pattern.relative_to(root))))
    if not found:
        raise SkippedError(f"the unpacked packages have no {pattern}; an installed RabbitMQ is not used")
    return found[-1]


def start(stack: ExitStack, place: Place) -> Started:
    """Erlang's port mapper, server, worker. The mapper is started here, or Erlang would leave one behind."""
    folder, port, epmd_port = scratch(stack), free_port(), free_port()
    environ = _environ(place, folder, port, epmd_port)
    mapper = str(_only(place.debian / "usr/lib/erlang/erts-*/bin/epmd"))
    run(stack, [mapper, "-port", str(epmd_port), "-address", "127.0.0.1"], environ=environ)
    wait_listening(epmd_port, START_S)
    command = str(_only(place.debian / "usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"))
    server = run(stack, [command], environ=environ, group=True)
    wait_listening(port, START_S)
    end = run_end(stack, end_command(place.python, "rabbitmq_rpc", "worker", str(port)))
    return Started(
        end_command(place.python, "rabbitmq_rpc", "client"), str(port), family(server.pid), [end.pid]
    )


SYSTEM: Final = System(
    "rabbitmq",
    "direct reply-to, nothing persisted or acknowledged",
    start,
    python=("pika",),
    debian=("rabbitmq-server",),
)

if __name__ == "__main__":
    play({"worker": worker, "client": client})
