"""How jobs end that the bus did not end: the client's own errors, each a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..common import wire
from ..common.errors import (
    BrokerUnreachable,
    BusError,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    ProtocolError,
    WorkerLost,
)
from ..common.signs import cut_short
from .brokers import Line
from .task import Task

OFTEN: Final = 2
"""Handshakes that broke off, in a row, are no accident any more."""


def cancelled() -> BusError:
    """The caller no longer wants the job."""
    return Cancelled("the job was cancelled by its client")


def left_behind(task: Task) -> BusError:
    """The caller no longer waits for a job that outlives it."""
    if task.home < 0 and task.kind == wire.SUBMIT:
        return Cancelled("the client was closed before a broker had promised the job: it may not be spoken")
    return Cancelled(f"the client was closed; job {task.job.hex()} goes on: fetch it by its id")


def in_use() -> BusError:
    """Another task of this client is about another job under this id."""
    return Conflict("this job id is in use for another text or voice")


def out_of_sight(task: Task, lines: Sequence[Line]) -> BusError:
    """Those who answer do not know the job, and not all answer."""
    silent_ones = ", ".join(line.address for line in lines if not task.tried >> line.number & 1)
    return BrokerUnreachable(
        f"no broker that answers knows the job, and {silent_ones} does not answer: try again when it is back"
    )


def unfinished(line: Line) -> BusError:
    """The peer lives, has the result, and does not send it."""
    return ProtocolError(f"the broker at {line.address} does not send the whole result, however often asked")


def nobody(lines: Sequence[Line]) -> BusError:
    """No broker has answered for the connect timeout."""
    for line in lines:
        if line.refusal is not None:
            return line.refusal
        if line.cut_short >= OFTEN:
            return BrokerUnreachable(cut_short(line.address))
    addresses = ", ".join(line.address for line in lines)
    return BrokerUnreachable(
        f"no broker answers at {addresses}: start one with `vc up`, or name its address with --broker"
    )


def silent(line: Line) -> BusError:
    """The peer lives but never accepts the job."""
    return BrokerUnreachable(f"the broker at {line.address} takes no jobs: is it a voicebus broker?")


def left(line: Line) -> BusError:
    """The broker went away while somebody listened."""
    return BrokerUnreachable(
        f"the broker at {line.address} went away in the middle of the audio: say it again"
    )


def late(task: Task, line: Line) -> BusError:
    """The deadline passed without the broker's own word."""
    if task.kind == wire.ADMIN:
        return BrokerUnreachable(f"the broker at {line.address} did not answer in time: try again")
    return DeadlineExceeded("the job did not finish within its deadline: give it more time with deadline_s")


def spoken_again() -> BusError:
    """A new attempt begins before what was heard already."""
    return WorkerLost("the worker vanished after part of the audio had been heard: say it again")


def torn(task: Task) -> BusError:
    """Audio is missing in between, and asking again does not help or is not possible."""
    if task.surfaced:
        return WorkerLost("part of the audio was lost on its way: say it again")
    return ProtocolError("the broker's audio has gaps, however often the job is sent")
