"""The wheel is what users get: it must hold every module and every voice, and import lightly."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("broker", "client", "common", "edge", "workers")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # A copy, so that no build folder is left in the tree and none that is there gets into the wheel.
    subprocess.run(["git", "clone", "--quiet", "--depth=1", ROOT.as_uri(), source], check=True)
    for package in (*PACKAGES, "voices", "setup.cfg", "pyproject.toml", "README.md"):
        subprocess.run(["cp", "-r", ROOT / package, source], check=True)
    private = source / "voices" / "somebody"
    private.mkdir()
    for file in ("voice.yaml", "reference.wav"):
        (private / file).write_bytes(b"nobody's but theirs")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", folder, source], check=True)
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
