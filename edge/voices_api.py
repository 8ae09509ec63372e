"""The voice store over HTTP: list, add with consent, hear and remove.

A recording is decoded in a process of its own with little memory and little time (`decoding.py`): what a
stranger sends is the one place where a codec's mistake would be theirs to use. Who adds and removes is
written down (`common/audit.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import tempfile
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from msgspec import Meta, Struct

from ..common.audio import encode
from ..common.audit import Actor
from ..common.errors import (
    BadRequest,
    BusError,
    Conflict,
    Forbidden,
    Overloaded,
    StorageError,
    UnknownVoice,
)
from .decoding import decode_apart
from .fields import Language
from .problems import BodyTooLarge, RequestTimeout
from .reading import from_words, want_type
from .requests import ADDRESS, CALLER
from .respond import respond
from .routes import JSON, Answer, Route

if TYPE_CHECKING:
    from ..common.audit import Audit
    from ..common.config import Edge
    from ..common.voices import Voice, VoiceStore

FORM_BYTES: Final = 256 * 1024
"""What a form may have beside its recording."""
MAX_PARTS: Final = 16
MAX_FIELD_BYTES: Final = 80_000
FIELDS: Final = ("name", "consent", "id", "language", "licence", "text")
UPLOAD_S: Final = 120.0
MAX_UPLOADS: Final = 16
"""At once: each is a file in the system's temporary folder, which may be memory, for as long as it comes."""
MAX_SAID: Final = 300
_NO_FORM: Final = (
    ValueError,
    LookupError,
    AssertionError,
    RuntimeError,
    HttpProcessingError,
    web.RequestPayloadError,
)
"""What aiohttp raises for a multipart body that is none: it checks some of it by assertions."""
_NOT_ID = re.compile(r"[^a-z0-9_-]+")


class VoiceShown(Struct, frozen=True):
    """A voice as everybody may see it."""

    id: str
    name: str
    language: str
    licence: str
    seconds: float
    created: str
    shipped: bool


class VoiceList(Struct, frozen=True):
    """All voices."""

    voices: list[VoiceShown]


class NewVoice(Struct, frozen=True):
    """A recording of somebody who agreed."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    audio_sample: Annotated[
        bytes, Meta(description="WAV, FLAC, MP3 or Ogg, of edge.max_sample_bytes at most.")
    ]
    consent: Annotated[
        str,
        Meta(min_length=1, max_length=2000, description="Whose voice it is, and how they agreed, in words."),
    ]
    id: Annotated[str, Meta(max_length=64, description="Default: made of the name.")] = ""
    language: Language = "en-us"
    licence: Annotated[str, Meta(max_length=200)] = "private"
    text: Annotated[str, Meta(max_length=20_000, description="What is said, word for word.")] = ""


def shown(voice: Voice) -> VoiceShown:
    """Without the words of consent, which may name people."""
    return VoiceShown(
        voice.id, voice.name, voice.language, voice.licence, voice.seconds, voice.created, voice.shipped
    )


def id_of(name: str) -> str:
    """An id made of a name in any script, different each time where the name has no letters for one."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    made = _NOT_ID.sub("-", plain).strip("-_")[:48]
    return made or f"voice-{secrets.token_hex(4)}"


class VoicesApi:
    """The handlers."""

    def __init__(self, store: VoiceStore, edge: Edge, audit: Audit) -> None:
        self._store = store
        self._audit = audit
        self._most_bytes = edge.max_sample_bytes
        self._uploads = 0

    def routes(self) -> tuple[Route, ...]:
        """What this module answers to."""
        one = (Answer("The voice.", (JSON,), VoiceShown),)
        return (
            Route(
                "GET",
                "/v1/audio/voices",
                self.list,
                "List voices",
                "Voices",
                (Answer("All of them.", (JSON,), VoiceList),),
            ),
            Route(
                "POST",
                "/v1/audio/voices",
                self.add,
                "Add a voice",
                "Voices",
                (Answer("It is kept.", (JSON,), VoiceShown, 201),),
                (Conflict, Forbidden, Overloaded, StorageError),
                form=NewVoice,
                scope="voices",
            ),
            Route(
                "GET", "/v1/audio/voices/{id}", self.show, "Describe a voice", "Voices", one, (UnknownVoice,)
            ),
            Route(
                "GET",
                "/v1/audio/voices/{id}/sample",
                self.sample,
                "Hear a voice's recording",
                "Voices",
                (Answer("The recording.", ("audio/wav",)),),
                (UnknownVoice,),
                scope="speak",
            ),
            Route(
                "DELETE",
                "/v1/audio/voices/{id}",
                self.remove,
                "Remove a voice",
                "Voices",
                (Answer("It is gone.", (), None, 204),),
                (UnknownVoice, Forbidden, StorageError),
                scope="voices",
            ),
        )

    async def list(self, request: web.Request) -> web.Response:
        """GET /v1/audio/voices."""
        voices = await asyncio.to_thread(self._store.list)
        return respond(VoiceList([shown(voice) for voice in voices]))

    async def show(self, request: web.Request) -> web.Response:
        """GET /v1/audio/voices/{id}."""
        return respond(shown(await asyncio.to_thread(self._store.get, request.match_info["id"])))

    async def sample(self, request: web.Request) -> web.Response:
        """GET /v1/audio/voices/{id}/sample."""
        recording = await asyncio.to_thread(self._store.reference, request.match_info["id"])
        wav = await asyncio.to_thread(encode, recording.samples, recording.rate_hz)
        return web.Response(body=wav, content_type="audio/wav")

    async def remove(self, request: web.Request) -> web.Response:
        """DELETE /v1/audio/voices/{id}."""
        await asyncio.to_thread(self._remove, request.match_info["id"], actor_of(request))
        return web.Response(status=204)

    def _remove(self, id: str, actor: Actor) -> None:
        try:
            sha256 = self._store.get(id).sha256
        except UnknownVoice:
            raise
        except BusError:
            sha256 = None  # its record is broken, which is a reason to remove it
        with self._audit.act("voice.remove", actor, voice=id, sha256=sha256):
            self._store.remove(id)

    async def add(self, request: web.Request) -> web.Response:
        """POST /v1/audio/voices."""
        want_type(request, "multipart/form-data")
        if self._uploads >= MAX_UPLOADS:
            raise Overloaded("too many recordings are being sent in", retry_after_s=5)
        self._uploads += 1
        try:
            return await self._take(request)
        finally:
            self._uploads -= 1

    async def _take(self, request: web.Request) -> web.Response:
        if (request.content_length or 0) > self._most_bytes + FORM_BYTES:
            raise BodyTooLarge(f"the recording has more than the {self._most_bytes:,} bytes that are allowed")
        with tempfile.TemporaryDirectory(prefix="voicebus-upload-") as folder:
            place = Path(folder, "sample")
            try:
                async with asyncio.timeout(UPLOAD_S):
                    fields = await _parts(request, place, self._most_bytes)
            except TimeoutError:
                raise RequestTimeout(f"the upload did not come within {UPLOAD_S:g} s") from None
            except _NO_FORM as error:
                raise BadRequest(f"the body is no form: {error}"[:MAX_SAID]) from None
            asked = from_words({**fields, "audio_sample": ""}, NewVoice)
            wav = await decode_apart(place)
        voice = await asyncio.to_thread(self._add, asked, wav, actor_of(request))
        return respond(shown(voice), status=201)

    def _add(self, asked: NewVoice, wav: bytes, actor: Actor) -> Voice:
        id = asked.id or id_of(asked.name)
        licence = asked.licence or "private"
        sent = hashlib.sha256(wav).hexdigest()
        try:
            with self._audit.act(
                "voice.add",
                actor,
                voice=id,
                voice_name=asked.name,
                consent=asked.consent,
                licence=licence,
                sent_sha256=sent,
            ) as act:
                voice = self._store.add(
                    id,
                    wav,
                    consent=asked.consent,
                    name=asked.name,
                    language=asked.language or "en-us",
                    licence=licence,
                    text=asked.text or None,
                )
                act.add(sha256=voice.sha256)
        except Conflict:
            raise Conflict(
                f"there is a voice {id!r} already: give another name or id, or remove that one first"
            ) from None
        return voice


def actor_of(request: web.Request) -> Actor:
    """Who adds or removes, for the audit."""
    caller = request[CALLER]
    return Actor("edge", caller.key, caller.name, caller.tenant, request[ADDRESS])


async def _parts(request: web.Request, place: Path, most_bytes: int) -> dict[str, str]:
    """Read the form: its fields, and the recording into a file. Raises `BadRequest` and `BodyTooLarge`."""
    fields: dict[str, str] = {}
    seen: set[str] = set()
    reader = await request.multipart()
    parts = 0
    while (part := await reader.next()) is not None:
        parts += 1
        if parts > MAX_PARTS:
            raise BadRequest(f"the form has more than {MAX_PARTS} parts")
        if not isinstance(part, BodyPartReader) or part.name not in (*FIELDS, "audio_sample"):
            raise BadRequest(
                f"the form has a part that is not known: {getattr(part, 'name', None)!r}"[:MAX_SAID]
            )
        if part.name in seen:
            raise BadRequest(f"the form has {part.name} twice")
        seen.add(part.name)
        if part.name == "audio_sample":
            await _keep(part, place, most_bytes)
        else:
            data = b""
            while more := await part.read_chunk():
                data += more
                if len(data) > MAX_FIELD_BYTES:
                    raise BadRequest(f"{part.name} has more than {MAX_FIELD_BYTES:,} bytes")
            try:
                fields[part.name] = data.decode()
            except UnicodeDecodeError:
                raise BadRequest(f"{part.name} is not UTF-8") from None
    missing = [name for name in ("name", "consent") if not fields.get(name, "").strip()]
    if "audio_sample" not in seen:
        missing.append("audio_sample")
    if missing:
        raise BadRequest(f"the form lacks {', '.join(missing)}")
    return fields


async def _keep(part: BodyPartReader, place: Path, most_bytes: int) -> None:
    size = 0
    with place.open("wb") as file:
        while data := await part.read_chunk(65_536):
            size += len(data)
            if size > most_bytes:
                raise BodyTooLarge(f"the recording has more than the {most_bytes:,} bytes that are allowed")
            file.write(data)
