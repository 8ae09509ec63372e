"""Targets one after the other, each in a fork, so that what it does to itself is seen from outside.

    python -m tests.fuzz.child NAME,NAME… SECONDS SEED FOLDER plain|guided [PLANT]

Loading, and above all instrumenting, what is tested takes longer than many a run: it is done once. Each input
is written into FOLDER/NAME.now before it is run: a process that dies or hangs in C leaves that behind. For
each target one line of JSON is printed.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import resource
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

SLOT_BYTES: Final = 1 << 20
MEMORY_BYTES: Final = 3 << 30
"""What a target's process may ever map."""
LAST_S: Final = 30.0
"""Beside its time: what the last input and making a finding smaller may take."""


def main() -> None:
    """See the module."""
    listed, seconds, seed, where, way = sys.argv[1:6]
    plant = sys.argv[6] if len(sys.argv) > 6 else ""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Libraries write what they think of broken files to the standard error; nobody reads it.
    errors = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    logging.disable()
    try:
        if way == "guided":
            from tests.fuzz.guided import instrumented

            instrumented()
        from tests.fuzz import hunting, plants, targets
    except BaseException:
        os.dup2(errors, 2)  # it must be seen that, and why, nothing can be run
        raise
    del hunting, plants
    for name in listed.split(","):
        outcome = Path(where, f"{name}.json")
        pid = os.fork()
        if pid == 0:
            os.dup2(2, 1)  # libFuzzer greets on the standard output
            _hunt(name, float(seconds), int(seed), Path(where), way, plant)
            os._exit(0)
        ending = _ended(pid, float(seconds) + LAST_S + targets.TARGETS[name].most_cpu_s)
        said = (
            json.loads(outcome.read_text())
            if outcome.is_file()
            else _last(Path(where, f"{name}.now"), ending)
        )
        print(json.dumps({"name": name, **said}), flush=True)


def _ended(pid: int, most_s: float) -> str:
    """How a fork ended: empty for well. One that does not is killed."""
    until = time.monotonic() + most_s
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return f"the process ended with {os.waitstatus_to_exitcode(status)}"
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return ""


def _last(slot: Path, ending: str) -> dict[str, Any]:
    """A finding made of the input that a process did not outlive."""
    data = slot.read_bytes() if slot.is_file() else bytes(4)
    said = ending or "it does not end, and hears no alarm"
    whole = data[4 : 4 + int.from_bytes(data[:4])]
    return {"executions": 0, "kind": "crash" if ending else "hang", "said": said, "data": whole.hex()}


def _hunt(name: str, seconds: float, seed: int, folder: Path, way: str, plant: str) -> None:
    from tests.fuzz.guided import hunt_guided
    from tests.fuzz.hunting import Finding, hunt, peak_bytes, shrunk
    from tests.fuzz.plants import planted
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    with open(folder / f"{name}.now", "w+b") as file:
        file.truncate(SLOT_BYTES)
        slot = mmap.mmap(file.fileno(), SLOT_BYTES)
    base = peak_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    began = time.monotonic()

    def before(data: bytes) -> None:
        data = data[: SLOT_BYTES - 4]
        slot[4 : 4 + len(data)] = data
        slot[:4] = len(data).to_bytes(4)

    def ended(count: int, finding: Finding | None) -> None:
        said: dict[str, Any] = {
            "executions": count, "seconds": time.monotonic() - began, "base_bytes": base,
            "peak_bytes": peak_bytes(),
        }  # fmt: skip
        if finding is not None:
            small = finding if finding.kind != "crash" else shrunk(target, finding)
            said |= {"kind": small.kind, "said": small.said, "data": small.data.hex()}
        (folder / f"{name}.json").write_text(json.dumps(said))

    with ExitStack() as stack:
        if plant:
            stack.enter_context(planted(plant))
        if way == "guided":
            hunt_guided(name, seed, seconds, folder / "grown", before, ended)
        else:
            ended(*hunt(target, seed, seconds=seconds, before=before))


if __name__ == "__main__":
    main()
