"""What the synchronous and the asynchronous client have in common: everything but the waiting.

A face turns a call into tasks (checked header, payload, deadline, sink) and tasks into speech. It knows the
bus's limits from one `status` a while, and needs them only for a text that might be above them.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Final, Self, cast

import msgspec

from ..common import wire
from ..common.errors import BadRequest, BrokerUnreachable, ConfigError, ProtocolError, error_from_code
from ..common.keyring import KeyFile, read_key
from ..common.messages import Admin, encode
from ..common.text import Piece, split
from .link import Link
from .request import Manner, Naming, Packer, job_bytes, merged, utterance
from .task import Sink, Task

logger = logging.getLogger(__name__)
DEFAULT_ADDRESS: Final = "tcp://127.0.0.1:5555"
ADMIN_TIMEOUT_S: Final = 10.0
LIMITS_FOR_S: Final = 30.0
SAFE_CHARS: Final = 70
"""Texts up to this length are within the limit of every engine known; longer ones ask the bus first."""
USUAL_MAX_CHARS: Final = 400
USUAL_WINDOW: Final = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """What a bus takes: most characters a job by engine, and how many jobs keep all workers busy."""

    default_engine: str = ""
    max_chars: Mapping[str, int] = field(default_factory=dict[str, int])
    slots: Mapping[str, int] = field(default_factory=dict[str, int])

    def chars(self, engine: str) -> int:
        """The limit of an engine; of the default one for an empty name."""
        return self.max_chars.get(engine or self.default_engine, USUAL_MAX_CHARS)

    def window(self, engine: str) -> int:
        """Jobs to have under way: what the engine's workers hold, at least the usual number."""
        return max(USUAL_WINDOW, self.slots.get(engine or self.default_engine, 0))


def limits_of(status: Mapping[str, Any]) -> Limits:
    """Read the limits out of a status; what a broker does not tell stays at the usual."""
    max_chars: dict[str, int] = {}
    slots: dict[str, int] = {}
    for name, engine in cast("dict[str, dict[str, Any]]", status.get("engines") or {}).items():
        limit, workers, places = engine.get("max_chars"), engine.get("workers"), engine.get("slots")
        if isinstance(limit, int) and limit > 0:
            max_chars[name] = limit
        if isinstance(workers, int) and isinstance(places, int):
            # A worker holds one job more than it has slots.
            slots[name] = workers + places
    return Limits(str(status.get("default_engine") or ""), max_chars, slots)


class Face:
    """Base of `Client` and `AsyncClient`.

    `broker` is an address, several separated by commas, or a sequence of addresses. `tenant` names whose
    share of the bus is used. `deadline_s` is the default for all calls; None leaves it to the broker.
    `connect_timeout_s` is how long nothing may answer before calls fail with `broker_unreachable`. `key` is
    what a broker with keys asks for: a file of `vc keys`, or what `read_key` made of one.

    Raises `BadRequest` for addresses that are none, `ConfigError` for a key that cannot be used.
    """

    def __init__(
        self,
        broker: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        tenant: str = "",
        deadline_s: float | None = None,
        connect_timeout_s: float = 5.0,
        heartbeat_interval_s: float = 1.0,
        key: str | os.PathLike[str] | KeyFile | None = None,
    ) -> None:
        self._addresses = addresses(broker)
        self._deadline_s = deadline_s
        self._connect_timeout_s = connect_timeout_s
        self._packer = Packer(tenant)
        self._origin: Face | None = None
        "Whose connection this is: dropped, it would close."
        self._limits = Limits()
        self._limits_until = -inf
        self._link = Link(
            self._addresses,
            key=key if key is None or isinstance(key, KeyFile) else read_key(key),
            interval_s=heartbeat_interval_s,
            connect_timeout_s=connect_timeout_s,
        )
        # A client that is dropped, or still open when the program ends, leaves as one that is closed.
        weakref.finalize(self, self._link.close)

    def as_tenant(self, tenant: str) -> Self:
        """This client for another tenant: the same connection, and another share of the bus.

        It is closed with this one, and needs no closing of its own.
        """
        other = copy(self)
        other._packer = Packer(tenant)
        other._origin = self
        return other

    # -- tasks --------------------------------------------------------------------------------------

    def _deadline(self, deadline_s: float | None) -> float:
        seconds = self._deadline_s if deadline_s is None else deadline_s
        if seconds is None:
            return inf
        if not 0 < seconds <= wire.MAX_BUDGET_MS / 1000:
            raise BadRequest(f"deadline_s must be above 0 and at most a day, not {seconds!r}")
        return monotonic() + seconds

    def _task(
        self,
        text: str,
        manner: Manner,
        sink: Sink | None,
        deadline: float,
        *,
        stream: bool = False,
        listening: bool = False,
        name: Callable[[bytes, bytes], bytes] | None = None,
    ) -> Task:
        payload = self._packer.payload(text)
        header = self._packer.header(manner, len(text))
        return Task(
            self._link.new_id() if name is None else name(header, payload),
            header,
            payload,
            sink=sink,
            deadline=deadline,
            flags=(wire.STREAM if stream else 0) | (wire.PATIENT if manner.lane == "batch" else 0),
            listening=listening,
            durable=manner.durable,
            # A job that was named may be known from before.
            seeks=name is not None,
        )

    def _admin(self, command: str, target: str, offset: int, sink: Sink, *, broker: int = -1) -> Task:
        """A question to any broker, or to the one with this number."""
        header = encode(Admin(command, target, offset))
        timeout_s = ADMIN_TIMEOUT_S if broker < 0 else self._connect_timeout_s
        return Task(
            self._link.new_id(),
            header,
            None,
            sink=sink,
            deadline=monotonic() + timeout_s,
            kind=wire.ADMIN,
            home=broker,
        )

    def _about(self, command: str, job: str, sink: Sink) -> Task:
        """A question about a job, to whichever broker knows it. Raises `BadRequest` for a bad id."""
        header = encode(Admin(command, job_bytes(job).hex()))
        deadline = monotonic() + ADMIN_TIMEOUT_S
        return Task(
            self._link.new_id(), header, None, sink=sink, deadline=deadline, kind=wire.ADMIN, seeks=True
        )

    def _left_out(self, silent: list[BrokerUnreachable], error: BrokerUnreachable) -> None:
        """A list goes on without this broker. Raises the error if no broker is left."""
        silent.append(error)
        if len(silent) == len(self._addresses):
            raise error
        logger.warning("%s; its jobs are not listed", error.message)

    # -- texts --------------------------------------------------------------------------------------

    def _must_ask(self, text: str | None) -> bool:
        """Whether the bus's limits matter for this text (None: for any) and are not known."""
        return (text is None or len(text) > SAFE_CHARS) and monotonic() >= self._limits_until

    def _learn(self, status: Mapping[str, Any]) -> None:
        self._limits = limits_of(status)
        self._limits_until = monotonic() + LIMITS_FOR_S

    def _pieces(self, text: str, manner: Manner) -> list[Piece]:
        """Cut a text to be heard: sentence by sentence. Raises `BadRequest` for an empty one."""
        pieces = split(text, language=manner.language, max_chars=self._limits.chars(manner.engine))
        if not pieces:
            self._packer.payload(text)
        return pieces

    def _line(
        self, item: Any, manner: Manner, sink: Sink, deadline_s: float | None, naming: Naming | None
    ) -> tuple[list[Task], list[Piece]]:
        """The tasks of one line of `map`: one, unless the line is above the engine's limit."""
        line = utterance(item)
        own = merged(manner, line)
        deadline = self._deadline(deadline_s)
        if len(line.text) <= self._limits.chars(own.engine):
            name = None if naming is None else partial(naming, item, 0)
            return [self._task(line.text, own, sink, deadline, name=name)], [Piece(line.text)]
        pieces = self._pieces(line.text, own)
        names = [None if naming is None else partial(naming, item, number) for number in range(len(pieces))]
        return [
            self._task(piece.spoken, own, sink, deadline, name=name)
            for piece, name in zip(pieces, names, strict=True)
        ], pieces

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(self._addresses)}>"


def addresses(broker: str | Sequence[str]) -> list[str]:
    """Read `a,b,c` or a sequence of such strings, without repeats. Raises `BadRequest` where none is left."""
    given = [broker] if isinstance(broker, str) else broker
    found = list(dict.fromkeys(part.strip() for text in given for part in text.split(",") if part.strip()))
    if not found:
        raise BadRequest(f"no broker's address was given: give one like {DEFAULT_ADDRESS}")
    return found


def dialled(endpoint: str) -> str:
    """The address at which clients of this machine reach what listens at `endpoint`."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    if not endpoint.startswith("tcp://"):
        return endpoint
    if port in ("*", "0"):
        raise ConfigError("the configured broker listens on any free port: say which with --broker")
    return f"tcp://127.0.0.1:{port}" if host in ("*", "0.0.0.0") else endpoint  # noqa: S104 - compared, not bound


def fetch_task(job: bytes, sink: Sink) -> Task:
    """The question for a job's result, whoever has submitted it."""
    return Task(job, b"", None, sink=sink, kind=wire.FETCH, seeks=True)


def asked_in_vain(task: Task) -> bool:
    """Whether a durable job's answer did not come for a reason that passes."""
    return task.error is not None and task.error.retryable and (task.home >= 0 or task.kind == wire.FETCH)


def answer_of(task: Task) -> tuple[dict[str, Any], int]:
    """The map and the next page's offset of an ADMIN answer, or its error raised."""
    if task.error is not None:
        raise task.error
    reply = task.reply
    if reply is None:
        raise BrokerUnreachable("the broker gave no answer: try again")
    if not reply.ok:
        raise error_from_code(reply.code or "bad_request", reply.message)
    try:
        body = msgspec.msgpack.decode(task.chunks[0] or b"\x80", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the broker's answer cannot be read: {error}") from None
    return body, reply.next_offset


def add_jobs(found: dict[str, dict[str, Any]], page: Mapping[str, Any]) -> None:
    """Add a page of a broker's jobs. Jobs that end between two pages may come twice."""
    for job in cast("list[dict[str, Any]]", page.get("jobs") or []):
        found.setdefault(str(job.get("id", "")), job)


def add_page(status: dict[str, Any], page: dict[str, Any]) -> None:
    """Join the pages of a status: lists and maps grow, the rest is as the first page says."""
    for key, value in page.items():
        known = status.get(key)
        if isinstance(value, list) and isinstance(known, list):
            status[key] += value
        elif isinstance(value, dict) and isinstance(known, dict):
            status[key] = value | known
        else:
            status.setdefault(key, value)
