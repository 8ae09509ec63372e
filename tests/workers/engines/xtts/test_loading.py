"""Where the weights come from, what is refused among them, and what they are loaded onto."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.workers.engines.xtts.hub import serving
from voicebus.common.errors import ConfigError, ModelMissing
from voicebus.workers.engine import Reference, Request, Row
from voicebus.workers.engines import coqui
from voicebus.workers.engines.xtts import weights
from voicebus.workers.engines.xtts.engine import XttsEngine
from voicebus.workers.engines.xtts.settings import Settings

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]

FETCH = """
import sys
from voicebus.common.errors import BusError
from voicebus.workers.engines.xtts import weights
from voicebus.workers.engines.xtts.settings import Settings
try:
    print(weights.find(Settings.read({"accept_cpml": sys.argv[1]})))
except BusError as error:
    print(error)
import os
print(os.environ.get("COQUI_TOS_AGREED"))
"""
"""In a process of its own: the hub's address is read when its client is imported."""


def fetch(home: Path, hub: str, agreed: bool) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != "COQUI_TOS_AGREED"}
    environment |= {"VOICEBUS_MODELS": str(home), "HF_ENDPOINT": hub, "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FETCH, str(agreed)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def copied(checkpoint: Path, folder: Path, *left_out: str) -> Path:
    """The checkpoint in a folder of its own, its large file not copied."""
    folder.mkdir()
    for file in checkpoint.iterdir():
        if file.name not in left_out:
            (folder / file.name).symlink_to(file)
    return folder


def test_with_agreement_the_weights_are_fetched_once_and_load(checkpoint: Path, tmp_path: Path) -> None:
    with serving(checkpoint) as hub:
        said, after = fetch(tmp_path, hub.url, agreed=True)
        folder = Path(said)
        assert after == "None"
        assert tmp_path in folder.parents
        assert (folder / "model.pth").read_bytes() == (checkpoint / "model.pth").read_bytes()
        asked = len(hub.asked)
        assert asked > 0
        assert fetch(tmp_path, hub.url, agreed=True)[0] == said
        assert len(hub.asked) == asked
    assert weights.missing(folder) == []
    weights.load(folder)


def test_without_agreement_no_server_is_asked(checkpoint: Path, tmp_path: Path) -> None:
    with serving(checkpoint) as hub:
        said = fetch(tmp_path, hub.url, agreed=False)[0]
        assert said.startswith("model_missing:")
        assert "accept_cpml: true" in said
        assert hub.asked == []


def test_a_server_that_lacks_the_files_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with serving(tmp_path / "empty") as hub:
        said = fetch(tmp_path / "models", hub.url, agreed=True)[0]
    assert said.startswith("model_missing: XTTS-v2 could not be fetched")


@pytest.mark.parametrize("name", ["model.pth", "speakers_xtts.pth"])
def test_what_broke_off_is_not_taken_for_whole_and_can_be_fetched_again(
    checkpoint: Path, tmp_path: Path, name: str
) -> None:
    with serving(checkpoint) as hub:
        hub.broken = name
        said = fetch(tmp_path, hub.url, agreed=True)[0]
        assert said.startswith("model_missing: XTTS-v2 could not be fetched")
    gone = fetch(tmp_path, hub.url, agreed=True)[0]
    assert gone.startswith("model_missing:")
    with serving(checkpoint) as hub:
        folder = Path(fetch(tmp_path, hub.url, agreed=True)[0])
    assert (folder / name).read_bytes() == (checkpoint / name).read_bytes()


class Trap:
    """What a checkpoint by somebody with bad intentions holds."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_checkpoint_cannot_run_code(checkpoint: Path, tmp_path: Path) -> None:
    folder = copied(checkpoint, tmp_path / "bad", "model.pth")
    sprung = tmp_path / "sprung"
    coqui.torch().save({"model": {}, "config": Trap(sprung)}, folder / "model.pth")
    with pytest.raises(ModelMissing, match="could run code"):
        XttsEngine().load({"model_dir": str(folder), "device": "cpu"})
    assert not sprung.exists()


def test_no_container_and_no_protocol_gets_code_through(tmp_path: Path) -> None:
    torch = coqui.torch()
    sprung, file = tmp_path / "sprung", tmp_path / "model.pth"

    def refused() -> None:
        with pytest.raises(ModelMissing, match=rf"{file} is refused") as told:
            coqui.load_weights(file)
        assert "weights_only" not in told.value.message, "nobody is told how to switch this off"
        assert not sprung.exists()

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        file.write_bytes(pickle.dumps(Trap(sprung), protocol=protocol))
        refused()
    for zipped in (True, False):
        torch.save({"model": Trap(sprung)}, file, _use_new_zipfile_serialization=zipped)
        refused()
    with tarfile.open(file, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            data = pickle.dumps(Trap(sprung))
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    refused()
    with zipfile.ZipFile(file, "w") as program:  # what PyTorch knows TorchScript by
        program.writestr("x/constants.pkl", pickle.dumps(Trap(sprung), protocol=2))
        program.writestr("x/data.pkl", pickle.dumps(Trap(sprung), protocol=2))
        program.writestr("x/version", "3\n")
    refused()


def test_a_small_archive_cannot_become_a_large_one(tmp_path: Path) -> None:
    """A megabyte of packed zeros took two gigabytes to be looked at."""
    torch = coqui.torch()
    torch.save({"model": torch.zeros(3)}, tmp_path / "small.pth")
    with (
        zipfile.ZipFile(tmp_path / "small.pth") as small,
        zipfile.ZipFile(tmp_path / "model.pth", "w", zipfile.ZIP_DEFLATED) as large,
    ):
        for name in small.namelist():
            large.writestr(name, small.read(name) + (bytes(1 << 26) if name.endswith("data.pkl") else b""))
    with pytest.raises(ModelMissing, match=r"model\.pth is refused.*packed"):
        coqui.load_weights(tmp_path / "model.pth")
    assert coqui.load_weights(tmp_path / "small.pth")["model"].shape == (3,)


@pytest.mark.parametrize("version", ["2.5.1", "2.9.1+cu128", "1.13", "unknown"])
def test_a_pytorch_that_lets_weights_run_code_reads_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr("torch.__version__", version)
    with pytest.raises(ConfigError, match=r"install 2\.10 or later"):
        coqui.load_weights(tmp_path / "model.pth")


def test_a_voice_that_claims_more_than_it_holds_is_refused_before_it_is_made(engine: XttsEngine) -> None:
    """One number in the shape of a billion took four gigabytes to be refused."""
    torch = coqui.torch()
    with pytest.raises(ValueError, match="a voice of this model"):
        engine.model.voice(torch.zeros(1).expand(1 << 40), torch.zeros(1, 512, 1))


def test_a_file_of_speakers_cannot_either(checkpoint: Path, tmp_path: Path) -> None:
    folder = copied(checkpoint, tmp_path / "bad", "speakers_xtts.pth")
    coqui.torch().save({"Tester": Trap(tmp_path / "sprung")}, folder / "speakers_xtts.pth")
    with pytest.raises(ModelMissing, match="could run code"):
        XttsEngine().load({"model_dir": str(folder), "device": "cpu"})
    assert not (tmp_path / "sprung").exists()
    coqui.torch().save([1], folder / "speakers_xtts.pth")
    with pytest.raises(ModelMissing, match=r"speakers_xtts\.pth holds no voices"):
        XttsEngine().load({"model_dir": str(folder), "device": "cpu"})


@pytest.mark.parametrize("name", ["model.pth", "config.json", "vocab.json"])
def test_a_damaged_file_is_named(checkpoint: Path, tmp_path: Path, name: str) -> None:
    folder = copied(checkpoint, tmp_path / "bad", name)
    with (checkpoint / name).open("rb") as file:
        (folder / name).write_bytes(file.read(1000))
    with pytest.raises(ModelMissing, match=name):
        XttsEngine().load({"model_dir": str(folder), "device": "cpu"})


def test_weights_of_another_size_are_named(checkpoint: Path, tmp_path: Path) -> None:
    folder = copied(checkpoint, tmp_path / "bad", "config.json")
    text = (checkpoint / "config.json").read_text("utf-8")
    (folder / "config.json").write_text(text.replace('"gpt_layers": 2', '"gpt_layers": 3'), "utf-8")
    with pytest.raises(ModelMissing, match=r"model\.pth .*does not fit its config\.json"):
        XttsEngine().load({"model_dir": str(folder), "device": "cpu"})


def test_the_release_with_its_configuration_inside_loads_and_is_left_as_it_is(
    checkpoint: Path, tmp_path: Path
) -> None:
    """The first release's file: an object of a class that has since moved, and keys with other names."""
    torch = coqui.torch()
    folder = copied(checkpoint, tmp_path / "old", "model.pth")
    xtts = coqui.module("TTS.tts.models.xtts")
    config = coqui.module("TTS.tts.configs.xtts_config").XttsConfig()
    model = coqui.load_weights(checkpoint / "model.pth")["model"]
    named = {f"xtts.{name}": tensor for name, tensor in model.items()}
    named["xtts.gpt.gpt.wte.weight"] = model["gpt.mel_embedding.weight"]
    named["dvae.weight"] = torch.zeros(1)
    with xtts._legacy_safe_globals():
        torch.save({"config": config, "model": named}, folder / "model.pth")
    before = shutil.copy(folder / "model.pth", tmp_path / "before")
    weights.load(folder)
    assert (folder / "model.pth").read_bytes() == Path(before).read_bytes()


def test_a_device_that_is_not_here_is_named_with_those_that_are(checkpoint: Path) -> None:
    for device in ("cuda:99", "toaster"):
        with pytest.raises(ConfigError, match=rf"no device '{device}' here.*cpu"):
            XttsEngine().load({"model_dir": str(checkpoint), "device": device})


def test_half_precision_speaks(checkpoint: Path) -> None:
    engine = XttsEngine()
    engine.load(
        {"model_dir": str(checkpoint), "device": "cpu", "precision": "bfloat16", "threads": 1, "batch": 2}
    )
    rows = [
        Row(Request(text, "en"), engine.stock_voice()) for text in ("Hello there, my friends.", "Good bye.")
    ]
    parts = [samples for _, samples in engine.speak_batch(rows) if samples is not None and samples.size]
    assert len(parts) == 2
    assert all(np.isfinite(part).all() and part.size > 1000 for part in parts)
    engine.close()


def test_without_stock_voices_one_must_be_named(checkpoint: Path, tmp_path: Path) -> None:
    engine = XttsEngine()
    folder = copied(checkpoint, tmp_path / "bare", "speakers_xtts.pth")
    engine.load({"model_dir": str(folder), "device": "cpu", "threads": 1, "batch": 1})
    with pytest.raises(ConfigError, match=r"speakers_xtts\.pth is missing"):
        engine.stock_voice()
    with pytest.raises(ConfigError, match="speakers_xtts"):
        XttsEngine().load({"model_dir": str(folder), "device": "cpu", "speaker": "Ana"})


def test_the_version_follows_the_weights(engine: XttsEngine, checkpoint: Path) -> None:
    assert engine.version == f"1-{weights.fingerprint(checkpoint)}-{engine.model.listening}"
    assert XttsEngine().version == "1"
    assert Settings.read({"model_dir": "~/x"}).model_dir == Path.home() / "x"


def test_the_version_follows_how_recordings_are_listened_to(engine: XttsEngine, checkpoint: Path) -> None:
    settings = {"model_dir": str(checkpoint), "device": "cpu", "threads": 1, "batch": 1}
    brief = XttsEngine()
    brief.load({**settings, "max_ref_length": 5, "gpt_cond_len": 3, "gpt_cond_chunk_len": 3})
    assert brief.version != engine.version
    sound = np.random.default_rng(1).normal(0, 0.1, 24_000 * 12).astype(np.float32)
    heard, cut = (Reference("me", samples, 24_000, "1" * 64) for samples in (sound, sound[: 24_000 * 5]))
    brief_pack, cut_pack, full_pack = (
        brief.pack(brief.voice(heard)),
        brief.pack(brief.voice(cut)),
        engine.pack(engine.voice(heard)),
    )
    assert brief_pack is not None
    assert cut_pack is not None
    assert full_pack is not None
    for part, tail in (("latents", 1e-3), ("embedding", 1e-3)):
        assert np.abs(brief_pack[part] - cut_pack[part]).max() < tail
        assert np.abs(brief_pack[part] - full_pack[part]).max() > 0
    brief.close()
    with pytest.raises(ConfigError, match="at most gpt_cond_len, which is 3"):
        XttsEngine().load({**settings, "gpt_cond_len": 3, "gpt_cond_chunk_len": 4})
