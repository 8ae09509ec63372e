"""Simulated histories of the whole bus.

    python -m tests.sim --seconds 60              as many histories as fit, on all cores
    python -m tests.sim --seed 42 [--trace]       one history, exactly as it was
    python -m tests.sim --mutations               show that four deliberate defects are noticed

Ends with 1 if anything was lost, answered twice, wrong or raised, and says how to see it again.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable

import click

from tests.sim.mutations import MUTATIONS
from tests.sim.soak import MUTATION_HISTORIES, Sum, hunt, quiet, soak
from tests.sim.world import World

NO_ANSWERS = ("void", "lost", "fetched")


@click.command(help=__doc__)
@click.option("--seconds", type=float, default=60.0, show_default=True, help="How long to run histories.")
@click.option("--seed", type=int, help="Run this history only.")
@click.option("--trace", is_flag=True, help="Print the history.")
@click.option("--strict", is_flag=True, help="Check all invariants in every turn.")
@click.option("--first", type=int, help="The first seed; drawn if not given.")
@click.option("--mutations", is_flag=True, help="Run the mutations.")
def main(
    seconds: float,
    seed: int | None,
    trace: bool,
    strict: bool,
    first: int | None,
    mutations: bool,
) -> None:
    """See the module."""
    if mutations:
        sys.exit(_mutations())
    if seed is not None:
        sys.exit(_one(seed, trace, strict))
    first = random.SystemRandom().randrange(1, 1_000_000) * 1000 if first is None else first
    print(f"seeds from {first} on")
    sys.exit(_report(soak(first, seconds, strict=strict)))


def _one(seed: int, trace: bool, strict: bool) -> int:
    quiet()
    outcome = World(seed, tracing=True, strict=strict).run()
    if trace:
        print("\n".join(outcome.trace))
    print(f"seed {seed}: trace {outcome.digest}, {len(outcome.trace)} lines")
    print(f"faults: {_listed(outcome.faults.items())}")
    print(f"ends: {_listed(outcome.counts.items())}")
    for complaint in outcome.complaints:
        print(f"!! {complaint}")
    return bool(outcome.complaints)


def _report(total: Sum) -> int:
    minutes = total.seconds / 60
    print(
        f"{total.histories:,} histories in {total.seconds:.0f} s, {total.histories / minutes:,.0f} a minute"
    )
    print(f"{total.faults.total():,} faults: {_listed(total.faults.most_common())}")
    print(f"ends: {_listed(total.counts.most_common())}")
    answered = sum(count for code, count in total.counts.items() if code not in NO_ANSWERS)
    print(f"slowest recovery: {total.longest[0]:.0f} virtual seconds (seed {total.longest[1]})")
    void = total.counts["void"]
    print(f"jobs of clients        {answered + void + total.counts['lost']:>10,}")
    print(f"accepted by brokers    {total.accepted:>10,}   some again, after a crash or by another broker")
    print(f"answered once          {answered:>10,}")
    print(f"void                   {void:>10,}   their client crashed")
    print(f"lost                   {total.complaints('lost'):>10,}")
    print(f"answered twice         {total.complaints('answered twice'):>10,}")
    print(f"wrong audio            {total.complaints('wrong audio'):>10,}")
    if not total.failures:
        return 0
    print(f"{len(total.failures)} histories failed:")
    for seed, complaints in total.failures:
        print(f"  python -m tests.sim --seed {seed} --trace   # {complaints[0]}")
    return 1


def _mutations() -> int:
    missed = 0
    for name in MUTATIONS:
        outcome = hunt(name)
        if outcome is None:
            missed += 1
            print(f"{name}: NOT NOTICED in {MUTATION_HISTORIES} histories")
        else:
            print(f"{name}: noticed in history {outcome.seed + 1} (seed {outcome.seed})")
            print(f"    {outcome.complaints[0]}")
    return bool(missed)


def _listed(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts) or "none"


if __name__ == "__main__":
    main()
