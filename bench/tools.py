"""The benchmark's own tools, matplotlib and py-spy: pinned, in a virtual environment of their own.

Neither measures anything that is compared, so neither may stand in the way: where they cannot be installed,
figures are taken all the same, and what is missing is said.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .processes import CACHE

REQUIREMENTS: Final = Path(__file__).with_name("requirements-tools.txt")
INSTALL_S: Final = 600


class NoToolsError(RuntimeError):
    """The tools cannot be installed here; the message says why."""


def tools(say: Callable[[str], None], folder: Path = CACHE / "venv-tools") -> Path:
    """The folder with the environment's executables, made when first asked for. Raises `NoToolsError`."""
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    stamp = folder / "made-of"
    if not stamp.exists() or stamp.read_text() != wanted:
        say(f"installs {REQUIREMENTS.name}")
        shutil.rmtree(folder, ignore_errors=True)
        _must([sys.executable, "-m", "venv", str(folder)])
        options = ["--quiet", "--retries", "1", "--only-binary", ":all:"]
        _must([str(folder / "bin" / "python"), "-m", "pip", "install", *options, "-r", str(REQUIREMENTS)])
        stamp.write_text(wanted)
    return folder / "bin"


def _must(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoToolsError(str(error)) from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise NoToolsError(f"{REQUIREMENTS.name} could not be installed: {said[-1]}")
