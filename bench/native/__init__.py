"""The compiled programs of the broker benchmark, built when they are first needed.

Python ends would be the limit in every comparison of brokers: a client in Python costs more per request than
most brokers do. So load generator, echo worker and the broker that shows what the policy could cost are in
C. They are linked with the very libzmq that pyzmq's wheel brings, so that all parties have the same one.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zmq

from ..processes import CACHE

SOURCES: Final = Path(__file__).parent
FLAGS: Final = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")
BUILD_S: Final = 60.0


class CannotBuildError(RuntimeError):
    """The programs cannot be built here; the message says why."""


@dataclass(frozen=True, slots=True)
class Programs:
    """The built programs."""

    load: Path
    worker: Path
    lru_broker: Path


def bundled_libzmq() -> Path:
    """The libzmq inside pyzmq's wheel. Raises `CannotBuildError` where pyzmq uses another one."""
    folder = Path(zmq.__file__).parents[1] / "pyzmq.libs"
    for library in sorted(folder.glob("libzmq-*.so*")):
        return library
    raise CannotBuildError(f"pyzmq brings no libzmq of its own in {folder}: it was not installed as a wheel")


def build(folder: Path = CACHE) -> Programs:
    """Compile what is missing or older than its sources. Raises `CannotBuildError`."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        raise CannotBuildError(f"there is no C compiler `{compiler[0]}`")
    library = bundled_libzmq()
    folder.mkdir(parents=True, exist_ok=True)
    headers = max(path.stat().st_mtime for path in (*SOURCES.glob("*.h"), library))
    built: list[Path] = []
    for name in ("load", "worker", "lru_broker"):
        source, target = SOURCES / f"{name}.c", folder / name
        if not target.exists() or target.stat().st_mtime < max(headers, source.stat().st_mtime):
            _compile(compiler, source, library, target)
        built.append(target)
    return Programs(*built)


def _compile(compiler: list[str], source: Path, library: Path, target: Path) -> None:
    # Renamed into place, so that two passes that build at once do not run half a program.
    draft = target.with_suffix(f".{os.getpid()}")
    command = [*compiler, *FLAGS, str(source), "-o", str(draft), str(library), f"-Wl,-rpath,{library.parent}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=False)
    if done.returncode:
        raise CannotBuildError(f"{shlex.join(command)} failed:\n{done.stderr}")
    draft.replace(target)
