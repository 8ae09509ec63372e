"""Write the locks: `make lock`, or `python -m requirements.lock --upgrade` to take new releases.

uv resolves, because of the resolvers in use it alone gives one answer for all Pythons and systems
(`--universal`) with the hashes of all files; pip-compile's answer holds for the machine that it ran on. uv is
needed to write locks, never to install from them: pip does that. Without `--upgrade` what is pinned stays
pinned, unless `setup.cfg` says otherwise.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

from .locks import FOLDER, LOCKS, Lock

OLDEST_PYTHON = "3.11"


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m requirements.lock", description="Write the locks.")
    parser.add_argument(
        "--upgrade", action="store_true", help="take the newest releases that setup.cfg allows"
    )
    upgrade = parser.parse_args(arguments).upgrade
    for lock in LOCKS:
        write(lock, upgrade=upgrade)
        print(f"{lock.path.relative_to(FOLDER.parent)}: {len(lock.pins())} packages")
    return 0


def write(lock: Lock, *, upgrade: bool = False, index: str | None = None, into: Path | None = None) -> None:
    """Resolve one lock, from the user's own index unless one is given."""
    target = into or lock.path
    command = [find_uv_bin(), "pip", "compile", "-", "--quiet", "--universal"]
    command += ["--config-file", str(FOLDER / "uv.toml"), "--custom-compile-command", "make lock"]
    command += ["--generate-hashes", "--python-version", OLDEST_PYTHON, "--output-file", str(target)]
    if lock.agrees_with:
        command += ["--constraints", str(FOLDER / f"{lock.agrees_with}.txt")]
    if upgrade:
        command.append("--upgrade")
    if index:
        command += ["--default-index", index]
    asked_for = "\n".join(map(str, lock.asked_for()))
    subprocess.run(command, input=asked_for, text=True, check=True)  # noqa: S603 - uv, with arguments from LOCKS


if __name__ == "__main__":
    sys.exit(main())
