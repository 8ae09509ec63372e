"""Jobs spoken together, with an engine that takes several segments at once.

A model that decodes speech step by step is limited by memory and not by arithmetic: eight rows take hardly
longer than one. So the jobs that are here are spoken in rounds, a segment of each at a time. Jobs join and
leave between rounds; a round waits a moment for those that may be on their way, never longer. What a row's
company does must not harm it: a batch that does not fit into memory is halved, one that fails for
another reason is spoken again row by row, so that only the row at fault ends.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, Protocol

from ..common.errors import BusError
from .actions import Frames
from .attempt import Attempt, Host
from .engine import Row, Samples, StateT, is_out_of_memory

log = logging.getLogger(__name__)

WAITING_PART: Final = 0.01
"""Of what a round takes, the most that is waited for company: on a GPU 10 ms are a tenth of a sentence."""
RECOVERY_ROUNDS: Final = 20
"""Full rounds in a row that fitted into memory, after which twice as many rows are tried again."""


class Inbox(Protocol):
    """Where jobs come from."""

    @property
    def leaving(self) -> bool:
        """Whether the agent wants this process to end."""
        ...

    def take(self, timeout_ms: int | None) -> Frames | None:
        """The next JOB; None when none came in time, or none is to come any more."""
        ...


class Choir(Generic[StateT]):
    """Speaks jobs with one engine, up to its `batch` of them together; waits at most `wait_s` for more."""

    def __init__(
        self, host: Host[StateT], inbox: Inbox, wait_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._host = host
        self._inbox = inbox
        self._wait_s = wait_s
        self._clock = clock
        self._attempts: deque[Attempt[StateT]] = deque()
        "In the order of their turns."
        self._shy: set[Attempt[StateT]] = set()
        "Those of a batch that failed, until each has spoken its segment alone."
        self._most = host.engine.batch
        self._fitted = 0
        self._round_s = math.inf
        self._changed = False
        "Whether a job has come or gone since the last wait: then others may be on their way."
        self.rounds = self.halved = 0

    @property
    def is_empty(self) -> bool:
        """Whether it has nothing to speak."""
        return not self._attempts

    @property
    def is_patient(self) -> bool:
        """Whether nobody waits for any of what it speaks."""
        return all(attempt.is_patient for attempt in self._attempts)

    def figures(self) -> dict[str, int | float]:
        """Rounds, and how often a batch did not fit into memory."""
        return {"rounds": self.rounds, "batches_halved": self.halved}

    # Joining.

    def gather(self) -> None:
        """Take the jobs that are here and, if there is room for more, those that come within the wait."""
        began, most_s = self._clock(), min(self._wait_s, WAITING_PART * self._round_s)
        while len(self._attempts) < self._host.engine.batch:
            wait_s = most_s if self._changed else 0.0
            left_ms = math.ceil(1000 * (wait_s - (self._clock() - began)))
            frames = self._inbox.take(max(0, left_ms))
            if frames is None:
                break
            self.add(frames)
        self._changed = False

    def add(self, frames: Frames) -> None:
        """Take a job in: it is announced, and its voice is learnt."""
        attempt = Attempt(self._host, frames)
        self._attempts.append(attempt)
        self._changed = True
        self._guarded(attempt, attempt.begin)
        self._finish_if_over(attempt)

    def dismiss(self, error: BusError) -> None:
        """Fail whatever is left."""
        while self._attempts:
            self._attempts.popleft().fail(error)

    # Speaking.

    def sing(self) -> None:
        """Speak one segment of each job that has its turn."""
        chosen = self._choose()
        rows = [Row(attempt.request, attempt.state) for attempt in chosen]
        open_rows = dict(enumerate(rows))
        began = self._clock()
        try:
            for place, samples in self._host.engine.speak_batch(rows):
                if place in open_rows:
                    self._hear(chosen[place], place, samples, open_rows)
                self._look(chosen, open_rows)
            for place in list(open_rows):  # what the engine has left open is over all the same
                self._hear(chosen[place], place, None, open_rows)
        except BaseException as error:
            self._broken(chosen, open_rows, error)
        else:
            self._fits(len(rows))
        finally:
            self.rounds += 1
            self._round_s = self._clock() - began
            share_s = self._round_s / len(rows)
            for attempt in chosen:
                attempt.engine_s += share_s
        for attempt in chosen:
            self._finish_if_over(attempt)

    def _choose(self) -> list[Attempt[StateT]]:
        shy = next((attempt for attempt in self._attempts if attempt in self._shy), None)
        if shy is not None:
            return [shy]
        chosen = [self._attempts[place] for place in range(min(self._most, len(self._attempts)))]
        self._attempts.rotate(-len(chosen))
        return chosen

    def _hear(
        self,
        attempt: Attempt[StateT],
        place: int,
        samples: Samples | None,
        open_rows: dict[int, Row[StateT]],
    ) -> None:
        if samples is None:
            del open_rows[place]
            self._shy.discard(attempt)
            self._guarded(attempt, attempt.end_segment)
        elif self._guarded(attempt, lambda: attempt.audio(samples)):
            open_rows[place].stopped = attempt.has_enough
        else:
            open_rows.pop(place).stopped = True

    def _look(self, chosen: Sequence[Attempt[StateT]], open_rows: dict[int, Row[StateT]]) -> None:
        """Let go of the rows whose jobs are to stop."""
        stopped = self._host.link.stopped([chosen[place].key for place in open_rows])
        for place in [place for place in open_rows if chosen[place].key in stopped]:
            self._guarded(chosen[place], chosen[place].check)
            open_rows.pop(place).stopped = True

    def _guarded(self, attempt: Attempt[StateT], call: Callable[[], None]) -> bool:
        """Do something with a job; what goes wrong ends it and no other. Return whether it goes on."""
        try:
            call()
        except BaseException as error:
            self._leave(attempt)
            attempt.fail(error)
            return False
        return True

    def _finish_if_over(self, attempt: Attempt[StateT]) -> None:
        if attempt in self._attempts and attempt.is_over:
            self._leave(attempt)
            attempt.finish()

    def _leave(self, attempt: Attempt[StateT]) -> None:
        self._attempts.remove(attempt)
        self._changed = True
        self._shy.discard(attempt)

    # When a batch breaks.

    def _broken(
        self, chosen: Sequence[Attempt[StateT]], open_rows: dict[int, Row[StateT]], error: BaseException
    ) -> None:
        """The call failed: whoever was alone, or was heard in part, ends with it; the others try again."""
        alone = len(chosen) == 1
        if is_out_of_memory(error) and not alone:
            self._most = max(1, len(chosen) // 2)
            self._fitted = 0
            self.halved += 1
            log.warning("%d rows do not fit into memory: going on with %d", len(chosen), self._most)
        elif not alone:
            log.warning("a batch of %d failed, its rows are spoken one by one: %r", len(chosen), error)
            self._shy |= {chosen[place] for place in open_rows}
        for place in open_rows:
            attempt = chosen[place]
            if alone or attempt.heard:
                self._leave(attempt)
                attempt.fail(error)
            else:
                attempt.begin_segment_anew()

    def _fits(self, rows: int) -> None:
        if self._most == self._host.engine.batch or rows < self._most:
            return
        self._fitted += 1
        if self._fitted >= RECOVERY_ROUNDS:
            self._most = min(2 * self._most, self._host.engine.batch)
            self._fitted = 0
