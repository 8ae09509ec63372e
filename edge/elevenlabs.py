"""ElevenLabs's text-to-speech routes, for programs that know no other.

Reference: ElevenLabs's API reference, "Create speech", "Stream speech" and "List voices". Their
`output_format` names codec, rate and bit rate in one word. Voice settings that mean nothing to an engine
here are taken and not followed, except for speed. `elevenlabs_socket.py` has the WebSocket.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, Literal

from aiohttp import web
from msgspec import Meta, Struct

from .encoders import Output, named_output
from .fields import Language, Model, Speed, Text
from .openai import SPEAKING_ERRORS
from .reading import from_words, read_json
from .requests import CALLER, ID
from .respond import respond
from .routes import JSON, Answer, Route
from .service import Service, Wish
from .speaking import send

Format = Literal[
    "mp3_22050_32",
    "mp3_24000_48",
    "mp3_44100_32",
    "mp3_44100_64",
    "mp3_44100_96",
    "mp3_44100_128",
    "mp3_44100_192",
    "pcm_8000",
    "pcm_16000",
    "pcm_22050",
    "pcm_24000",
    "pcm_32000",
    "pcm_44100",
    "pcm_48000",
    "wav_8000",
    "wav_16000",
    "wav_22050",
    "wav_24000",
    "wav_32000",
    "wav_44100",
    "wav_48000",
    "opus_48000_32",
    "opus_48000_64",
    "opus_48000_96",
    "opus_48000_128",
    "opus_48000_192",
    "ulaw_8000",
    "alaw_8000",
]
MEDIA_TYPES: Final = (
    "audio/mpeg",
    "audio/pcm",
    "audio/ogg",
    "audio/wav",
    "audio/basic",
    "audio/x-alaw-basic",
)


class VoiceSettings(Struct, frozen=True):
    """How to speak."""

    speed: Speed | None = None
    stability: float | None = None
    similarity_boost: float | None = None
    style: float | None = None
    use_speaker_boost: bool | None = None

    @property
    def pace(self) -> float:
        """The factor."""
        return 1.0 if self.speed is None else self.speed


class TextToSpeech(Struct, frozen=True):
    """What to say."""

    text: Text
    model_id: Model = ""
    language_code: Language | None = None
    voice_settings: VoiceSettings | None = None
    seed: Annotated[int, Meta(ge=0, le=4_294_967_295)] | None = None
    previous_text: str | None = None
    next_text: str | None = None


class Asked(Struct, frozen=True):
    """The query."""

    output_format: Format = "mp3_44100_128"
    optimize_streaming_latency: int | None = None
    enable_logging: bool | None = None


class ElevenVoice(Struct, frozen=True):
    """A voice, as these clients read it."""

    voice_id: str
    name: str
    labels: dict[str, str]
    preview_url: str
    category: Literal["premade", "cloned"] = "cloned"


class ElevenVoices(Struct, frozen=True):
    """All of them."""

    voices: list[ElevenVoice]


def output_of(named: Format) -> Output:
    """A format by its name."""
    codec, rate, *bits = named.split("_")
    return named_output(codec, int(rate), 1000 * int(bits[0]) if bits else None)


class ElevenLabs:
    """The handlers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> tuple[Route, ...]:
        """What this module answers to."""
        audio = (Answer("The audio, as it is spoken.", MEDIA_TYPES),)
        speaking = tuple(
            Route(
                "POST",
                path,
                self.speak,
                about,
                "ElevenLabs",
                audio,
                SPEAKING_ERRORS,
                body=TextToSpeech,
                query=Asked,
                speaks=True,
                scope="speak",
                shape="elevenlabs",
            )
            for path, about in (
                ("/v1/text-to-speech/{voice_id}", "Speak a text"),
                ("/v1/text-to-speech/{voice_id}/stream", "Speak a text, streamed"),
            )
        )
        answer = Answer("All of them.", (JSON,), ElevenVoices)
        return (
            *speaking,
            Route(
                "GET", "/v1/voices", self.voices, "List voices", "ElevenLabs", (answer,), shape="elevenlabs"
            ),
        )

    async def speak(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/text-to-speech/{voice_id} and …/stream."""
        output = output_of(from_words(request.query, Asked).output_format)
        wish = await read_json(request, TextToSpeech)
        settings = wish.voice_settings or VoiceSettings()
        heard = await self._service.begin(
            Wish(
                wish.text,
                request.match_info["voice_id"],
                wish.model_id,
                wish.language_code or "",
                settings.pace,
                request[CALLER],
                {} if wish.seed is None else {"seed": wish.seed},
                request[ID],
            )
        )
        return await send(request, heard, output)

    async def voices(self, request: web.Request) -> web.Response:
        """GET /v1/voices."""
        found = await asyncio.to_thread(self._service.store.list)
        return respond(
            ElevenVoices(
                [
                    ElevenVoice(
                        voice.id,
                        voice.name,
                        {"language": voice.language},
                        f"/v1/audio/voices/{voice.id}/sample",
                        "premade" if voice.shipped else "cloned",
                    )
                    for voice in found
                ]
            )
        )
