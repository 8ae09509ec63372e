"""SECURITY.md names modules, tests and settings that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "SECURITY.md").read_text()
SETTINGS = yaml.safe_load((ROOT / "config.yaml").read_text())


def test_its_modules_and_tests_are_there() -> None:
    """A boundary whose guard or whose proof has gone is no boundary."""
    named = set(re.findall(r"`([\w/.]+/[\w.]+\.(?:py|toml|txt))`", PAGE))
    assert len(named) > 60
    assert not [path for path in named if not (ROOT / path).is_file()]
    tests = {path for path in named if path.startswith("tests/") and "/test_" in path}
    assert len(tests) > 20
    assert not [path for path in tests if not re.search(r"\bdef test_", (ROOT / path).read_text())]


def test_its_settings_are_there() -> None:
    named = set(re.findall(r"`(broker|edge|voices|security)\.([a-z_]+)(?:: [^`]*)?`", PAGE))
    assert len(named) > 10
    assert not [(section, key) for section, key in named if key not in SETTINGS[section]]


@pytest.mark.parametrize("row", re.findall(r"^\|(?: [\d, ]*)?\|.*\|$", PAGE, re.MULTILINE))
def test_each_boundary_has_a_guard_and_a_test(row: str) -> None:
    if "| boundary |" in row or set(row) <= set("|-"):
        return
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert ".py`" in cells[-2] or "Makefile" in cells[-2]
    assert "`tests/" in cells[-1]
