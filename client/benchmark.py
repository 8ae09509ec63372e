"""How fast a bus is for one client: what `vc bench` measures, on any engine and within a given time.

Three questions, one after the other. How long does the broker take to answer at all? How long does somebody
wait for a single sentence? And how much is spoken when the bus always has enough to do? A tally of each
is filled as the answers come, so that there is something to show whenever it is interrupted. Nothing is
printed or drawn here, and `look`, which may do so, is called only between two jobs or a few times a second:
the measuring must not be what is measured.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import zmq

from ..common import wire
from ..common.errors import BusError

if TYPE_CHECKING:
    from .speech import Result
    from .sync import Client

PING_LIMIT_S: Final = 2.0
"""How long one PING is waited for."""
PINGS_S: Final = 2.0
"""How long a broker is asked for PONGs at most."""
COLD_S: Final = 120.0
"""How long the first job is waited for: a model may have to be loaded for it, and a voice learned."""
SINGLES_SHARE: Final = 0.4
"""The part of the time after which no single job is begun."""
LOOK_EVERY_S: Final = 0.25
HOPELESS: Final = 3
"""So many single jobs that fail in a row are enough to know."""

Look = Callable[[int], None]
"""Told now and then how much of a part is done."""


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed; NaN if there are none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def codes(errors: Iterable[BusError]) -> dict[str, int]:
    """How many errors there are of each code."""
    return dict(sorted(Counter(error.code for error in errors).items()))


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is spoken, by whom."""

    text: str
    engine: str = ""
    voice: str = ""
    language: str = ""

    def arguments(self) -> dict[str, Any]:
        """For the client's verbs."""
        return {"engine": self.engine, "voice": self.voice, "language": self.language}


@dataclass
class Pings:
    """Round trips to one broker."""

    address: str
    spans_s: list[float] = field(default_factory=list[float])
    lost: int = 0

    def figures(self) -> dict[str, Any]:
        """For programs."""
        return {
            "broker": self.address,
            "answered": len(self.spans_s),
            "lost": self.lost,
            **_spread(self.spans_s),
        }


@dataclass
class Singles:
    """Jobs one at a time. The first one is apart: it may have found the engine cold."""

    cold_s: float = math.nan
    first_audio_s: list[float] = field(default_factory=list[float])
    whole_s: list[float] = field(default_factory=list[float])
    audio_s: list[float] = field(default_factory=list[float])
    errors: list[BusError] = field(default_factory=list[BusError])

    @property
    def done(self) -> int:
        """Jobs that were spoken, with the first."""
        return len(self.whole_s) + (not math.isnan(self.cold_s))

    def figures(self) -> dict[str, Any]:
        """For programs."""
        return {
            "jobs": self.done,
            "cold_first_audio_s": _plain(self.cold_s),
            "first_audio": _spread(self.first_audio_s),
            "whole": _spread(self.whole_s),
            "real_time_factor_p50": _plain(percentile(_quotients(self.whole_s, self.audio_s), 0.5)),
            "errors": codes(self.errors),
        }


@dataclass
class Batch:
    """Many jobs at once. `unfinished` were under way when the time was over."""

    window: int
    seconds: float = 0.0
    done: int = 0
    unfinished: int = 0
    audio_s: float = 0.0
    stream_factors: list[float] = field(default_factory=list[float])
    "Of each job: its engine's time for a second of audio, where the engine told it."
    errors: list[BusError] = field(default_factory=list[BusError])

    @property
    def jobs_per_s(self) -> float:
        """Jobs spoken in a second."""
        return self.done / self.seconds if self.seconds else math.nan

    @property
    def audio_per_s(self) -> float:
        """Seconds of audio that a second brings, of all workers together."""
        return self.audio_s / self.seconds if self.seconds else math.nan

    def figures(self) -> dict[str, Any]:
        """For programs."""
        factors = self.stream_factors
        return {
            "window": self.window,
            "jobs": self.done,
            "unfinished": self.unfinished,
            "seconds": self.seconds,
            "jobs_per_s": _plain(self.jobs_per_s),
            "audio_s_per_s": _plain(self.audio_per_s),
            "stream_real_time_factor_p50": _plain(percentile(factors, 0.5)),
            "stream_real_time_factor_p95": _plain(percentile(factors, 0.95)),
            "errors": codes(self.errors),
        }


def ping(pings: Pings, times: int, until: float, look: Look) -> None:
    """PING a broker over a connection of its own, one at a time, and wait for each PONG."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    try:
        socket.connect(pings.address)
        clock = _Clock(look)
        # The first one pays for the connection.
        _ping_s(socket, 0)
        for number in range(1, times + 1):
            if monotonic() >= until:
                return
            span_s = _ping_s(socket, number)
            if span_s is None:
                pings.lost += 1
            else:
                pings.spans_s.append(span_s)
            clock.tick(number)
        look(times)
    finally:
        socket.close()
        context.term()


def _ping_s(socket: zmq.Socket[bytes], number: int) -> float | None:
    begun = monotonic()
    socket.send(wire.pack_envelope(wire.PING, sequence=number))
    while (left_s := begun + PING_LIMIT_S - monotonic()) > 0:
        if socket.poll(math.ceil(left_s * 1000)):
            kind, _, _, _, sequence, _ = wire.unpack_envelope(socket.recv_multipart()[0])
            if kind == wire.PONG and sequence == number:
                return monotonic() - begun
    return None


def one_at_a_time(
    bus: Client, wishes: Wishes, singles: Singles, jobs: int, until: float, end: float, look: Look
) -> None:
    """Speak and listen, and begin the next one when nothing is left to hear.

    None is begun after `until`, and none is listened to after `end`.
    """
    in_vain = 0
    clock = _Clock(look)
    while singles.done < jobs and in_vain < HOPELESS and monotonic() < until:
        begun = monotonic()
        first_s, audio_s = math.nan, 0.0
        try:
            for chunk in bus.stream(
                wishes.text, lane="interactive", deadline_s=max(0.001, end - begun), **wishes.arguments()
            ):
                if math.isnan(first_s):
                    first_s = monotonic() - begun
                audio_s += chunk.duration_s
        except BusError as error:
            in_vain += 1
            singles.errors.append(error)
            continue
        in_vain = 0
        if math.isnan(singles.cold_s):
            singles.cold_s = first_s
        else:
            singles.first_audio_s.append(first_s)
            singles.whole_s.append(monotonic() - begun)
            singles.audio_s.append(audio_s)
        clock.tick(singles.done)
    look(singles.done)


def all_at_once(bus: Client, wishes: Wishes, batch: Batch, jobs: int, until: float, look: Look) -> None:
    """Keep a window of jobs under way. At the end the client is closed, which cancels what is left."""
    begun = monotonic()

    def lines() -> Iterator[str]:
        for _ in range(jobs):
            if monotonic() >= until:
                return
            yield wishes.text

    over = threading.Timer(max(0.0, until - begun), bus.close)
    over.daemon = True
    over.start()
    clock = _Clock(look)
    results = bus.map(lines(), window=batch.window, lane="batch", in_order=False, **wishes.arguments())
    try:
        for result in results:
            now = monotonic()
            if result.error is not None and now >= until:
                batch.unfinished += 1
                continue
            batch.seconds = min(now, until) - begun
            _enter(batch, result)
            clock.tick(batch.done + len(batch.errors))
        look(batch.done + len(batch.errors))
    except BusError:
        if monotonic() < until:  # else a line was begun in the instant of the closing
            raise
    finally:
        over.cancel()


def _enter(batch: Batch, result: Result) -> None:
    speech = result.speech
    if speech is None:
        if result.error is not None:
            batch.errors.append(result.error)
        return
    batch.done += 1
    batch.audio_s += speech.duration_s
    if speech.engine_s and speech.duration_s:
        batch.stream_factors.append(speech.engine_s / speech.duration_s)


class _Clock:
    """Looks now and then."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._next_at = 0.0

    def tick(self, done: int) -> None:
        now = monotonic()
        if now >= self._next_at:
            self._next_at = now + LOOK_EVERY_S
            self._look(done)


def _quotients(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True) if b]


def _spread(spans_s: Sequence[float]) -> dict[str, float | None]:
    return {f"p{share}_s": _plain(percentile(spans_s, share / 100)) for share in (50, 95, 99)}


def _plain(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value
