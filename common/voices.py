"""The voice store: which voices there are, and the recordings they are learnt from.

Clients, workers and the edge all look voices up here. A store is a folder, or an fsspec URL where many
machines share one; under it lie `<id>/voice.yaml` and `<id>/reference.wav`. The voices that come with
voicebus stand behind every store, read-only. A recording is known by its SHA-256: workers cache what they
learnt of it under that hash, and one that does not match its record is refused rather than spoken with.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import logging
import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from .atomic import write_bytes
from .audio import decode
from .errors import BadRequest, ConfigError, Conflict, Forbidden, UnknownVoice
from .printable import refuse_unprintable
from .reference import MAX_SECONDS, prepare_reference
from .voice_files import RECORD, REFERENCE, LocalFiles, VoiceFiles, open_files
from .voice_record import ID, MAX_RECORD_BYTES, MAX_WORDS_CHARS, Voice, format_record, now_utc, parse_record

if TYPE_CHECKING:
    from .audio import Samples

__all__ = ["Recording", "Voice", "VoiceStore", "shipped_folder"]

MAX_REFERENCE_BYTES: Final = 32 * 1024 * 1024
MAX_CACHED: Final = 500
"Recordings kept of a remote store; the least recently written go first."
REMOTE_FRESH_S: Final = 2.0
"How long a voice of a remote store is taken as last seen: every job asks, and asking costs a request."

_log = logging.getLogger(__name__)


class Recording(NamedTuple):
    """A voice's recording: mono float32 in [-1, 1], its rate, and the SHA-256 of its file."""

    samples: Samples
    rate_hz: int
    sha256: str


class VoiceStore:
    """Voices in a folder or at an fsspec URL, and behind them the shipped ones.

    Changes made by others are seen at the next call in a folder, and within `REMOTE_FRESH_S` in a remote
    store: a look-up costs a stat or an object's info, and a record is read again only when that says it
    changed. Safe to share between threads. Every method raises `ConfigError` where the place itself fails.
    """

    def __init__(
        self,
        place: str | os.PathLike[str] = "voices",
        *,
        shipped: bool = True,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self._place = os.fspath(place)
        self._own = open_files(place)
        self._shipped = LocalFiles(shipped_folder()) if shipped else None
        self._is_shipped_folder = (
            isinstance(self._own, LocalFiles)
            and self._shipped is not None
            and self._own.root.resolve() == self._shipped.root.resolve()
        )
        self._cache_dir = None if cache_dir is None else Path(cache_dir).expanduser()
        self._known: dict[tuple[bool, str], tuple[str, Voice]] = {}
        self._seen: dict[str, tuple[float, str]] = {}

    def list(self) -> tuple[Voice, ...]:
        """Return all voices in order of id; a voice of the store hides a shipped one of the same id.

        A record that is wrong is left out and logged, so that one bad file does not hide all others.
        """
        voices: dict[str, Voice] = {}
        with self._place_errors():
            for files in self._places()[::-1]:
                for id, token in sorted(files.ids().items()):
                    try:
                        voice = self._record(files, id, token)
                    except (ConfigError, BadRequest, FileNotFoundError) as error:
                        _log.warning("voice %s is left out: %s", id, error)
                        continue
                    if files is self._own or voice.shipped:
                        voices[id] = voice
        return tuple(voices[id] for id in sorted(voices))

    def get(self, id: str) -> Voice:
        """Return one voice. Raises `UnknownVoice`, which names those that are written alike."""
        return self._find(id)[0]

    def reference(self, id: str) -> Recording:
        """Return a voice's recording, of which the first minute is used.

        From a remote store it is fetched once and kept by its hash. Raises `UnknownVoice`, and
        `ConfigError` for a recording that does not match its record.
        """
        with self._place_errors():
            for _ in range(2):
                voice, files = self._find(id)
                data = self._bytes(voice, files)
                if data is not None:
                    decoded = decode(data, max_seconds=MAX_SECONDS, cut=True)
                    return Recording(decoded.samples, decoded.rate_hz, voice.sha256)
                # Somebody may be replacing the voice just now: look once more before saying it is broken.
                self._forget(id)
        raise ConfigError(
            f"{REFERENCE} of voice {id!r} is missing or does not match the SHA-256 in its record: "
            "add the voice again"
        )

    def add(
        self,
        id: str,
        source: str | os.PathLike[str] | bytes,
        *,
        consent: str,
        name: str | None = None,
        language: str = "en-us",
        licence: str = "private",
        text: str | None = None,
        replace: bool = False,
    ) -> Voice:
        """Check a recording (a file or its bytes) and keep it as a voice; `text` is what it says.

        Raises `BadRequest` for an id, recording or field that will not do, `Conflict` where the id is
        taken and `replace` is false, `Forbidden` for a change of a shipped voice's own files.
        """
        if not ID.match(id):
            raise BadRequest(
                f"{id!r} cannot be a voice's id: use 1 to 64 of a-z, 0-9, - and _, not - or _ first"
            )
        if not any(letter.isalpha() for letter in consent):
            raise BadRequest(
                "consent is missing: say in words who allows this voice to be cloned (--consent)"
            )
        name, licence = (name or id).strip(), licence.strip()
        consent, text = (_lines(words) for words in (consent, text or ""))
        for field, words in (("name", name), ("licence", licence), ("consent", consent), ("text", text)):
            if len(words) > MAX_WORDS_CHARS:  # before it is looked through
                raise BadRequest(f"the {field} has {len(words):,} characters, more than {MAX_WORDS_CHARS:,}")
        refuse_unprintable("the name", name)
        refuse_unprintable("the licence", licence)
        refuse_unprintable("the consent", consent, lines=True)
        refuse_unprintable("the text", text, lines=True)
        prepared = prepare_reference(source)
        voice = Voice(
            id=id,
            name=name,
            language=language.strip().lower().replace("_", "-"),
            consent=consent,
            licence=licence,
            sha256=hashlib.sha256(prepared.wav).hexdigest(),
            created=now_utc(),
            seconds=round(min(prepared.levels.seconds, MAX_SECONDS), 3),
            sample_rate=prepared.rate_hz,
            text=text or None,
        )
        try:
            record = format_record(voice)
        except msgspec.ValidationError as error:
            raise BadRequest(f"the voice cannot be kept: {error}") from None
        with self._place_errors(), self._own.locked():
            self._refuse_taken(id, replace)
            self._write(voice, prepared.wav, record)
        return voice

    def remove(self, id: str) -> None:
        """Remove a voice and all that is cached beside it, even if its record is broken.

        Raises `UnknownVoice`, and `Forbidden` for a shipped voice.
        """
        with self._place_errors():
            if not ID.match(id) or self._own.token(id) is None:
                self._find(id)
                raise Forbidden(
                    f"voice {id!r} comes with voicebus and cannot be removed: add one of your own instead"
                )
            with self._own.locked():
                self._refuse_shipped(id)
                self._own.remove(id)
                self._forget(id)

    def _places(self) -> tuple[VoiceFiles, ...]:
        return (self._own,) if self._shipped is None else (self._own, self._shipped)

    def _find(self, id: str) -> tuple[Voice, VoiceFiles]:
        if ID.match(id):
            with self._place_errors():
                for files in self._places():
                    token = self._token(files, id)
                    if token is not None:
                        with suppress(FileNotFoundError):  # removed between the two calls
                            voice = self._record(files, id, token)
                            if files is self._own or voice.shipped:
                                return voice, files
        known = [voice.id for voice in self.list()]
        near = difflib.get_close_matches(id.lower(), known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "`vc voices list` shows all"
        raise UnknownVoice(f"no voice is called {id[:80]!r}: {hint}")

    def _token(self, files: VoiceFiles, id: str) -> str | None:
        if not files.is_remote:
            return files.token(id)
        now_s = time.monotonic()
        seen = self._seen.get(id)
        if seen is not None and now_s - seen[0] < REMOTE_FRESH_S:
            return seen[1]
        token = files.token(id)
        if token is not None:
            self._seen[id] = (now_s, token)
        return token

    def _forget(self, id: str) -> None:
        self._seen.pop(id, None)
        self._known.pop((True, id), None)
        self._known.pop((False, id), None)

    def _record(self, files: VoiceFiles, id: str, token: str) -> Voice:
        key = (files is self._own, id)
        known = self._known.get(key)
        if known is None or known[0] != token:
            voice = parse_record(id, files.read(id, RECORD, MAX_RECORD_BYTES))
            if files is self._own and not self._is_shipped_folder:
                # A copy of a shipped voice in a store of one's own is one's own.
                voice = changed(voice, shipped=False)
            self._known[key] = known = (token, voice)
        return known[1]

    def _bytes(self, voice: Voice, files: VoiceFiles) -> bytes | None:
        """The recording's file if it matches its record, else None."""
        cached = self._cached(voice.sha256) if files.is_remote else None
        if cached is not None:
            with suppress(FileNotFoundError):
                data = cached.read_bytes()
                if hashlib.sha256(data).hexdigest() == voice.sha256:
                    return data
        try:
            data = files.read(voice.id, REFERENCE, MAX_REFERENCE_BYTES)
        except FileNotFoundError:
            return None
        if hashlib.sha256(data).hexdigest() != voice.sha256:
            return None
        if cached is not None:
            cached.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(cached, data)
            _prune(cached.parent)
        return data

    def _cached(self, sha256: str) -> Path:
        if self._cache_dir is None:
            from platformdirs import user_cache_dir

            self._cache_dir = Path(user_cache_dir("voicebus", appauthor=False))
        return self._cache_dir / "references" / f"{sha256}.wav"

    def _refuse_taken(self, id: str, replace: bool) -> None:
        self._refuse_shipped(id)
        behind = self._shipped is not None and self._shipped.token(id) is not None
        if not replace and (behind or self._own.token(id) is not None):
            raise Conflict(f"a voice called {id!r} exists: choose another id or replace it (--replace)")

    def _refuse_shipped(self, id: str) -> None:
        token = self._own.token(id) if self._is_shipped_folder else None
        if token is not None and self._record(self._own, id, token).shipped:
            raise Forbidden(f"voice {id!r} comes with voicebus and stays as it is: choose another id")

    def _write(self, voice: Voice, wav: bytes, record: bytes) -> None:
        """Write the recording, then the record that makes it a voice; undo the first if the second fails."""
        before: bytes | None = None
        if self._own.token(voice.id) is not None:
            with suppress(FileNotFoundError, BadRequest):  # what cannot be read need not be kept
                before = self._own.read(voice.id, REFERENCE, MAX_REFERENCE_BYTES)
        try:
            self._own.write(voice.id, REFERENCE, wav)
            self._own.write(voice.id, RECORD, record)
        except BaseException:
            with suppress(OSError):
                if before is None:
                    self._own.remove(voice.id)
                else:
                    self._own.write(voice.id, REFERENCE, before)
            raise
        finally:
            self._forget(voice.id)
        if self._own.is_remote and self._own.read(voice.id, REFERENCE, len(wav)) != wav:
            raise Conflict(
                f"somebody else wrote voice {voice.id!r} at the same time: look at it and add it again"
            )

    @contextmanager
    def _place_errors(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            raise ConfigError(
                f"the voice store {self._place!r} cannot be used ({reason}): mend it or set voices.path"
            ) from None


def shipped_folder() -> Path:
    """Return the folder of the voices that come with voicebus, in a checkout as in an installed wheel."""
    spec = importlib.util.find_spec("voicebus.voices")
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    if not places:
        raise ConfigError("the package voicebus.voices is not installed: install voicebus again")
    return Path(places[0])


def _lines(words: str) -> str:
    """Words of several lines, with the line ends of one system."""
    return words.replace("\r\n", "\n").strip()


def _prune(folder: Path) -> None:
    files = sorted(folder.glob("*.wav"), key=lambda path: path.stat().st_mtime)
    for path in files[:-MAX_CACHED]:
        path.unlink(missing_ok=True)
