"""What the peers need: their Python packages and servers, fetched once, without root, under .cache/bench.

The Python packages are pinned and stand in a virtual environment of their own, so that voicebus' own never
grows by what it is only compared with. The servers are Debian packages, downloaded with `apt-get` and
unpacked with `dpkg-deb`; whatever this system has installed already is used from there. What cannot be had
raises `Skipped` with the reason, and only the systems that need it are left out.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..processes import CACHE

REQUIREMENTS: Final = Path(__file__).resolve().parents[1] / "requirements-peers.txt"
INSTALL_S: Final = 900


class SkippedError(RuntimeError):
    """A system cannot be measured here; the message says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the peers' packages are."""

    python: str
    "The interpreter of the peers' virtual environment."
    debian: Path
    "The root under which Debian packages were unpacked."

    @property
    def environ(self) -> Mapping[str, str]:
        """What a server that was unpacked needs to find its libraries."""
        libraries = sorted({str(path.parent) for path in self.debian.glob("**/lib/*-linux-gnu/*.so*")})
        return {"LD_LIBRARY_PATH": os.pathsep.join([*libraries, *_given("LD_LIBRARY_PATH")])}

    def server(self, name: str) -> str:
        """The path of a server's executable. Raises `SkippedError`."""
        for folder in ("usr/sbin", "usr/bin", "sbin", "bin"):
            if (self.debian / folder / name).exists():
                return str(self.debian / folder / name)
        found = shutil.which(name, path=os.pathsep.join([*_given("PATH"), "/usr/sbin", "/sbin"]))
        if found is None:
            raise SkippedError(f"{name} is not in the packages that were unpacked")
        return found


def _given(variable: str) -> list[str]:
    return [part for part in os.environ.get(variable, "").split(os.pathsep) if part]


def place() -> Place:
    """Where things are, or will be once they are fetched."""
    return Place(str(CACHE / "venv-peers" / "bin" / "python"), CACHE / "debian")


def fetch_python(packages: Iterable[str], where: Place) -> None:
    """Install some of the pinned packages, unless they are there as pinned. Raises `SkippedError`."""
    folder = Path(where.python).parents[1]
    version = folder / "made-by"
    if not version.exists() or version.read_text() != sys.version:
        shutil.rmtree(folder, ignore_errors=True)
        _must([sys.executable, "-m", "venv", str(folder)], "no virtual environment could be made")
        version.write_text(sys.version)
    pinned = [line for line in REQUIREMENTS.read_text().splitlines() if line.split("==")[0] in packages]
    stamp = folder / f"installed-{hashlib.sha256(' '.join(pinned).encode()).hexdigest()[:16]}"
    if stamp.exists():
        return
    # Only wheels: a package that had to be compiled would be another one on each machine.
    options = ["--quiet", "--retries", "1", "--only-binary", ":all:"]
    _must(
        [where.python, "-m", "pip", "install", *options, *pinned],
        f"{' '.join(pinned)} could not be installed",
    )
    stamp.touch()


def fetch_debian(packages: Iterable[str], where: Place) -> None:
    """Download and unpack packages and what they need that this system lacks. Raises `SkippedError`."""
    for package in sorted(packages):
        stamp = where.debian / f".{package}"
        if stamp.exists():
            continue
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise SkippedError(
                f"{package} comes as a Debian package, and this system has no apt-get or dpkg-deb"
            )
        where.debian.mkdir(parents=True, exist_ok=True)
        # A simulation of an install names every package that it would bring; it needs no root.
        plan = _must(
            ["apt-get", "--simulate", "--no-install-recommends", "install", package],
            f"apt-get knows no {package} (an apt-get update may help)",
        )
        names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
        for archive in where.debian.glob("*.deb"):
            archive.unlink()
        if names:
            _must(["apt-get", "download", "-qq", *names], f"{package} could not be downloaded", where.debian)
        for archive in where.debian.glob("*.deb"):
            _must(
                ["dpkg-deb", "-x", str(archive), str(where.debian)], f"{archive.name} could not be unpacked"
            )
            archive.unlink()
        stamp.touch()


def _must(command: list[str], otherwise: str, folder: Path | None = None) -> str:
    """Run a command; what it printed. Raises `SkippedError` with its last words."""
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SkippedError(f"{otherwise}: {error}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise SkippedError(f"{otherwise}: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout
