"""Jobs over HTTP: a book is handed over in one request, and fetched when it is spoken.

Reference for the shape: none of the services that clients know has one for speech; this is ours. A job
belongs to the tenant of the key that made it, and nobody else finds it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from aiohttp import web
from msgspec import Meta, Struct, field

from ..client.batch import Wishes
from ..client.batch_input import Line
from ..common.errors import (
    BrokerUnreachable,
    BusError,
    Conflict,
    Overloaded,
    StorageError,
    TextTooLong,
    UnknownJob,
    UnknownVoice,
)
from .fields import Language, Model, Speed, Text, VoiceName
from .jobs_audio import SoundFiles, wav_of, zip_of
from .parts import parts_of
from .reading import from_words, read_json
from .requests import CALLER
from .respond import respond
from .routes import JSON, Answer, Route

if TYPE_CHECKING:
    from ..common.config import Edge
    from .jobs import Work, Works
    from .limits import Limits
    from .service import Service

MAX_LINES: Final = 50_000


class JobLine(Struct, frozen=True):
    """One line, and whatever of its manner differs from the job's."""

    text: Text
    id: Annotated[str, Meta(max_length=128, description="Becomes part of its file's name.")] = ""
    voice: VoiceName | None = None
    model: Model | None = None
    language: Language | None = None
    speed: Speed | None = None


class NewJob(Struct, frozen=True):
    """What is to be spoken: one text of any length, or a list of lines."""

    input: Text | Annotated[list[JobLine | Text], Meta(min_length=1, max_length=MAX_LINES)]
    model: Model = ""
    voice: VoiceName = ""
    language: Language = ""
    speed: Speed = 1.0
    response_format: Annotated[
        Literal["wav", "flac", "mp3", "opus"], Meta(description="Of each line's file.")
    ] = "wav"
    options: dict[str, Any] = field(default_factory=dict[str, Any])


class JobShown(Struct, frozen=True):
    """How far a job is."""

    id: str
    state: Literal["running", "done", "failed", "cancelled"]
    created: float
    durable: bool
    total: int
    done: int
    failed: int
    audio_s: float
    errors: dict[str, int]
    "Lines that failed, by code."
    code: str = ""
    message: str = ""


class JobList(Struct, frozen=True):
    """The caller's jobs, the newest first."""

    jobs: list[JobShown]


class Listed(Struct, frozen=True):
    """The query of a list."""

    state: Literal["", "running", "done", "failed", "cancelled"] = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class Fetched(Struct, frozen=True):
    """The query of a job's sound."""

    format: Annotated[
        Literal["wav", "zip"],
        Meta(description="wav: all lines as one, in order; zip: a file for each, and the manifest."),
    ] = "wav"


def shown(work: Work) -> JobShown:
    """Without its texts."""
    tally = work.tally
    return JobShown(
        work.id,
        work.state,
        work.asked.created,
        work.asked.durable,
        tally.total,
        tally.kept + tally.done,
        tally.failed,
        round(tally.audio_s, 3),
        dict(tally.codes),
        "" if work.end is None else work.end.code,
        "" if work.end is None else work.end.message,
    )


class JobsApi:
    """The handlers."""

    def __init__(self, works: Works, service: Service, edge: Edge, limits: Limits) -> None:
        self._limits = limits
        self._works = works
        self._service = service
        self._edge = edge

    def routes(self) -> tuple[Route, ...]:
        """What this module answers to."""
        one = (Answer("The job.", (JSON,), JobShown),)
        return (
            Route(
                "POST",
                "/v1/jobs",
                self.add,
                "Hand over a job",
                "Jobs",
                (Answer("It is taken.", (JSON,), JobShown, 202),),
                (UnknownVoice, TextTooLong, Overloaded, StorageError, BrokerUnreachable),
                body=NewJob,
                scope="speak",
            ),
            Route(
                "GET",
                "/v1/jobs",
                self.list,
                "List jobs",
                "Jobs",
                (Answer("Jobs.", (JSON,), JobList),),
                query=Listed,
                scope="speak",
            ),
            Route(
                "GET",
                "/v1/jobs/{id}",
                self.show,
                "Describe a job",
                "Jobs",
                one,
                (UnknownJob,),
                scope="speak",
            ),
            Route(
                "DELETE",
                "/v1/jobs/{id}",
                self.cancel,
                "Cancel a job, or forget one that has ended",
                "Jobs",
                one,
                (UnknownJob,),
                scope="speak",
            ),
            Route(
                "GET",
                "/v1/jobs/{id}/audio",
                self.audio,
                "Fetch a job's sound",
                "Jobs",
                (Answer("One WAV file, or a ZIP file.", ("audio/wav", "application/zip")),),
                (UnknownJob, Conflict),
                query=Fetched,
                scope="speak",
                streams=True,
            ),
        )

    async def add(self, request: web.Request) -> web.Response:
        """POST /v1/jobs."""
        asked = await read_json(request, NewJob)
        lines = await self._lines(asked)
        wishes = Wishes(
            await self._service.voice(asked.voice),
            await self._service.engine(asked.model),
            asked.language,
            asked.speed,
            asked.options,
            asked.response_format,
        )
        durable = await self._service.takes_durable()
        caller = request[CALLER]
        characters = sum(len(line.text) for line in lines)
        await self._limits.pay(caller, characters)
        try:
            work = await asyncio.to_thread(self._works.begin, lines, wishes, caller.tenant, durable)
        except BusError:
            self._limits.give_back(caller, characters)
            raise
        return respond(shown(work), status=202)

    async def _lines(self, asked: NewJob) -> list[Line]:
        given: list[JobLine | str] = [*parts_of(asked.input)] if isinstance(asked.input, str) else asked.input
        lines: list[Line] = []
        for index, line in enumerate(given, 1):
            own = JobLine(line) if isinstance(line, str) else line
            if len(own.text) > self._edge.max_chars:
                raise TextTooLong(
                    f"line {index} has {len(own.text):,} characters, {self._edge.max_chars:,} are allowed: "
                    "cut it, or give the whole text as one string, which is then cut here"
                )
            lines.append(
                Line(
                    index,
                    own.text,
                    own.id,
                    None if own.voice is None else await self._service.voice(own.voice),
                    None if own.model is None else await self._service.engine(own.model),
                    own.language,
                    own.speed,
                )
            )
        return lines

    async def list(self, request: web.Request) -> web.Response:
        """GET /v1/jobs."""
        asked = from_words(request.query, Listed)
        works = [work for work in self._works.all(request[CALLER].tenant) if asked.state in ("", work.state)]
        return respond(JobList([shown(work) for work in works[: asked.limit]]))

    async def show(self, request: web.Request) -> web.Response:
        """GET /v1/jobs/{id}."""
        return respond(shown(self._of(request)))

    async def cancel(self, request: web.Request) -> web.Response:
        """DELETE /v1/jobs/{id}."""
        work = self._of(request)
        await asyncio.to_thread(self._works.cancel, work)
        return respond(shown(work))

    async def audio(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/jobs/{id}/audio."""
        asked = from_words(request.query, Fetched)
        work = self._of(request)
        if work.state == "running":
            raise Conflict("the job is still running: ask again when its state is done")
        files = await asyncio.to_thread(SoundFiles.of, work.folder)
        if not files.names:
            said = "" if work.end is None else work.end.message
            raise Conflict(f"the job has no sound: {said or 'none of its lines was spoken'}")
        way = wav_of if asked.format == "wav" else zip_of
        return await way(request, files, work.id)

    def _of(self, request: web.Request) -> Work:
        work = self._works.get(request.match_info["id"])
        if work.asked.tenant != request[CALLER].tenant:
            raise UnknownJob(f"there is no job {work.id!r}")
        return work
