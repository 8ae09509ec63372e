"""One target in a process of its own, so that whatever it does to itself is seen from outside.

    python -m tests.fuzz.child NAME SECONDS SEED FOLDER plain|guided [PLANT]

It writes each input into FOLDER/NAME.now before it runs it: a process that dies or hangs in C leaves that
behind. It prints one line of JSON when it ends by itself.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import resource
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

SLOT_BYTES: Final = 1 << 20
MEMORY_BYTES: Final = 3 << 30
"""What a target's process may ever map."""


def main() -> None:
    """See the module."""
    name, seconds, seed, where, way = sys.argv[1:6]
    plant = sys.argv[6] if len(sys.argv) > 6 else ""
    folder = Path(where)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if way == "guided":
        from tests.fuzz.guided import hunt_guided, instrumented

        instrumented()
    from tests.fuzz.hunting import Finding, hunt, peak_bytes, shrunk
    from tests.fuzz.plants import planted
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    with open(folder / f"{name}.now", "w+b") as file:
        file.truncate(SLOT_BYTES)
        slot = mmap.mmap(file.fileno(), SLOT_BYTES)
    base = peak_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    logging.disable()
    # Libraries write what they think of broken files to the standard error; nobody reads it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    def before(data: bytes) -> None:
        data = data[: SLOT_BYTES - 4]
        slot[4 : 4 + len(data)] = data
        slot[:4] = len(data).to_bytes(4)

    began = time.monotonic()

    def ended(count: int, finding: Finding | None) -> None:
        said: dict[str, Any] = {
            "executions": count, "seconds": time.monotonic() - began, "base_bytes": base, "peak_bytes": peak_bytes(),
        }  # fmt: skip
        if finding is not None:
            small = finding if finding.kind != "crash" else shrunk(target, finding)
            said |= {"kind": small.kind, "said": small.said, "data": small.data.hex()}
        print(json.dumps(said), flush=True)

    with ExitStack() as stack:
        if plant:
            stack.enter_context(planted(plant))
        if way == "guided":
            hunt_guided(name, int(seed), float(seconds), folder / "grown", before, ended)
        else:
            ended(*hunt(target, int(seed), seconds=float(seconds), before=before))


if __name__ == "__main__":
    main()
