"""The locks: which there are, what each is made from, and what is pinned in it.

A lock is complete: it holds every package of its extras and all that these need, for Python 3.11 and later
on Linux and macOS, each with the SHA-256 of every file of its release. So it is installed without a resolver,
and nothing gets in that is not in it. PyTorch is left out, with what only it needs: its builds differ from
machine to machine, and so do their hashes. It is pinned by version, where it is installed.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER: Final = Path(__file__).parent
SETUP: Final = FOLDER.parent / "setup.cfg"

#: Left out of every lock; `uv.toml` says so to the resolver.
UNHASHED: Final = frozenset({"torch", "torchaudio", "torchcodec"})

#: Markers that tell apart what we are installed on.
ENVIRONMENTS: Final = tuple(
    {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": system,
        "platform_machine": machine,
    }
    for python in ("3.11", "3.12", "3.13")
    for system, machine in (
        ("linux", "x86_64"),
        ("linux", "aarch64"),
        ("darwin", "x86_64"),
        ("darwin", "arm64"),
    )
)


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock file, and what it is made from."""

    name: str
    extras: tuple[str, ...] = ()
    source: str | None = None  # a file beside it, for what is no dependency of voicebus
    agrees_with: str | None = None  # a lock that is installed into the same environment

    @property
    def path(self) -> Path:
        """Where it lies."""
        return FOLDER / f"{self.name}.txt"

    def asked_for(self) -> list[Requirement]:
        """What is depended on directly, before anything is resolved."""
        lines = direct(self.extras) if self.source is None else _lines((FOLDER / self.source).read_text())
        return [Requirement(line) for line in lines]

    def pins(self) -> list[Pin]:
        """What it holds."""
        return list(parse(self.path.read_text()))


@dataclass(frozen=True, slots=True)
class Pin:
    """A release in a lock, with the hashes of its files and the names of what asked for it."""

    name: str
    version: str
    marker: Marker | None
    hashes: tuple[str, ...]
    wanted_by: tuple[str, ...]

    def applies(self, environment: dict[str, str]) -> bool:
        """Whether it is installed there."""
        return self.marker is None or self.marker.evaluate(environment)


RUN: Final = ("kokoro", "edge")
ENGINES: Final = (*RUN, "xtts", "openvoice", "gpt-sovits", "verify")
TEST: Final = (*RUN, "test")

LOCKS: Final = (
    Lock("run", RUN),
    Lock("build", source="build.in", agrees_with="run"),
    Lock("test", TEST, agrees_with="run"),
    Lock("check", (*TEST, "test-edge", "check"), agrees_with="test"),
    Lock("engines", ENGINES, agrees_with="check"),
    Lock("fuzz", ("fuzz",), agrees_with="check"),
    Lock("test-engines", source="test-engines.in"),
    Lock("gpt-sovits", source="gpt-sovits.in"),
)


def direct(extras: tuple[str, ...]) -> list[str]:
    """What `setup.cfg` says is depended on, always and by these extras."""
    setup = configparser.ConfigParser()
    setup.read(SETUP)
    groups = [
        setup["options"]["install_requires"],
        *(setup["options.extras_require"][extra] for extra in extras),
    ]
    return sorted({line for group in groups for line in _lines(group)})


def pinned_by_version() -> list[Pin]:
    """What no lock can hold: the builds of PyTorch that the Makefile installs."""
    pins = re.findall(r"\b(torch\w*)==(\S+)", (FOLDER.parent / "Makefile").read_text())
    return [Pin(name, version, None, (), ()) for name, version in sorted(set(pins))]


def parse(text: str) -> Iterator[Pin]:
    """Read a lock as the resolver writes it."""
    for entry in re.split(r"\n(?=[A-Za-z0-9])", _without_header(text)):
        wanted_by = tuple(re.findall(r"^    #(?: via)? +(\S+)(?: \(.*\))?$", entry, re.MULTILINE))
        requirement = Requirement(re.split(r" \\\n|\n", entry, maxsplit=1)[0])
        (pinned,) = requirement.specifier
        if pinned.operator != "==":
            raise ValueError(f"{requirement} is not pinned")
        hashes = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry))
        name = canonicalize_name(requirement.name)
        yield Pin(name, pinned.version, requirement.marker, hashes, wanted_by)


def _without_header(text: str) -> str:
    return re.sub(r"\A(#.*\n)*", "", text)


def _lines(text: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]
