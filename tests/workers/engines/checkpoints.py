"""Small checkpoints with random weights, in the very form the real ones come in.

The real weights are gigabytes under licences of their own, so no test may need them. What is made here goes
through the same loaders and the same code. Noise never ends by itself, so the XTTS checkpoint is given a
sense of time: attention compares the text behind with the audio so far, and the stop token wins as soon as
the audio is long enough for its text. Run it to make one for a worker:

    python tests/workers/engines/checkpoints.py xtts DIR [--full]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from voicebus.workers.engines import coqui

LANGUAGES: Final = "en es fr de it pt pl tr ru nl cs ar zh-cn hu ko ja hi".split()  # noqa: SIM905
SPECIAL: Final = ("[STOP]", "[UNK]", "[SPACE]")
LETTERS: Final = (
    "abcdefghijklmnopqrstuvwxyz0123456789.,!?'\"-:;()"
    + "".join(map(chr, range(0xE0, 0x180)))
    + "".join(map(chr, range(0x430, 0x460)))
    + "".join(map(chr, range(0x620, 0x653)))
    + "".join(map(chr, range(0x900, 0x970)))
)
SPEAKERS: Final = ("Tester One", "Tester Two")
TOKENS_A_CHARACTER: Final = 1.4
"""21.5 audio tokens are a second; people speak about fifteen characters in one."""
MARKS: Final = 1
VERDICT: Final = 2
"""The channels that the sense of time needs."""
TINY: Final = {
    "gpt_layers": 2,
    "gpt_n_model_channels": 64,
    "gpt_n_heads": 2,
    "decoder_input_dim": 64,
    "gpt_num_audio_tokens": 130,
    "gpt_start_audio_token": 128,
    "gpt_stop_audio_token": 129,
}
FULL: Final = {
    "gpt_layers": 30,
    "gpt_n_model_channels": 1024,
    "gpt_n_heads": 16,
    "decoder_input_dim": 1024,
    "gpt_num_audio_tokens": 1026,
    "gpt_start_audio_token": 1024,
    "gpt_stop_audio_token": 1025,
}


def make_xtts(folder: Path, sizes: Mapping[str, int] = TINY) -> Path:
    """Write config.json, vocab.json, model.pth and speakers_xtts.pth, and return the folder."""
    torch = coqui.torch()
    folder.mkdir(parents=True, exist_ok=True)
    configs = coqui.module("TTS.tts.configs.xtts_config")
    torch.manual_seed(20)
    vocabulary = _vocabulary(folder / "vocab.json")
    config = configs.XttsConfig()
    for name, value in {
        **sizes,
        "gpt_use_perceiver_resampler": True,
        "gpt_number_text_tokens": len(vocabulary),
        "gpt_start_text_token": vocabulary["[START]"],
        "gpt_stop_text_token": vocabulary["[STOP]"],
    }.items():
        setattr(config.model_args, name, value)
    model = coqui.module("TTS.tts.models.xtts").Xtts(config)
    with torch.no_grad():
        _teach_time(model.gpt)
    config.save_json(str(folder / "config.json"))
    torch.save({"model": model.state_dict()}, folder / "model.pth")
    channels = int(sizes["gpt_n_model_channels"])
    torch.save(
        {
            name: {
                "gpt_cond_latent": torch.randn(1, 32, channels) * (torch.arange(channels) > VERDICT) * 0.02,
                "speaker_embedding": torch.nn.functional.normalize(torch.randn(1, 512, 1), dim=1),
            }
            for name in SPEAKERS
        },
        folder / "speakers_xtts.pth",
    )
    return folder


def _vocabulary(path: Path) -> dict[str, int]:
    """A byte pair encoding without any pairs: a token a character."""
    tokenizers = coqui.module("tokenizers")
    tags = [f"[{language}]" for language in LANGUAGES]
    names = [*SPECIAL, *dict.fromkeys(LETTERS), "[START]", *tags]
    vocabulary = {name: index for index, name in enumerate(names)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[], unk_token="[UNK]"))  # noqa: S106 - a word, no secret
    tokenizer.add_special_tokens(
        [tokenizers.AddedToken(name, special=True, normalized=False) for name in (*SPECIAL, "[START]", *tags)]
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(path))
    return vocabulary


def _teach_time(gpt: Any) -> None:
    """Let the stop token's logit rise with the audio's length, less that of the text.

    The channel of marks says what a position is: text up, audio down. The first head of the first layer,
    whose attention is as good as even, writes the sum into that of the verdict, which nothing else touches,
    and the stop token reads it.
    """
    marks, verdict = MARKS, VERDICT
    layer = gpt.gpt.h[0]
    width = gpt.model_dim
    for embedding in (
        gpt.text_embedding,
        gpt.mel_embedding,
        gpt.text_pos_embedding.emb,
        gpt.mel_pos_embedding.emb,
    ):
        embedding.weight[:, [marks, verdict]] = 0
    gpt.text_embedding.weight[:, marks] = 1
    gpt.mel_embedding.weight[:, marks] = -1 / TOKENS_A_CHARACTER
    gpt.conditioning_perceiver.norm.gamma[[marks, verdict]] = 0
    for block in gpt.gpt.h:
        for writer in (block.attn.c_proj, block.mlp.c_proj):
            writer.weight[:, [marks, verdict]] = 0
            writer.bias[[marks, verdict]] = 0
    value = 2 * width  # c_attn makes query, key and value side by side
    layer.attn.c_attn.weight[:, value] = 0
    layer.attn.c_attn.weight[marks, value] = 1
    layer.attn.c_proj.weight[0, verdict] = -1
    gpt.mel_head.weight[gpt.stop_audio_token] = 0
    gpt.mel_head.weight[gpt.stop_audio_token, verdict] = 300
    gpt.mel_head.bias[gpt.stop_audio_token] = 0


def main() -> None:
    """Make one checkpoint."""
    parser = argparse.ArgumentParser(description="Make a checkpoint with random weights.")
    parser.add_argument("engine", choices=["xtts"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--full", action="store_true", help="as large as the real one")
    chosen = parser.parse_args()
    print(make_xtts(chosen.folder, FULL if chosen.full else TINY))


if __name__ == "__main__":
    main()
