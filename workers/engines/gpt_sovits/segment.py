"""Speaking one segment, as long as that takes: through restarts of the server, its traps and its moods.

A request is made again while nothing of its audio has left, for then nobody can tell. What nobody listens to
leaves only when it is whole, so it survives the server's death at any point; what somebody listens to leaves
as it comes, and if it breaks off after that the job is given back, to be resumed at this segment.

Two habits of api_v2 shape this. When its pipeline fails it answers 200 with a second of silence, so silence
is held back until there is a sound, and silence alone is an error. And a streamed answer that fails before
its first sound is 200 with nothing, whatever was wrong: asked again for a whole answer, the server says what
it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ....common.audio import StreamResampler
from ....common.errors import BusError, ConfigError, EngineError, Overloaded, WorkerLost
from ...engine import Request, Samples
from ...links import jittered
from .answers import RETRY_AFTER_S, BrokenOffError, NotPlacedError, ServerAwayError
from .languages import UNKNOWN, server_language
from .options import Value, checked, for_server
from .reference import Voice
from .server import Answer, Server
from .settings import Settings
from .shelf import Shelf

if TYPE_CHECKING:
    from ....common.audio import Pcm

log = logging.getLogger(__name__)

BACKOFF_BASE_S: Final = 0.1
BACKOFF_CAP_S: Final = 3.0
SILENCE_SAMPLES: Final = 16_000
"The silence by which the pipeline says that it failed: a second, at a rate that is not its own."
MOST_AT_LEAST_S: Final = 30.0
MOST_PER_CHARACTER_S: Final = 3.0
"How long a text may take to say, very generously: more than this is a server gone wrong."

Emit = Callable[[Samples], None]


@dataclass(slots=True)
class Figures:
    """What happened since the engine was loaded."""

    requests: int = 0
    retries: int = 0
    outages: int = 0
    broken_answers: int = 0
    silent_answers: int = 0


class Narrator:
    """Speaks segments through one server. `known` are the parameters that the server's version has."""

    def __init__(
        self,
        settings: Settings,
        server: Server,
        shelf: Shelf,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._server = server
        self._shelf = shelf
        self._clock = clock
        self._random = random
        self._languages = {server_language(tag) for tag in settings.languages}
        self.known: frozenset[str] | None = None
        self.figures = Figures()

    def parameters(self, request: Request) -> dict[str, Value]:
        """The request's generation parameters. Raises `BadRequest` for what does not fit."""
        return for_server(request, self._settings.defaults, self.known)

    def check_defaults(self) -> None:
        """Raise `ConfigError` for a default of the settings that this server's version does not have."""
        checked(self._settings.defaults, known=self.known, problem=ConfigError)

    async def speak(self, request: Request, voice: Voice, emit: Emit) -> None:
        """Speak a segment, giving its audio to `emit`.

        Raises `BadRequest` and `EngineError` as the server means it, `Overloaded` where it stays away and
        `WorkerLost` where it broke off after some audio had left.
        """
        body = self._body(request, voice)
        outage = Outage(self._settings.outage_s, self._clock)
        replace = replaced = False
        while True:
            try:
                await self._shelf.place(voice, again=replace)
                replace = False
                await self._once(body, request, emit)
            except NotPlacedError:
                if replaced:
                    raise
                log.warning("the server lost the reference %s: it is placed again", voice.file_name)
                replace = replaced = True
            except ServerAwayError as error:
                self.figures.retries += 1
                outage.note(error)
                was_there = await self._wait_for_server(outage)
                if was_there and isinstance(error, BrokenOffError) and body["streaming_mode"]:
                    # It lives and did not say what was wrong: in a whole answer it does.
                    body["streaming_mode"] = 0
            else:
                return

    async def reach(self, startup_s: float) -> None:
        """Wait for a server that is being started. Raises `EngineError` where it does not come in time."""
        outage = Outage(startup_s, self._clock)
        while True:
            try:
                self.known = await self._server.probe()
            except ServerAwayError as error:
                if not outage.failures:
                    log.info("waiting for the GPT-SoVITS server at %s: %s", self._server, error)
                outage.note(error)
                if outage.is_over:
                    raise EngineError(
                        f"no GPT-SoVITS server answers at {self._server} ({error}): start its api_v2.py, or"
                        " set api_url to where it is"
                    ) from error
                await self._pause(outage)
            else:
                return

    def _body(self, request: Request, voice: Voice) -> dict[str, Any]:
        language = server_language(voice.language)
        # What is said in a language that the server cannot read does not help it.
        readable = language in self._languages
        return {
            **self.parameters(request),
            "text": request.text,
            "text_lang": server_language(request.language) or UNKNOWN,
            "ref_audio_path": self._shelf.path(voice),
            "prompt_text": voice.text if readable else "",
            "prompt_lang": language if readable else UNKNOWN,
            "media_type": "wav",
            "streaming_mode": self._settings.streaming_mode if request.streamed else 0,
        }

    async def _once(self, body: dict[str, Any], request: Request, emit: Emit) -> None:
        """Make one request. `ServerAwayError` from here means that nothing has been given to `emit`."""
        self.figures.requests += 1
        most_s = (MOST_AT_LEAST_S + MOST_PER_CHARACTER_S * len(request.text)) / request.speed
        outlet = Outlet(self._settings.sample_rate, emit, holds=not request.streamed)
        try:
            async with self._server.ask(body, most_s) as answer:
                await _pass_on(answer, outlet)
        except BrokenOffError as error:
            self.figures.broken_answers += 1
            if body["streaming_mode"] and outlet.has_failed_aloud:
                self.figures.silent_answers += 1
                raise _silent() from error
            if outlet.has_given:
                raise WorkerLost(f"the GPT-SoVITS server broke off in the middle: {error}") from error
            raise
        if not outlet.has_sound:
            self.figures.silent_answers += 1
            raise _silent()
        outlet.finish()

    async def _wait_for_server(self, outage: Outage) -> bool:
        """Return when the server answers again: True if it did at once. Raises `Overloaded` if not."""
        at_once = True
        while True:
            if outage.is_over:
                raise self._gone(outage)
            if outage.failures > 1:
                await self._pause(outage)
            try:
                async with asyncio.timeout(outage.left_s):
                    self.known = await self._server.probe()
            except TimeoutError as error:
                raise self._gone(outage) from error
            except ServerAwayError as error:
                if at_once:
                    self.figures.outages += 1
                    log.warning("the GPT-SoVITS server at %s is away: %s", self._server, error)
                at_once = False
                outage.note(error)
            else:
                if not at_once:
                    log.info("the GPT-SoVITS server at %s is back", self._server)
                return at_once

    async def _pause(self, outage: Outage) -> None:
        wait_s = jittered(BACKOFF_BASE_S, BACKOFF_CAP_S, outage.failures, self._random)
        await asyncio.sleep(min(wait_s, max(0.0, outage.left_s)))

    def _gone(self, outage: Outage) -> BusError:
        return Overloaded(
            f"the GPT-SoVITS server cannot be reached ({outage.reason}): see whether it runs",
            retry_after_s=RETRY_AFTER_S,
        )


class Outage:
    """How long a server has been away for one segment. It begins with the first failure."""

    __slots__ = ("_clock", "_most_s", "_until", "failures", "reason")

    def __init__(self, most_s: float, clock: Callable[[], float]) -> None:
        self._most_s = most_s
        self._clock = clock
        self._until = 0.0
        self.failures = 0
        self.reason = ""

    def note(self, error: ServerAwayError) -> None:
        """It failed once more."""
        if not self.failures:
            self._until = self._clock() + self._most_s
        self.failures += 1
        self.reason = str(error)

    @property
    def left_s(self) -> float:
        """Seconds until patience ends, at most 0 when it has."""
        return self._until - self._clock()

    @property
    def is_over(self) -> bool:
        """Whether patience has ended."""
        return self.left_s <= 0


class Outlet:
    """Lets an answer's audio out at the engine's rate: nothing before a first sound, or all at the end."""

    def __init__(self, rate_hz: int, emit: Emit, *, holds: bool) -> None:
        self._rate_hz = rate_hz
        self._emit = emit
        self._holds = holds
        self._held: list[Pcm] = []
        self._resampler: StreamResampler | None = None
        self._silent_samples = 0
        "How much silence the answer has ended with, so far."
        self.has_sound = False
        self.has_given = False

    def feed(self, pcm: Pcm, rate_hz: int) -> None:
        """Take more of the answer."""
        if not pcm.size:
            return
        if self._resampler is None:
            self._resampler = StreamResampler(rate_hz, self._rate_hz)
        sounds = np.flatnonzero(pcm)
        self._silent_samples = (
            pcm.size - 1 - int(sounds[-1]) if sounds.size else self._silent_samples + pcm.size
        )
        self.has_sound = self.has_sound or bool(sounds.size)
        self._held.append(pcm)
        if self.has_sound and not self._holds:
            self._let_out()

    def finish(self) -> None:
        """The answer is whole: let all of it out."""
        self._let_out(last=True)

    @property
    def has_failed_aloud(self) -> bool:
        """Whether the answer, which ends here, ends with the pipeline's silence."""
        return self._silent_samples >= SILENCE_SAMPLES

    def _let_out(self, *, last: bool = False) -> None:
        if self._resampler is None:
            return
        samples = self._resampler.feed(np.concatenate([np.zeros(0, np.int16), *self._held]), last=last)
        self._held.clear()
        if samples.size:
            self.has_given = True
            self._emit(samples)


async def _pass_on(answer: Answer, outlet: Outlet) -> None:
    while (pcm := await answer.read()) is not None:
        outlet.feed(pcm, answer.rate_hz)


def _silent() -> EngineError:
    return EngineError(
        "the GPT-SoVITS server answered with silence, which is how it says that its pipeline failed: look"
        " into the server's log"
    )
