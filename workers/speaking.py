"""Jobs spoken one after the other, with an engine that takes one segment at a time."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic

from .actions import Frames
from .attempt import Attempt, Host
from .engine import Samples, StateT


class Speaker(Generic[StateT]):
    """Speaks jobs with one engine, one at a time."""

    def __init__(self, host: Host[StateT]) -> None:
        self._host = host

    def run(self, frames: Frames) -> None:
        """Answer one JOB completely. Never raises for what the job or the engine did."""
        attempt = Attempt(self._host, frames)
        try:
            attempt.begin()
            while not attempt.is_over:
                attempt.check()
                self._segment(attempt)
            attempt.finish()
        except BaseException as error:  # a panic in Rust is no `Exception`; Ctrl-C never comes here
            attempt.fail(error)

    def _segment(self, attempt: Attempt[StateT]) -> None:
        def timed(call: Callable[[], Any]) -> Any:
            began = time.perf_counter()
            try:
                return call()
            finally:
                attempt.engine_s += time.perf_counter() - began

        engine = self._host.engine
        iterator: Iterator[Samples] = iter(timed(lambda: engine.speak(attempt.request, attempt.state)))
        ended = False
        try:
            while not (ended or attempt.has_enough):
                samples = timed(lambda: next(iterator, None))
                if samples is None:
                    break
                ended = operator.length_hint(iterator, 1) == 0
                attempt.audio(samples, ended=ended)
        finally:
            close: Any = getattr(iterator, "close", None)
            if close is not None:
                close()
        attempt.end_segment()
