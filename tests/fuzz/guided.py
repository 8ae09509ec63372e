"""A target under atheris: libFuzzer's engine, guided by which lines of our code an input reaches.

There are wheels of atheris for CPython 3.11 to 3.13 on Linux. Where there is none the same targets run with
the changes of `mutate.py` alone, and the report says so.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any, Final

AVAILABLE: Final = find_spec("atheris") is not None
Ended = Callable[[int, Any], None]
UNINSTRUMENTED: Final = ["voicebus.common.levels"]
"""It compares arrays, and atheris keeps what comes of that for ever: 3 GiB of a recording's in a minute."""


def instrumented() -> None:
    """Load all targets so that atheris sees what runs in what they test, before anything imports that."""
    atheris: Any = import_module("atheris")
    with atheris.instrument_imports(include=["voicebus"], exclude=UNINSTRUMENTED):
        import_module("tests.fuzz.targets")


def hunt_guided(
    name: str, seed: int, seconds: float, scratch: Path, before: Callable[[bytes], None], ended: Ended
) -> None:
    """Run a target until the time is over or something is found, tell `ended`, and end the process."""
    from tests.fuzz.hunting import Finding, arm, try_once
    from tests.fuzz.targets import TARGETS

    atheris: Any = import_module("atheris")
    target = TARGETS[name]
    arm()
    dice = Random(seed)
    until = time.monotonic() + seconds
    count = 0

    def one(data: bytes) -> None:
        nonlocal count
        before(data)
        count += 1
        try:
            finding = try_once(target, data)
        except BaseException:
            # What gets out here would end the process without a word.
            finding = Finding("crash", traceback.format_exc(), data)
        if finding is not None or time.monotonic() >= until:
            ended(count, finding)
            sys.stdout.flush()
            os._exit(0)

    def change(data: bytes, most: int, _seed: int) -> bytes:
        if dice.random() < 0.5:
            return atheris.Mutate(data, most)
        try:
            return target.mutate(data, dice)[:most]
        except BaseException:
            ended(count, Finding("crash", traceback.format_exc(), data))
            os._exit(0)

    folder = scratch / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.inputs()):
        (folder / f"seed-{number}").write_bytes(data)
    atheris.Setup(
        [
            name, f"-max_len={target.max_bytes}", f"-seed={seed % (1 << 31) or 1}", "-timeout=86400",
            "-rss_limit_mb=0",
            "-verbosity=0", "-print_final_stats=0", "-handle_segv=0", "-handle_abrt=0",
            f"-artifact_prefix={scratch}/",
            str(folder),
        ],
        one,
        custom_mutator=change,
    )  # fmt: skip
    atheris.Fuzz()


def main() -> None:
    """libFuzzer's own commands for a target: `python -m tests.fuzz.guided NAME -merge=1 INTO FROM`."""
    name, *options = sys.argv[1:]
    instrumented()
    targets: Any = import_module("tests.fuzz.targets")
    atheris: Any = import_module("atheris")
    logging.disable()
    # libFuzzer starts itself again to merge, by a shell and by this name.
    again = f"{sys.executable} -m tests.fuzz.guided {name}"
    atheris.Setup([again, *options, f"-max_len={targets.TARGETS[name].max_bytes}"], targets.TARGETS[name].run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
