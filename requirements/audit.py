"""Ask whether a pinned release is known to be vulnerable: `make audit`, or `python -m requirements.audit`.

pip-audit asks, of every pin in every lock, whatever Python it is for. Its silence is not proof: it succeeds
where an index knows no advisories, and skips what it cannot find. So a release that is long known to be
vulnerable is asked about first, and nothing counts as audited unless the source knows that one.

Exit codes: 0, all were audited and none is known to be vulnerable; 1, some are; 3, some or all could not be
audited, so nothing is known of these. (`make` prints the code and ends with its own, 2.)
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from .locks import LOCKS, Lock, Pin, pinned_by_version

CLEAN: Final = 0
VULNERABLE: Final = 1
NOT_AUDITED: Final = 3

#: Known to be vulnerable since 2020 (CVE-2020-14343), by every source of advisories on Python packages.
CANARY: Final = Pin("pyyaml", "5.3.1", None, (), ())


class Advisory(msgspec.Struct, frozen=True):
    """What is known against a release."""

    id: str
    fix_versions: list[str] = []
    aliases: list[str] = []


class Answer(msgspec.Struct, frozen=True):
    """What was found out about a release; `skip_reason` where nothing was."""

    name: str
    version: str = ""
    vulns: list[Advisory] = []
    skip_reason: str | None = None


class _Report(msgspec.Struct, frozen=True):
    dependencies: list[Answer]


class NotAudited(Exception):
    """No source of advisories could be asked."""


@dataclass(frozen=True, slots=True)
class Source:
    """Whose advisories are asked, in pip-audit's options; by default the package index's."""

    options: tuple[str, ...] = ()

    def ask(self, pins: Iterable[Pin]) -> list[Answer]:
        """Ask about these releases."""
        return [answer for group in _one_release_each(pins) for answer in self._ask(group)]

    def _ask(self, pins: Sequence[Pin]) -> list[Answer]:
        command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "--format", "json"]
        with tempfile.NamedTemporaryFile("w", prefix="voicebus-", suffix=".txt") as file:
            file.writelines(f"{pin.name}=={pin.version}\n" for pin in pins)
            file.flush()
            command += ["--progress-spinner", "off", "--requirement", file.name, *self.options]
            run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - pip-audit
        try:
            answers = msgspec.json.decode(run.stdout, type=_Report).dependencies
        except msgspec.DecodeError as error:
            said = run.stderr.strip().splitlines() or [f"exit code {run.returncode}"]
            raise NotAudited(f"pip-audit gave no answer: {said[-1]}") from error
        missing = {pin.name for pin in pins} - {answer.name for answer in answers}
        return answers + [Answer(name, skip_reason="pip-audit left it out") for name in sorted(missing)]


def audit(locks: Sequence[Lock], source: Source) -> int:
    """Audit them all, say what was found, and return the exit code."""
    pins = {(pin.name, pin.version): pin for lock in locks for pin in lock.pins()}
    pins |= {(pin.name, pin.version): pin for pin in pinned_by_version()}
    try:
        (canary,) = source.ask([CANARY])
        if not canary.vulns:
            reason = canary.skip_reason or "no advisory on it"
            raise NotAudited(f"{CANARY.name} {CANARY.version}, long known to be vulnerable: {reason}")
        answers = source.ask(pins.values())
    except NotAudited as error:
        print(f"NOT AUDITED: no advisory database could be asked. {error}", file=sys.stderr)
        return NOT_AUDITED
    vulnerable = [answer for answer in answers if answer.vulns]
    skipped = [answer for answer in answers if answer.skip_reason]
    for answer in vulnerable:
        for known in answer.vulns:
            names = " ".join([known.id, *known.aliases])
            mended = " or ".join(known.fix_versions) or "no release yet"
            print(f"VULNERABLE: {answer.name} {answer.version}: {names}; mended in {mended}")
    for answer in skipped:
        print(f"NOT AUDITED: {answer.name}: {answer.skip_reason}", file=sys.stderr)
    print(f"{len(pins)} releases: {len(vulnerable)} known to be vulnerable, {len(skipped)} not audited")
    if vulnerable:
        return VULNERABLE
    return NOT_AUDITED if skipped else CLEAN


def _one_release_each(pins: Iterable[Pin]) -> list[list[Pin]]:
    """In groups that hold no package twice: pip-audit takes what it is given for one installation."""
    groups: list[dict[str, Pin]] = []
    for pin in pins:
        group = next((group for group in groups if pin.name not in group), None)
        if group is None:
            groups.append(group := {})
        group[pin.name] = pin
    return [list(group.values()) for group in groups]


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    about = "Ask whether a pinned release is known to be vulnerable."
    parser = argparse.ArgumentParser(prog="python -m requirements.audit", description=about)
    parser.add_argument("--service", choices=("pypi", "osv", "esms"), default="pypi", help="whose advisories")
    parser.add_argument("--osv-url", help="another place that answers OSV's queries")
    options = parser.parse_args(arguments)
    chosen = ["--vulnerability-service", options.service]
    if options.osv_url:
        chosen += ["--osv-url", options.osv_url]
    return audit(LOCKS, Source(tuple(chosen)))


if __name__ == "__main__":
    sys.exit(main())
