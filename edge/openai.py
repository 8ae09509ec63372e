"""OpenAI's speech API: the routes that its clients, and those made for it, already call.

Reference: OpenAI's API reference, "Create speech" and "List models"; the routes under /v1/audio are those
that Open WebUI reads. Beside OpenAI's own fields, a request may name a `language` and `options` of the
engine.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from aiohttp import web
from msgspec import Meta, Struct, field

from ..common.errors import (
    BadRequest,
    BrokerUnreachable,
    BusError,
    DeadlineExceeded,
    EngineError,
    ModelMissing,
    NoWorker,
    Overloaded,
    PoisonJob,
    TextTooLong,
    UnknownEngine,
    UnknownVoice,
    WorkerLost,
)
from . import fields
from .encoders import OPENAI_OUTPUTS
from .fields import Language, Speed, Text, VoiceName
from .reading import read_json
from .requests import CALLER, ID
from .respond import respond
from .routes import JSON, Answer, Route
from .service import Service, Wish
from .speaking import EVENT_STREAM, send, send_events

SPEAKING_ERRORS: Final[tuple[type[BusError], ...]] = (
    BadRequest,
    UnknownVoice,
    UnknownEngine,
    TextTooLong,
    EngineError,
    PoisonJob,
    ModelMissing,
    WorkerLost,
    Overloaded,
    NoWorker,
    BrokerUnreachable,
    DeadlineExceeded,
)


class VoiceRef(Struct, frozen=True):
    """A voice as an object."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]


class SpeechRequest(Struct, frozen=True):
    """What to say, in whose voice, in what form."""

    input: Text
    model: fields.Model = ""
    voice: VoiceName | VoiceRef = ""
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    speed: Speed | None = None
    stream_format: Literal["audio", "sse"] = "audio"
    instructions: (
        Annotated[str, Meta(max_length=4096, description="Taken and not followed: no engine here takes any.")]
        | None
    ) = None
    language: Language | None = None
    options: Annotated[
        dict[str, Any], Meta(description="Options of the engine, such as temperature or seed.")
    ] = field(default_factory=dict[str, Any])


class Model(Struct, frozen=True):
    """An engine, or a name of OpenAI's that means the default one."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "voicebus"


class Models(Struct, frozen=True):
    """What can be asked for as `model`."""

    data: list[Model]
    object: Literal["list"] = "list"


class AudioModels(Struct, frozen=True):
    """The same for those who look for speech alone."""

    models: list[Model]


class OpenAi:
    """The handlers."""

    def __init__(self, service: Service, default_models: tuple[str, ...]) -> None:
        self._service = service
        self._default_models = tuple(name for name in default_models if not {*"*?["} & {*name})

    def routes(self) -> tuple[Route, ...]:
        """What this module answers to."""
        audio = tuple(dict.fromkeys(output.media_type for output in OPENAI_OUTPUTS.values()))
        return (
            Route(
                "POST",
                "/v1/audio/speech",
                self.speech,
                "Speak a text",
                "Speech",
                (Answer("The audio, as it is spoken.", (*audio, EVENT_STREAM)),),
                SPEAKING_ERRORS,
                body=SpeechRequest,
                speaks=True,
                scope="speak",
            ),
            Route(
                "GET",
                "/v1/models",
                self.models,
                "List engines",
                "Speech",
                (Answer("All of them.", (JSON,), Models),),
                (BrokerUnreachable,),
            ),
            Route(
                "GET",
                "/v1/models/{model}",
                self.model,
                "Describe an engine",
                "Speech",
                (Answer("The engine.", (JSON,), Model),),
                (UnknownEngine, BrokerUnreachable),
            ),
            Route(
                "GET",
                "/v1/audio/models",
                self.audio_models,
                "List engines, for Open WebUI",
                "Speech",
                (Answer("All of them.", (JSON,), AudioModels),),
                (BrokerUnreachable,),
            ),
        )

    async def speech(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/audio/speech."""
        asked = await read_json(request, SpeechRequest)
        voice = asked.voice.id if isinstance(asked.voice, VoiceRef) else asked.voice
        wish = Wish(
            asked.input,
            voice,
            asked.model,
            asked.language or "",
            1.0 if asked.speed is None else asked.speed,
            request[CALLER],
            asked.options,
            request[ID],
        )
        heard = await self._service.begin(wish)
        way = send_events if asked.stream_format == "sse" else send
        return await way(request, heard, OPENAI_OUTPUTS[asked.response_format])

    async def models(self, request: web.Request) -> web.Response:
        """GET /v1/models."""
        return respond(Models(await self._all()))

    async def model(self, request: web.Request) -> web.Response:
        """GET /v1/models/{model}."""
        wanted = request.match_info["model"]
        for model in await self._all():
            if model.id == wanted:
                return respond(model)
        raise UnknownEngine(f"there is no model {wanted[:80]!r}: GET /v1/models lists them")

    async def audio_models(self, request: web.Request) -> web.Response:
        """GET /v1/audio/models."""
        return respond(AudioModels(await self._all()))

    async def _all(self) -> list[Model]:
        engines = [Model(name) for name in sorted(await self._service.engines())]
        return [*engines, *(Model(name, owned_by="openai") for name in self._default_models)]
