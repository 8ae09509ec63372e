"""The wheel is what users get: every module and voice, light to import, and the same bytes each time."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SBOM = ROOT / "requirements" / "voicebus.cdx.json"
PACKAGES = ("broker", "client", "common", "edge", "workers")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


def build(folder: Path) -> Path:
    """A wheel of this tree, with somebody's private voice beside the shipped ones."""
    source = folder / "source"
    # A copy, so that no build folder is left in the tree and none that is there gets into the wheel.
    subprocess.run(["git", "clone", "--quiet", "--depth=1", ROOT.as_uri(), source], check=True)
    for package in (*PACKAGES, "voices", "requirements", "setup.cfg", "pyproject.toml", "README.md"):
        subprocess.run(["cp", "-r", ROOT / package, source], check=True)
    private = source / "voices" / "somebody"
    private.mkdir()
    for file in ("voice.yaml", "reference.wav"):
        (private / file).write_bytes(b"nobody's but theirs")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*command, "--wheel-dir", folder, source],
        check=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
    )
    (built,) = folder.glob("voicebus-*.whl")
    return built


def test_the_wheel_holds_every_module_and_voice(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        f"voicebus/{path.relative_to(ROOT)}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    assert len(modules) > 60
    assert modules <= names
    for voice in ("amber", "basil"):
        assert {f"voicebus/voices/{voice}/{file}" for file in ("voice.yaml", "reference.wav")} <= names
    assert not [name for name in names if "somebody" in name], "a voice of this machine's is not ours to give"
    assert "voicebus/workers/engines/kokoro/atlas.npz" in names
    assert "voicebus/client/py.typed" in names
    assert {f"voicebus/edge/page/{file.name}" for file in (ROOT / "edge/page").iterdir()} <= names
    assert not [name for name in names if name.startswith(("tests", "bench", "voicebus/tests"))]


def test_the_wheel_carries_its_bill_of_materials(wheel: Path) -> None:
    """Where PEP 770 says that tools look for it, and in the wheel's own list of files."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if ".dist-info/sboms/" in name)
        assert name.endswith(".dist-info/sboms/voicebus.cdx.json")
        assert archive.read(name) == SBOM.read_bytes()
        (record,) = (name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
        assert f"{name},sha256=" in archive.read(record).decode()


def test_the_same_tree_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    """Whoever doubts a wheel can make it again."""
    assert build(tmp_path).read_bytes() == wheel.read_bytes()


def test_an_installed_wheel_runs_without_the_tree(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel]
    subprocess.run(install, check=True)
    code = (
        "import sys, voicebus.client, voicebus.broker.cli, voicebus.workers.cli\n"
        "from voicebus.common.voices import VoiceStore\n"
        "print(voicebus.client.__file__)\n"
        "print(*[voice.id for voice in VoiceStore('nowhere').list()])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    place, voices = run.stdout.splitlines()
    assert place.startswith(str(site))
    assert voices == "amber basil"
