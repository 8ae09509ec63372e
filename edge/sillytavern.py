"""The routes of xtts-api-server, which SillyTavern and others call for a local XTTS.

Reference: daswer123/xtts-api-server's README and its `server.py`. A speaker is a voice here, by id or name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Annotated, Any, Final

from aiohttp import web
from msgspec import Meta, Struct

from ..common.errors import BrokerUnreachable, BusError
from .encoders import OPENAI_OUTPUTS
from .fields import Language, Text
from .openai import SPEAKING_ERRORS
from .reading import from_words, read_json
from .requests import CALLER, ID
from .respond import respond
from .routes import JSON, Answer, Route
from .service import Service, Wish
from .speaking import send

LANGUAGES: Final = {
    "Arabic": "ar",
    "Brazilian Portuguese": "pt",
    "Chinese": "zh-cn",
    "Czech": "cs",
    "Dutch": "nl",
    "English": "en",
    "French": "fr",
    "German": "de",
    "Hindi": "hi",
    "Hungarian": "hu",
    "Italian": "it",
    "Japanese": "ja",
    "Korean": "ko",
    "Polish": "pl",
    "Russian": "ru",
    "Spanish": "es",
    "Turkish": "tr",
}


Slider = float | Annotated[str, Meta(pattern=r"^-?[0-9]+(\.[0-9]+)?$")]
"""A number, or one as SillyTavern's sliders say it."""


class Line(Struct, frozen=True):
    """What to say, and as whom."""

    text: Text
    speaker_wav: Annotated[str, Meta(max_length=128)] = ""
    language: Language = ""


class TtsSettings(Struct, frozen=True):
    """What an XTTS can be set to. Set, it counts for all there; here only the request's own speed does."""

    speed: Slider = 1.0
    temperature: Slider = 0.75
    length_penalty: Slider = 1.0
    repetition_penalty: Slider = 5.0
    top_p: Slider = 0.85
    top_k: Slider = 50
    enable_text_splitting: bool = True
    stream_chunk_size: Slider = 100


class SillyTavern:
    """The handlers. Settings are taken and not kept: they would be one client's word for all."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> tuple[Route, ...]:
        """What this module answers to."""
        sound = (Answer("A WAV file.", ("audio/wav",)),)
        speaking = [
            Route(
                "POST",
                path,
                self.whole,
                "Speak a line",
                "SillyTavern",
                sound,
                SPEAKING_ERRORS,
                body=Line,
                speaks=True,
                scope="speak",
                described=path.endswith("/"),
            )
            for path in ("/tts_to_audio/", "/tts_to_audio")
        ] + [
            Route(
                "GET",
                path,
                self.streamed,
                "Speak a line, streamed",
                "SillyTavern",
                sound,
                SPEAKING_ERRORS,
                query=Line,
                speaks=True,
                scope="speak",
                described=not path.endswith("/"),
            )
            for path in ("/tts_stream", "/tts_stream/")
        ]
        return (
            *speaking,
            _listing("/speakers_list", self.names, "List speakers' names", list[str]),
            _listing("/speakers", self.speakers, "List speakers", list[dict[str, str]]),
            _listing(
                "/languages",
                self.languages,
                "List languages",
                dict[str, dict[str, str]],
                (BrokerUnreachable,),
            ),
            Route(
                "POST",
                "/set_tts_settings",
                self.settings,
                "Take settings",
                "SillyTavern",
                (Answer("Taken, and not followed.", (JSON,), dict[str, str]),),
                body=TtsSettings,
            ),
        )

    async def whole(self, request: web.Request) -> web.StreamResponse:
        """POST /tts_to_audio/."""
        return await self._speak(request, await read_json(request, Line))

    async def streamed(self, request: web.Request) -> web.StreamResponse:
        """GET /tts_stream."""
        return await self._speak(request, from_words(request.query, Line))

    async def _speak(self, request: web.Request, line: Line) -> web.StreamResponse:
        speaker = line.speaker_wav.removesuffix(".wav")
        caller, id = request[CALLER], request[ID]
        wish = Wish(line.text, speaker, language=line.language, caller=caller, request=id)
        return await send(request, await self._service.begin(wish), OPENAI_OUTPUTS["wav"])

    async def names(self, request: web.Request) -> web.Response:
        """GET /speakers_list."""
        return respond([voice.id for voice in await asyncio.to_thread(self._service.store.list)])

    async def speakers(self, request: web.Request) -> web.Response:
        """GET /speakers."""
        found = await asyncio.to_thread(self._service.store.list)
        return respond(
            [
                {
                    "name": voice.name,
                    "voice_id": voice.id,
                    "preview_url": str(request.url.with_path(f"/v1/audio/voices/{voice.id}/sample")),
                }
                for voice in found
            ]
        )

    async def languages(self, request: web.Request) -> web.Response:
        """GET /languages: of those that these clients know, what some engine here speaks."""
        engines = (await self._service.engines()).values()
        spoken = [tag for engine in engines for tag in engine.get("languages") or ()]
        return respond({"languages": named(spoken)})

    async def settings(self, request: web.Request) -> web.Response:
        """POST /set_tts_settings."""
        await read_json(request, TtsSettings)
        return respond({"message": "taken, and not followed: settings hold for one request here"})


def named(tags: Iterable[str]) -> dict[str, str]:
    """Those of an XTTS's languages that are among these, by the names it gives them."""
    spoken = {tag.partition("-")[0] for tag in tags}
    return {name: tag for name, tag in LANGUAGES.items() if tag.partition("-")[0] in spoken}


def _listing(
    path: str, handler: Any, about: str, kind: Any, errors: tuple[type[BusError], ...] = ()
) -> Route:
    return Route("GET", path, handler, about, "SillyTavern", (Answer(f"{about}.", (JSON,), kind),), errors)
