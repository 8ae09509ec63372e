"""Chaos on real processes: two brokers, workers, clients, and somebody who breaks them.

    python -m tests.chaos [--jobs 5000] [--faults 57] [--seed 1]

Accounting as in Jepsen: every line a client was given must come back once, as the audio of that very line,
however often processes are killed or stopped, connections cut, slowed down or swallowed, cables pulled and
disks filled. Ends with 1 if anything was lost, answered twice, wrong or failed, or if any process died that
nobody had killed; what it wrote is then kept.
"""

from __future__ import annotations

import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from tests.chaos import report, sandbox
from tests.chaos.accounts import Ear, account
from tests.chaos.diary import read
from tests.chaos.faults import LASTING, Faults
from tests.chaos.stage import Cast, Stage
from tests.chaos.talker import text_of

NEEDS_NAMESPACES: Final = ("link down", "link lossy", "link slow")
TRIES: Final = 20


@click.command()
@click.option("--jobs", default=5000, show_default=True, type=click.IntRange(10), help="At least so many.")
@click.option("--faults", default=57, show_default=True, type=click.IntRange(0))
@click.option("--longest", default=5.0, show_default=True, help="Seconds a fault may last.")
@click.option("--overlap/--one-at-a-time", default=True, show_default=True, help="Let faults meet.")
@click.option(
    "--kind", "only", multiple=True, help="Only this kind of fault, as named in the table; repeatable."
)
@click.option("--workers", default=4, show_default=True, type=click.IntRange(1, 16))
@click.option("--seed", type=int, help="Repeats the choice of faults (not their timing).")
@click.option("--patience", default=90.0, show_default=True, help="Seconds without any progress at the end.")
@click.option("--install", is_flag=True, help="Install iproute2 if it is missing and we are root.")
@click.option("--trace", is_flag=True, help="Have the brokers log every change of state.")
@click.option("--keep", is_flag=True, help="Keep the diaries and logs of a good run, too.")
def main(
    jobs: int, faults: int, longest: float, workers: int, seed: int | None, patience: float,
    overlap: bool, only: tuple[str, ...], install: bool, trace: bool, keep: bool,
) -> None:  # fmt: skip
    """Break the bus and count."""
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    arguments = ["--jobs", jobs, "--faults", faults, "--longest", longest, "--workers", workers]
    arguments += ["--seed", seed, "--patience", patience]
    flags = [flag for flag, given in (("--trace", trace), ("--keep", keep)) if given]
    flags.append("--overlap" if overlap else "--one-at-a-time")
    flags += [part for kind in only for part in ("--kind", kind)]
    again = [*map(str, arguments), *flags]
    without = sandbox.enter(again, install=install)
    # The first process of a namespace hears no SIGTERM unless it asks for it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"seed {seed}", flush=True)
    plan = _Plan(faults, longest, overlap, frozenset(only))
    folder = Path(tempfile.mkdtemp(prefix="voicebus-chaos-"))
    good = False
    try:
        stage = Stage(folder, Cast(workers=workers), random.Random(seed), without, trace=trace)
        try:
            good = _run(stage, jobs, plan, patience, without)
        finally:
            stage.close()
            if keep or not good:
                _save_journals(stage)
    finally:
        if good and not keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"diaries and logs: {folder}")
            print(f"again: python -m tests.chaos {shlex.join(again)}", flush=True)
    sys.exit(0 if good else 1)


@dataclass(frozen=True, slots=True)
class _Plan:
    faults: int
    longest_s: float
    overlap: bool
    only: frozenset[str]
    "These kinds; all, if empty."


def _run(stage: Stage, jobs: int, plan: _Plan, patience_s: float, without: str) -> bool:
    least = -(-jobs // len(stage.clients))
    breaker = Faults(stage, plan.longest_s)
    if plan.only - breaker.kinds().keys():
        raise click.UsageError(f"kinds are: {', '.join(breaker.kinds())}")
    for name in stage.clients:
        stage.start_talker(name, least)
    injected = _break(stage, breaker, plan, least)
    stage.enough.touch()
    _finish(stage, least, patience_s)
    for broker in stage.brokers:
        stage.totals.add(broker.frontend)
    ear = Ear()
    accounts = {
        name: account(
            read(stage.diary(name)),
            least,
            lambda index, name=name: ear.digest(text_of(name, index)),
            breaker.full,
        )
        for name in stage.clients
    }
    skipped: dict[str, str] = dict.fromkeys(NEEDS_NAMESPACES, without) if without else {}
    report.print_faults(injected, breaker.remarks(), skipped)
    report.print_accounts(accounts)
    report.print_totals(stage.totals)
    wrong = report.faults_found(accounts, stage.totals, stage.findings)
    for line in wrong[: report.SHOWN]:
        print(line)
    if len(wrong) > report.SHOWN:
        print(f"… and {len(wrong) - report.SHOWN} more")
    return not wrong


def _break(stage: Stage, breaker: Faults, plan: _Plan, least: int) -> Counter[str]:
    """Do all faults, each kind once before any comes again."""
    kinds = {kind: fault for kind, fault in breaker.kinds().items() if not plan.only or kind in plan.only}
    injected: Counter[str] = Counter(dict.fromkeys(kinds, 0))
    rounds = range(plan.faults // len(kinds) + 1)
    order = [kind for _ in rounds for kind in stage.chance.sample(list(kinds), len(kinds))]

    def hurt(kind: str) -> None:
        breaker.note("begins", kind)
        if any(kinds[kind]() for _ in range(TRIES)):
            injected[kind] += 1
        else:
            stage.findings.append(f"{kind} found no victim")

    with ThreadPoolExecutor(1) as meanwhile:
        lasting: Future[None] | None = None
        for kind in order[: plan.faults]:
            if plan.overlap and kind in LASTING:
                if lasting is not None:
                    lasting.result()
                lasting = meanwhile.submit(hurt, kind)
            else:
                hurt(kind)
            stage.replace(least)
            breaker.pause()
        if lasting is not None:
            lasting.result()
    stage.replace(least)
    return injected


def _finish(stage: Stage, least: int, patience_s: float) -> None:
    """Wait until all clients have come to their end, or nothing has moved for a long time."""
    size = -1
    until = 0.0
    while any(talker.exit_code != 0 for talker in stage.talkers.values()):
        stage.replace(least)
        grown = sum(stage.diary(name).stat().st_size for name in stage.clients if stage.diary(name).exists())
        if grown != size:
            size, until = grown, time.monotonic() + patience_s
        elif time.monotonic() > until:
            print(f"nothing has moved for {patience_s:g} s", flush=True)
            return
        time.sleep(0.1)


def _save_journals(stage: Stage) -> None:
    """The file systems of the journals are gone with the run: copy what they hold."""
    for broker in stage.brokers:
        shutil.copytree(broker.journal, broker.journal.with_suffix(".saved"), ignore_dangling_symlinks=True)


if __name__ == "__main__":
    main()
