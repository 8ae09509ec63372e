"""Fuzzing of all that reads what others wrote.

    python -m tests.fuzz --seconds 60            all targets, the time shared out between them
    python -m tests.fuzz --target frames         one target
    python -m tests.fuzz --replay FILE           run one input again; its name begins with the target's
    python -m tests.fuzz --plants                show that a bug of each kind is found
    python -m tests.fuzz --plant NAME            one of them

Ends with 1 if anything crashed, hung or took too much memory, and says how to see it again.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import click

from tests.fuzz import guided
from tests.fuzz.camp import Outcome, run_targets, table
from tests.fuzz.hunting import arm, try_once
from tests.fuzz.live import live, told
from tests.fuzz.plants import PLANTS, planted
from tests.fuzz.targets import TARGETS

LIVE: Final = "live"
LIVE_SHARE: Final = 0.25
INSTRUMENTING_S: Final = 12.0
PLANT_S: Final = 60.0


@click.command(help=__doc__)
@click.option("--seconds", type=float, default=60.0, show_default=True, help="For everything together.")
@click.option("--target", "names", multiple=True, help="Only these targets.")
@click.option("--seed", type=int, help="The first seed; drawn if not given.")
@click.option("--replay", type=click.Path(exists=True, path_type=Path), help="Run this input.")
@click.option("--plain", is_flag=True, help="Without atheris, even where there is one.")
@click.option("--grow", is_flag=True, help="Keep in the corpus what reaches new code (with atheris).")
@click.option("--plant", help="Plant this bug.")
@click.option("--plants", is_flag=True, help="Plant each bug in turn.")
def main(
    seconds: float,
    names: tuple[str, ...],
    seed: int | None,
    replay: Path | None,
    plain: bool,
    grow: bool,
    plant: str | None,
    plants: bool,
) -> None:
    """See the module."""
    seed = random.SystemRandom().randrange(1 << 30) if seed is None else seed
    if replay is not None:
        sys.exit(_replay(replay, names, plant))
    if plants or plant:
        sys.exit(_plants([plant] if plant else list(PLANTS), seed))
    unknown = set(names) - {LIVE, *TARGETS}
    if unknown:
        raise click.UsageError(
            f"no target {', '.join(sorted(unknown))}: there are {LIVE}, {', '.join(TARGETS)}"
        )
    if grow and (not guided.AVAILABLE or LIVE in names or not names):
        raise click.UsageError("--grow needs atheris, and a --target that is not live")
    if not guided.AVAILABLE:
        print("atheris is not here (pip install 'voicebus[fuzz]'; CPython 3.11 to 3.13): plain changes only")
    print(f"seed {seed}")
    chosen = list(names) or [LIVE, *TARGETS]
    at_once = min(os.cpu_count() or 1, 4)
    began = time.monotonic()
    live_s = seconds if chosen == [LIVE] else seconds * LIVE_SHARE
    wrong = _live(live_s, seed) if LIVE in chosen else 0
    chosen = [name for name in chosen if name != LIVE]
    left_s = seconds - (time.monotonic() - began) - (0 if plain or not guided.AVAILABLE else INSTRUMENTING_S)
    rows, share = shared_out(chosen, left_s, at_once)
    with ThreadPoolExecutor(at_once) as pool:
        found = pool.map(lambda row: run_targets(row, share, seed, plain=plain, grow=grow), rows)
        outcomes = [outcome for row in found for outcome in row]
    sys.exit(_report(outcomes, time.monotonic() - began) | wrong if outcomes else wrong)


def shared_out(names: list[str], seconds: float, at_once: int) -> tuple[list[list[str]], float]:
    """Targets in rows that run beside each other, and how long each has: the longest row takes it all."""
    rows = [names[start::at_once] for start in range(min(at_once, len(names)))]
    return rows, max(0.5, seconds / max(map(len, rows), default=1))


def _live(seconds: float, seed: int) -> int:
    report = live(seconds, seed)
    print(told(report, seconds), flush=True)
    for line in report.wrong:
        print(f"live: {line}")
    if report.wrong:
        print(f"again: python -m tests.fuzz --target live --seed {seed} (threads do not repeat themselves)")
    return bool(report.wrong)


def _report(outcomes: list[Outcome], seconds: float) -> int:
    print(table(outcomes))
    kinds = [outcome.kind for outcome in outcomes]
    total = sum(outcome.executions for outcome in outcomes)
    print(
        f"{total:,} executions in {seconds:.0f} s, {total / seconds:,.0f} a second:"
        f" {kinds.count('crash')} crashes, {kinds.count('hang')} hangs,"
        f" {kinds.count('memory')} beyond their memory"
    )
    for outcome in outcomes:
        if outcome.kind:
            print(f"\n{outcome.name}: {outcome.kind}\n{outcome.said.rstrip()}")
            print(f"again: python -m tests.fuzz --replay {outcome.file}")
    return any(kinds)


def _replay(file: Path, names: tuple[str, ...], plant: str | None) -> int:
    name = (
        names[0]
        if names
        else max((name for name in TARGETS if file.name.startswith(name)), key=len, default="")
    )
    if name not in TARGETS:
        raise click.UsageError("say which target it is for with --target")
    arm()
    logging.disable()
    with ExitStack() as stack:
        if plant:
            stack.enter_context(planted(plant))
        finding = try_once(TARGETS[name], file.read_bytes())
    print(f"{name}: nothing" if finding is None else f"{name}: {finding.kind}\n{finding.said}")
    return finding is not None


def _plants(names: list[str], seed: int) -> int:
    missed = 0
    for name in names:
        if name not in PLANTS:
            raise click.UsageError(f"no plant {name}: there are {', '.join(PLANTS)}")
        plant = PLANTS[name]
        if plant.target == LIVE:
            missed += _live_plant(name, seed)
            continue
        (outcome,) = run_targets([plant.target], PLANT_S, seed, plain=True, plant=name)
        found = outcome.kind == plant.kind
        missed += not found
        said = outcome.said.strip().splitlines()[-1][:90] if outcome.said.strip() else ""
        verdict = (
            f"found by {plant.target} in {outcome.seconds:.1f} s"
            if found
            else f"NOT FOUND ({outcome.kind or '-'})"
        )
        print(f"{name:<22}{plant.kind:<8}{verdict}: {said}", flush=True)
    return bool(missed)


def _live_plant(name: str, seed: int) -> int:
    began = time.monotonic()
    report = live(PLANT_S, seed, name)
    verdict = f"found by live in {time.monotonic() - began:.1f} s" if report.wrong else "NOT FOUND"
    print(f"{name:<22}{'live':<8}{verdict}: {(report.wrong or [''])[0][:100]}", flush=True)
    return not report.wrong


if __name__ == "__main__":
    main()
