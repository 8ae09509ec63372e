"""Make a converter with random weights, in the form the original comes in.

python tests/workers/engines/openvoice/checkpoint.py DIR
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from voicebus.workers.engines import coqui

ORIGINAL: Final[dict[str, Any]] = {
    "_version_": "v2",
    "data": {
        "sampling_rate": 22050,
        "filter_length": 1024,
        "hop_length": 256,
        "win_length": 1024,
        "n_speakers": 0,
    },
}


def make(folder: Path) -> Path:
    """Write config.json and checkpoint.pth (131 MB) and return the folder."""
    torch = coqui.torch()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(ORIGINAL))
    config = coqui.module("TTS.vc.configs.openvoice_config").OpenVoiceConfig()
    torch.manual_seed(5)
    model = coqui.module("TTS.vc.models.openvoice").OpenVoice(config)
    with torch.no_grad():
        # Fresh flows are the identity: no voice would change anything.
        for name, weights in model.named_parameters():
            if ".post." in name:
                torch.nn.init.normal_(weights, std=0.5)
    weights = {original_name(name): value for name, value in model.state_dict().items()}
    # What a trainer saves beside them stays in the released file.
    torch.save({"model": weights, "iteration": 1, "optimizer": None}, folder / "checkpoint.pth")
    return folder


def original_name(name: str) -> str:
    """As the original calls a weight: it has PyTorch's older weight norm, coqui the newer."""
    for ours, theirs in (("original0", "weight_g"), ("original1", "weight_v")):
        name = name.replace(f"parametrizations.weight.{ours}", theirs)
    return name


if __name__ == "__main__":
    print(make(Path(sys.argv[1])))
