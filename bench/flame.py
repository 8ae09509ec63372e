"""Where the broker spends its time: a flame graph under the pipelined load of 200 bytes.

    python -m bench.flame [--seconds 6] [-o bench/flame.svg]

py-spy looks into the running `vc-broker` from outside, a few hundred times a second, and counts only what
holds the interpreter: what a broker in Python waits for is not what it costs. The load is the one behind
`broker_us_per_request`, so that the picture shows what that figure is made of, but for libzmq's own thread,
which holds no interpreter and is not in it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

import click

from .brokers.stands import BUNDLED, Stand
from .hot import REQUEST_BYTES, RunFailedError, run_load
from .native import CannotBuildError, build
from .processes import ROOT
from .tools import NoToolsError, tools

WINDOW: Final = 64
WARMUP_S: Final = 0.5
SPARE_S: Final = 3.0
"""The load goes on for this much longer than is looked at: py-spy takes a moment to begin."""
RATE_PER_S: Final = 500
LARGEST_BYTES: Final = 300_000
"""The picture lies in the repository."""
SHOWN: Final = f"vc-broker, {REQUEST_BYTES} bytes, {WINDOW} under way: where the interpreter is"
_TITLE: Final = re.compile(r'(<text id="title"[^>]*>)[^<]*')
"""py-spy writes its own command line there."""
TRACING: Final = (
    "it takes root, or for one's own processes `sysctl kernel.yama.ptrace_scope=0`; in a container the "
    "capability SYS_PTRACE"
)


class NoFlameError(RuntimeError):
    """There is no picture; the message says why."""


def record(py_spy: Path, pid: int, seconds: int, file: Path) -> None:
    """Look into a process for a while. Raises `NoFlameError`."""
    command = [
        *(str(py_spy), "record", "--gil", "--function", "--format", "flamegraph", "--rate", str(RATE_PER_S)),
        *("--duration", str(seconds), "--pid", str(pid), "--output", str(file)),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoFlameError(f"py-spy: {error}") from error
    if done.returncode:
        said = " ".join(done.stderr.split())
        denied = "ermission" in said or "not permitted" in said
        raise NoFlameError(f"py-spy may not look into the broker: {TRACING}" if denied else f"py-spy: {said}")


def tidy(picture: str) -> str:
    """The picture with a title that says what it shows, and without the place where this tree lies.

    Raises `NoFlameError` if it is too large.
    """
    text = _TITLE.sub(rf"\g<1>{SHOWN}", picture).replace(f"{ROOT}/", "")
    size_bytes = len(text.encode())
    if size_bytes > LARGEST_BYTES:
        raise NoFlameError(
            f"the picture has {size_bytes:,} bytes, more than {LARGEST_BYTES:,}: look for less time"
        )
    return text


def flame(seconds: int, file: Path) -> float:
    """Write the picture; the rate while it was taken. Raises `NoFlameError` and what a stand raises."""
    py_spy = tools(lambda line: click.echo(line, err=True)) / "py-spy"
    programs = build()
    failures: list[NoFlameError] = []
    draft = file.with_suffix(".draft.svg")
    file.parent.mkdir(parents=True, exist_ok=True)
    with Stand(BUNDLED, programs, answer_bytes=REQUEST_BYTES, workers=1, credit=WINDOW) as stand:

        def look() -> None:
            try:
                record(py_spy, stand.broker_pid, seconds, draft)
            except NoFlameError as error:
                failures.append(error)

        looking = threading.Thread(target=look)
        looking.start()
        try:
            got = run_load(
                programs,
                stand,
                window=WINDOW,
                answer_bytes=REQUEST_BYTES,
                warmup_s=WARMUP_S,
                span_s=seconds + SPARE_S,
            )
        finally:
            looking.join()
    try:
        if failures:
            raise failures[0]
        file.write_text(tidy(draft.read_text(encoding="utf-8")), encoding="utf-8")
    finally:
        draft.unlink(missing_ok=True)
    return float(got["rate_per_s"])


@click.command()
@click.option("--seconds", default=6, show_default=True, help="How long the broker is looked at.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path(__file__).with_name("flame.svg")
)
def main(seconds: int, output: Path) -> None:
    """Draw it; exit 1 with the reason where that is not possible."""
    try:
        rate = flame(seconds, output)
    except (NoFlameError, NoToolsError, CannotBuildError, RunFailedError) as error:
        click.echo(f"no flame graph: {error}", err=True)
        sys.exit(1)
    click.echo(f"{output}: {output.stat().st_size:,} bytes, while {rate:,.0f} requests a second passed")


if __name__ == "__main__":
    main()
