"""The table at the end: what was broken how often, what became of the jobs, what the brokers counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from tests.chaos.accounts import GOOD, Account, Fate
from tests.chaos.totals import Totals

SHOWN: Final = 10
COUNTED: Final = (
    "accepted", "recovered", "done", "failed", "cancelled", "refused", "attached", "retried", "returned",
    "stale", "slow_consumers", "protocol_errors", "illegal_moves",
)  # fmt: skip


def print_faults(injected: Mapping[str, int], remarks: Mapping[str, str], skipped: Mapping[str, str]) -> None:
    """One row a kind, those that are left out with the reason."""
    print(f"\n{'fault':<18}{'times':>6}")
    for kind, times in injected.items():
        print(f"{kind:<18}{times:>6}  {remarks.get(kind, '')}".rstrip())
    for kind, why in skipped.items():
        print(f"{kind:<18}{0:>6}  skipped: {why}")
    print(f"{'in all':<18}{sum(injected.values()):>6}")


def print_accounts(accounts: Mapping[str, Account]) -> None:
    """One row a client, one column a fate."""
    print(f"\n{'client':<12}{'jobs':>7}" + "".join(f"{fate.value:>14}" for fate in Fate))
    jobs = 0
    total: Counter[Fate] = Counter()
    for name, account in accounts.items():
        _print_fates(name, account.jobs, account.fates)
        jobs += account.jobs
        total.update(account.fates)
    _print_fates("in all", jobs, total)
    refused: Counter[str] = sum((account.refused for account in accounts.values()), Counter())
    for code, times in refused.items():
        print(f"refused as {code} while a disk was full, and asked for again: {times}")
    print(f"fetched by the id a killed client had left: {sum(a.fetched for a in accounts.values())}")
    print(f"submitted by a killed client, but never promised: {sum(a.unpromised for a in accounts.values())}")


def print_totals(totals: Totals) -> None:
    """What the brokers said of themselves."""
    shown = ", ".join(f"{name} {totals.totals[name]}" for name in COUNTED)
    print(f"\nbrokers: {shown}")
    failures = ", ".join(f"{code} {times}" for code, times in sorted(totals.failures.items())) or "none"
    print(f"brokers' failures by code: {failures}")
    if totals.unread:
        print(f"lives of brokers whose totals could not be read: {totals.unread}")


def faults_found(accounts: Mapping[str, Account], totals: Totals, findings: Sequence[str]) -> list[str]:
    """Everything that must not be, in words; empty after a good run."""
    found = list(findings)
    for name, account in accounts.items():
        found += [
            f"{name} line {index} {fate.value}: "
            + "; ".join(f"{row.at:.3f} life {row.life} {row.what} {row.detail}" for row in story)
            for index, fate, story in account.wrong
            if fate not in GOOD
        ]
    found += [
        f"brokers counted {totals.totals[name]} {name}"
        for name in ("protocol_errors", "illegal_moves")
        if totals.totals[name]
    ]
    return found


def _print_fates(name: str, jobs: int, fates: Mapping[Fate, int]) -> None:
    print(f"{name:<12}{jobs:>7}" + "".join(f"{fates.get(fate, 0):>14}" for fate in Fate))
