"""The arrows of the architecture, checked: who may import whom, and what the cores must not touch."""

from __future__ import annotations

import ast
import configparser
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "common": set(),
    "broker": {"common"},
    "workers": {"common"},
    "client": {"common"},
    "edge": {"common", "client"},
}
WORLD = {"zmq", "asyncio", "time", "random", "threading", "socket", "datetime"}
SOURCES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]
assert len(SOURCES) > 20


def imports(path: Path) -> set[str]:
    """Absolute names of all modules a file imports, ours as `broker.core`."""
    found: set[str] = set()
    here = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level]
            parts = (*base, *(node.module.split(".") if node.module else ()))
            found |= {".".join((*parts, alias.name)) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_run_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    used = {name.removeprefix("voicebus.").split(".")[0] for name in imports(path)}
    assert used & MAY_IMPORT.keys() <= MAY_IMPORT[package] | {package}


@pytest.mark.parametrize("package", ["broker", "workers", "client"])
def test_the_cores_know_no_socket_clock_or_chance(package: str) -> None:
    """And neither do the modules of ours that they stand on."""
    seen: set[Path] = set()
    todo = [ROOT / package / "core.py"]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in imports(path):
            assert name.split(".")[0] not in WORLD, f"{path.relative_to(ROOT)} imports {name}"
            if name.split(".")[0] == package:
                for parts in (name.split("."), name.split(".")[:-1]):
                    module = ROOT.joinpath(*parts).with_suffix(".py")
                    if module.is_file():
                        todo.append(module)
    assert len(seen) > 1 or package != "broker"


def loaded_by(module: str, *suspects: str) -> list[str]:
    """Which of the suspects a fresh interpreter has loaded after importing a module."""
    code = f"import sys, {module}; print(*[name for name in {suspects!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.sep)
    return run.stdout.split()


def test_the_client_brings_nothing_heavy() -> None:
    assert loaded_by("voicebus.client", "torch", "aiohttp", "onnxruntime", "TTS") == []


def test_the_agent_never_imports_numpy_or_torch() -> None:
    """The process that beats must not share its interpreter with what can hold the GIL for seconds."""
    assert loaded_by("voicebus.workers.agent", "numpy", "torch", "onnxruntime") == []


def test_every_package_is_checked_for_types() -> None:
    """`edge` and `voices` stood in no list, so that `make check` passed over 93 errors in them."""
    setup = configparser.ConfigParser()
    setup.read_string((ROOT / "setup.cfg").read_text())
    packages = setup["options"]["packages"].split()
    assert "voicebus.edge" in packages
    checked = set(json.loads((ROOT / "pyrightconfig.json").read_text())["include"])
    assert {name.split(".")[1] for name in packages} <= checked
