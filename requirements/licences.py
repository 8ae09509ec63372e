"""The licence of every pinned release: read, held against what is allowed, and written into docs/licences.md.

`python -m requirements.licences` writes that page, at the end of `make lock`. A release that is installed
here says its licence itself; of one that is for another Python or system the package index is asked. Metadata
is often vague (`BSD License`), silent, or tells nothing of a library inside the wheel: `licences.toml` has
what we read there, and names each package that comes in although its licence is not allowed, with the reason.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any, Final

from license_expression import ExpressionError, get_spdx_licensing

from .locks import FOLDER, LOCKS, Pin, pinned_by_version

PAGE: Final = FOLDER.parent / "docs" / "licences.md"
POLICY: Final = FOLDER / "licences.toml"

#: The classifiers that name one licence; `BSD License` and the like do not.
CLASSIFIERS: Final = {
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}

_SPDX: Any = get_spdx_licensing()

_INTRODUCTION: Final = """\
# Licences

Every release that a lock in `requirements/` can install, and PyTorch, which is pinned by version. Written by
`make lock` from the metadata of the packages and `requirements/licences.toml`; a test fails when this page is
behind, when a licence changes, and when one comes that is not allowed there.
Why each direct dependency: [dependencies.md](dependencies.md).

| package | release | licence | locks | accepted because |
|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Stated:
    """What a package's metadata says of its licence."""

    expression: str | None
    field: str | None
    classifiers: tuple[str, ...]

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Stated:
        """What is said in metadata in its form as JSON."""
        return cls(found.get("license_expression"), found.get("license"), tuple(found.get("classifier", ())))

    @classmethod
    def installed(cls, pin: Pin) -> Stated | None:
        """What the installed package says, if just this release is installed."""
        try:
            found = metadata(pin.name)
        except PackageNotFoundError:
            return None
        if found["Version"].partition("+")[0] != pin.version:
            return None
        return cls.of(found.json)

    def spdx(self) -> str | None:
        """Its licence by identifiers of SPDX, where the metadata is as clear as that."""
        for words in (self.expression, self.field):
            if words and (known := normal(words)):
                return known
        named = {word.rpartition(" :: ")[2] for word in self.classifiers if word.startswith("License :: OSI")}
        if named and named <= CLASSIFIERS.keys():
            return normal(" AND ".join(sorted(CLASSIFIERS[name] for name in named)))
        return None


def normal(expression: str) -> str | None:
    """An SPDX expression in one spelling; None for what is no such expression."""
    try:
        return str(_SPDX.parse(expression, validate=True))
    except ExpressionError:
        return None


@dataclass(frozen=True, slots=True)
class Policy:
    """What may come in."""

    allowed: frozenset[str]
    packages: Mapping[str, Mapping[str, str]]

    @classmethod
    def load(cls) -> Policy:
        """What `licences.toml` says."""
        read = tomllib.loads(POLICY.read_text())
        return cls(frozenset(read["allowed"]), read["packages"])

    def noted(self, pin: Pin) -> Mapping[str, str]:
        """What `licences.toml` has on it: on just this release, or on the package."""
        return self.packages.get(f"{pin.name}=={pin.version}") or self.packages.get(pin.name) or {}

    def licence(self, pin: Pin, stated: Stated) -> str | None:
        """The whole of a package: what it says, or what we read, and what its wheel carries besides."""
        noted = self.noted(pin)
        own = noted.get("read") or stated.spdx()
        carried = noted.get("contains")
        return normal(f"({own}) AND {carried}" if carried else own) if own else None

    def objection(self, pin: Pin, licence: str | None) -> str | None:
        """What speaks against it; None where nothing does."""
        if licence is None:
            return (
                f"{pin.name} {pin.version}: no licence that SPDX knows; read it, and note it in licences.toml"
            )
        if self._permits(_SPDX.parse(licence)):
            return None
        noted = self.noted(pin)
        if noted.get("why") and normal(noted.get("accepted", "")) == licence:
            return None
        return f"{pin.name} {pin.version}: {licence} is neither allowed nor accepted in licences.toml"

    def _permits(self, expression: Any) -> bool:
        choose: Callable[[Iterable[bool]], bool] = any if expression.__class__.__name__ == "OR" else all
        if getattr(expression, "args", ()):
            return choose(self._permits(part) for part in expression.args)
        return str(expression) in self.allowed


def pinned() -> dict[tuple[str, str], tuple[Pin, list[str]]]:
    """Every release that can be installed, with the locks that it is in."""
    found: dict[tuple[str, str], tuple[Pin, list[str]]] = {}
    for lock in LOCKS:
        for pin in lock.pins():
            found.setdefault((pin.name, pin.version), (pin, []))[1].append(lock.name)
    for pin in pinned_by_version():
        found[pin.name, pin.version] = (pin, ["by version"])
    return dict(sorted(found.items()))


def rows() -> dict[tuple[str, str], str]:
    """The licences on the page, by name and release."""
    found = re.findall(r"^\| (\S+) \| (\S+) \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE)
    return {(name, release): licence for name, release, licence in found if name not in ("package", "---")}


def page(policy: Policy, licences: Mapping[tuple[str, str], str]) -> str:
    """The page."""
    lines: list[str] = []
    for key, (pin, locks) in pinned().items():
        cells = (pin.name, pin.version, licences[key], ", ".join(locks), policy.noted(pin).get("why", ""))
        lines.append("| " + " | ".join(cells) + " |\n")
    return _INTRODUCTION + "".join(lines)


def asked(pin: Pin) -> Stated:
    """What the package index has of a release that is not for this Python or system, or not installed."""
    with tempfile.TemporaryDirectory(prefix="voicebus-") as folder:
        path = Path(folder) / "requirement.txt"
        hashes = "".join(f" --hash=sha256:{digest}" for digest in pin.hashes)
        path.write_text(f"{pin.name}=={pin.version}{hashes}\n")
        wheel = ["--only-binary", ":all:", "--target", folder, "--ignore-requires-python"]
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps", *wheel]
        command += ["--python-version", "3.13" if pin.marker and "3.1" in str(pin.marker) else "3.11"]
        run = subprocess.run(  # noqa: S603 - pip, and a release of our own locks
            [*command, "--report", "-", "--requirement", str(path)],
            capture_output=True,
            text=True,
            check=True,
        )
    return Stated.of(json.loads(run.stdout)["install"][0]["metadata"])


def main() -> int:
    """Entry point."""
    policy = Policy.load()
    licences: dict[tuple[str, str], str] = {}
    objections: list[str] = []
    for key, (pin, _) in pinned().items():
        licence = policy.licence(pin, Stated.installed(pin) or asked(pin))
        if objection := policy.objection(pin, licence):
            objections.append(objection)
        licences[key] = licence or "unknown"
    PAGE.write_text(page(policy, licences))
    print("\n".join(objections) or f"{PAGE.name}: {len(licences)} releases, all of them allowed or accepted")
    return 1 if objections else 0


if __name__ == "__main__":
    sys.exit(main())
