"""Model files on this machine: pulling, checking and finding them.

No engine downloads anything by itself: a worker that finds its files missing says so and names the one
command that brings them. `pull` may be run at any time, by several processes at once, and be cut off
anywhere: what is at its final name is complete and verified, what was fetched is kept, and the next pull
does only what is missing. `require`, which every engine calls when it loads, is a matter of microseconds
because a stamp records that all hashes were right.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .atomic import is_temporary, replacing, write_bytes
from .errors import BadRequest, ConfigError, ModelMissing
from .manifest import HubFile, Manifest, ModelFile, NpmPackage, PythonPackages, WheelMember
from .model_sources import BLOCK_BYTES, Attempt, Fetcher, SourceError

__all__ = [
    "HubFile",
    "Manifest",
    "ModelFile",
    "NpmPackage",
    "PullProgress",
    "PullReport",
    "PythonPackages",
    "WheelMember",
    "damaged",
    "find_manifest",
    "manifest_names",
    "model_dir",
    "models_dir",
    "pull",
    "require",
    "verify",
]

ENTRY_POINTS: Final = "voicebus.models"
STAMP: Final = ".verified"
DOWNLOADS: Final = ".downloads"
LOCK: Final = ".lock"
FILES_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class PullProgress:
    """Said after every step of a pull; calls come one at a time, though from several threads."""

    message: str
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class PullReport:
    """What a pull did: `fetched` maps a file's path to the source it came from."""

    folder: Path
    fetched: dict[str, str]
    kept: tuple[str, ...]
    size_bytes: int
    seconds: float


def models_dir() -> Path:
    """Return the folder of all models: $VOICEBUS_MODELS, else `models` in the user's cache folder."""
    chosen = os.environ.get("VOICEBUS_MODELS")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("voicebus", appauthor=False), "models")


def model_dir(manifest: Manifest) -> Path:
    """Return the folder of one model, whether it exists or not."""
    return models_dir() / manifest.name


def require(manifest: Manifest) -> Path:
    """Return the model's folder if a verified pull stands there; costs one small read and a stat a file.

    Raises `ModelMissing`, whose message names the command that helps.
    """
    folder = model_dir(manifest)
    lacking = [file.path for file in manifest.files if not _has_size(folder / file.path, file.size_bytes)]
    if not lacking and _stamped(folder, manifest):
        return folder
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        what = f"{lacking[0]}{more} missing"
    else:
        what = "not verified yet"
    raise ModelMissing(
        f"model files of {manifest.name} are not in {folder} ({what}): run `vc models pull {manifest.name}`"
    )


def damaged(manifest: Manifest) -> tuple[str, ...]:
    """Read every file in full and return the paths of those that are missing or not as pinned."""
    folder = model_dir(manifest)
    return tuple(file.path for file in manifest.files if not _intact(folder / file.path, file))


def verify(manifest: Manifest) -> Path:
    """Check every file's hash and return the model's folder.

    Raises `ModelMissing` naming a damaged file; the stamp is then taken away, so that `require` refuses
    the model too and a pull mends it.
    """
    folder = model_dir(manifest)
    bad = list(damaged(manifest))
    if bad:
        with suppress(OSError):
            (folder / STAMP).unlink()
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise ModelMissing(
            f"model files of {manifest.name} in {folder} are damaged or missing ({bad[0]}{more}): "
            f"run `vc models pull {manifest.name}`"
        )
    return folder


def pull(
    manifest: Manifest,
    *,
    from_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[PullProgress], None] | None = None,
) -> PullReport:
    """Bring all files of a model to this machine, from the first source that has each as pinned.

    `from_dir` (or $VOICEBUS_MODELS_FROM) is a local folder tried before all other sources: a copied
    models folder or the folder of this model alone. A complete model costs no network and no hashing.
    Raises `ModelMissing` listing what each source said, and `ConfigError` where the disk refuses.
    """
    started_s = time.monotonic()
    folder = model_dir(manifest)
    with suppress(ModelMissing):
        return PullReport(
            require(manifest), {}, tuple(file.path for file in manifest.files), manifest.size_bytes, 0.0
        )
    chosen = from_dir or os.environ.get("VOICEBUS_MODELS_FROM")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / LOCK):
            fetched = _Pull(manifest, folder, Path(chosen).expanduser() if chosen else None, progress).run()
    except OSError as error:
        raise ConfigError(
            f"cannot write model files to {folder} ({error.strerror or error}): "
            "make room there or set VOICEBUS_MODELS to another folder"
        ) from None
    kept = tuple(file.path for file in manifest.files if file.path not in fetched)
    return PullReport(folder, fetched, kept, manifest.size_bytes, time.monotonic() - started_s)


class _Pull:
    """One pull under way; holds what its threads share."""

    def __init__(
        self,
        manifest: Manifest,
        folder: Path,
        from_dir: Path | None,
        progress: Callable[[PullProgress], None] | None,
    ) -> None:
        self._manifest = manifest
        self._folder = folder
        self._from_dir = from_dir
        self._progress = progress
        self._lock = threading.Lock()
        self._done_bytes = 0
        self._downloads = folder / DOWNLOADS

    def run(self) -> dict[str, str]:
        self._clean()
        self._downloads.mkdir(exist_ok=True)
        fetched: dict[str, str] = {}
        failures: dict[str, str] = {}
        fetcher = Fetcher(self._manifest, self._downloads, self._say)
        pool = ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="pull")
        try:
            # Large files first: their downloads are under way while the small ones are put in place.
            files = sorted(self._manifest.files, key=lambda file: -file.size_bytes)
            jobs = {pool.submit(self._obtain, fetcher, file): file for file in files}
            for job in as_completed(jobs):
                file = jobs[job]
                try:
                    source = job.result()
                except SourceError as error:
                    failures[file.path] = str(error)
                    continue
                if source is not None:
                    fetched[file.path] = source
        finally:
            fetcher.stop()
            pool.shutdown(wait=True, cancel_futures=True)
        if failures:
            raise ModelMissing(_failure(self._manifest, failures))
        write_bytes(self._folder / STAMP, self._manifest.digest.encode())
        shutil.rmtree(self._downloads, ignore_errors=True)
        return fetched

    def _clean(self) -> None:
        """Remove what a pull that was cut off left half-written; nobody else writes here under the lock."""
        for path in self._folder.rglob("*"):
            if is_temporary(path):
                path.unlink(missing_ok=True)
        for path in self._downloads.glob("fetch-*"):
            shutil.rmtree(path, ignore_errors=True)

    def _obtain(self, fetcher: Fetcher, file: ModelFile) -> str | None:
        """Put one file in its place; returns its source, or None when it was there already."""
        target = self._folder / file.path
        if _intact(target, file):
            self._say(f"kept {file.path}", file.size_bytes)
            return None
        target.parent.mkdir(parents=True, exist_ok=True)
        said: list[str] = []
        for attempt in self._attempts(fetcher, file):
            try:
                parts = attempt.parts()
            except SourceError as error:
                said.append(f"{attempt.place}: {error}")
                continue
            problem = _join(parts, file, target)
            if problem is None:
                self._say(f"{file.path} from {attempt.label}", file.size_bytes)
                return attempt.label
            said.append(f"{attempt.place}: {problem}")
            fetcher.discard(parts)
        raise SourceError("; ".join(said) or "no source is known")

    def _attempts(self, fetcher: Fetcher, file: ModelFile) -> Iterator[Attempt]:
        if self._from_dir is not None:
            for place in (self._from_dir / file.path, self._from_dir / self._manifest.name / file.path):
                if place.is_file():
                    yield Attempt(f"folder {self._from_dir}", lambda place=place: [place])
        for source in file.sources:
            yield from fetcher.attempts(source, file)

    def _say(self, message: str, size_bytes: int = 0) -> None:
        with self._lock:
            self._done_bytes += size_bytes
            if self._progress is not None:
                self._progress(PullProgress(message, self._done_bytes, self._manifest.size_bytes))


def manifest_names() -> tuple[str, ...]:
    """Return the names of all models that installed packages declare, in order."""
    from importlib.metadata import entry_points

    return tuple(sorted({point.name for point in entry_points(group=ENTRY_POINTS)}))


def find_manifest(name: str) -> Manifest:
    """Return the manifest declared as `name` in the entry point group `voicebus.models`.

    Raises `BadRequest` for an unknown name and `ConfigError` where the declaring package is broken.
    """
    from importlib.metadata import entry_points

    points = [point for point in entry_points(group=ENTRY_POINTS) if point.name == name]
    if not points:
        known = ", ".join(manifest_names()) or "none"
        raise BadRequest(f"no model is called {name!r}: choose one of {known}")
    try:
        manifest = points[0].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the manifest of model {name!r} ({points[0].value}) does not load: {error}"
        ) from None
    if not isinstance(manifest, Manifest):
        raise ConfigError(
            f"{points[0].value} is not a Manifest: mend the package that declares model {name!r}"
        )
    return manifest


def _has_size(path: Path, size_bytes: int) -> bool:
    try:
        return path.stat().st_size == size_bytes
    except OSError:
        return False


def _intact(path: Path, file: ModelFile) -> bool:
    if not _has_size(path, file.size_bytes):
        return False
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256
    except OSError:
        return False


def _stamped(folder: Path, manifest: Manifest) -> bool:
    try:
        return (folder / STAMP).read_text().strip() == manifest.digest
    except (OSError, ValueError):
        return False


def _join(parts: list[Path], file: ModelFile, target: Path) -> str | None:
    """Write `parts` one after another to `target` if together they are the pinned file; else say why not."""
    hasher = hashlib.sha256()
    size_bytes = 0
    try:
        with replacing(target) as out:
            for part in parts:
                with open(part, "rb") as stream:
                    while block := stream.read(BLOCK_BYTES):
                        size_bytes += len(block)
                        if size_bytes > file.size_bytes:
                            raise SourceError(f"more than the expected {file.size_bytes} bytes")
                        hasher.update(block)
                        out.write(block)
            if size_bytes != file.size_bytes:
                raise SourceError(f"{size_bytes} bytes instead of {file.size_bytes}")
            if hasher.hexdigest() != file.sha256:
                raise SourceError(f"its SHA-256 is {hasher.hexdigest()[:12]}…, not {file.sha256[:12]}…")
    except SourceError as error:
        return str(error)
    return None


def _failure(manifest: Manifest, failures: dict[str, str]) -> str:
    # Fifty files of one package fail with one and the same words: say them once.
    by_reason: dict[str, list[str]] = {}
    for path in sorted(failures):
        by_reason.setdefault(failures[path], []).append(path)
    told = "; ".join(
        f"{paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''} ({reason})"
        for reason, paths in by_reason.items()
    )
    return (
        f"{len(failures)} of {len(manifest.files)} files of model {manifest.name} could not be had: {told}. "
        f"What was fetched is kept: mend a source or give a folder with --from, then run "
        f"`vc models pull {manifest.name}` again"
    )


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Hold the lock file; waits for another process's pull. The kernel frees it when its holder dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
