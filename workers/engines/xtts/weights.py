"""The files of XTTS-v2: where they are, how they come, and how they become a model.

The weights are under the Coqui Public Model License, which allows no commercial use. Nobody but the operator
can agree to it, so nothing is fetched before the settings say so, and coqui's own prompt, which would hang
a worker without a terminal, is never reached. They are read as plain tensors; coqui's loader would write
to the file it reads.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, cast

from ....common.errors import BusError, ConfigError, ModelMissing
from ....common.models import models_dir
from .. import coqui
from .settings import Settings

log = logging.getLogger(__name__)

CONFIG: Final = "config.json"
VOCABULARY: Final = "vocab.json"
MODEL: Final = "model.pth"
SPEAKERS: Final = "speakers_xtts.pth"
"""Voices that come with the model; a folder of one's own may lack it."""
REQUIRED: Final = (CONFIG, VOCABULARY, MODEL)
FETCHED: Final = (*REQUIRED, SPEAKERS)
"""What a whole download has: where the server is gone, its client gives out what came before it broke off."""
COQUI_NAME: Final = "tts_models/multilingual/multi-dataset/xtts_v2"
LICENCE: Final = "Coqui Public Model License (CPML, non-commercial: https://tts-hub.github.io/cpml)"
TRAINING_KEYS: Final = ("torch_mel_spectrogram_style_encoder", "torch_mel_spectrogram_dvae", "dvae")
"""What a checkpoint in the middle of training holds besides."""
SHARED_KEYS: Final = ("gpt.gpt_inference.", "gpt.gpt.wte.")
"""Second names of weights that are there under their first."""
SAMPLED_BYTES: Final = 65_536


def find(settings: Settings) -> Path:
    """Return the folder of the checkpoint, having fetched it if that is agreed to and needed.

    Raises `ModelMissing` naming what is missing and what to do.
    """
    if settings.model_dir is not None:
        folder = settings.model_dir
        lacking = missing(folder)
        if lacking:
            raise ModelMissing(
                f"{folder} lacks {', '.join(lacking)}: workers.xtts.model_dir must be a folder with "
                f"{', '.join(REQUIRED)}"
            )
        return folder
    if not settings.accept_cpml:
        raise ModelMissing(
            f"the weights of XTTS-v2 are under the {LICENCE}: to agree and have them fetched set "
            "`workers.xtts.accept_cpml: true`, or set `workers.xtts.model_dir` to a folder that holds them"
        )
    return _fetched()


def missing(folder: Path, needed: Sequence[str] = REQUIRED) -> list[str]:
    """Names of the files that this folder should have and has not."""
    return [name for name in needed if not (folder / name).is_file()]


def fingerprint(folder: Path) -> str:
    """A few characters that change with the weights: of their size, their beginning and their end."""
    path = folder / MODEL
    with path.open("rb") as file:
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode() + file.read(SAMPLED_BYTES))
        for place in (size // 2, max(0, size - SAMPLED_BYTES)):
            file.seek(place)
            digest.update(file.read(SAMPLED_BYTES))
    return digest.hexdigest()[:12]


def load(folder: Path, settings: Settings | None = None) -> tuple[Any, Any]:
    """Return coqui's model, in float32 on the CPU, and its configuration with the settings in it."""
    config = coqui.module("TTS.tts.configs.xtts_config").XttsConfig()
    xtts = coqui.module("TTS.tts.models.xtts")
    tokenizer = coqui.module("TTS.tts.layers.xtts.tokenizer")
    try:
        config.load_json(str(folder / CONFIG))
        text = tokenizer.VoiceBpeTokenizer(vocab_file=str(folder / VOCABULARY))
        # Said beforehand, because coqui would make the network twice, which takes ten seconds each time.
        config.model_args.gpt_number_text_tokens = text.get_number_tokens()
        config.model_args.gpt_start_text_token = text.tokenizer.token_to_id("[START]")
        config.model_args.gpt_stop_text_token = text.tokenizer.token_to_id("[STOP]")
        model = xtts.Xtts(config)
        model.tokenizer = text
    except Exception as error:  # json, coqpit, tokenizers and torch each have errors of their own
        raise ModelMissing(f"{CONFIG} or {VOCABULARY} in {folder} is damaged: {error}") from error
    _listen_as_told(config, settings or Settings())
    # The first release's checkpoint has its configuration in it, as an object that coqui itself vouches for.
    vouched = getattr(xtts, "_legacy_safe_globals", nullcontext)
    with vouched():
        weights = coqui.load_weights(folder / MODEL)
    try:
        model.load_state_dict(_plain(weights["model"]))
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ModelMissing(
            f"{MODEL} in {folder} does not fit its {CONFIG}: {str(error).splitlines()[0]}"
        ) from error
    return model, config


def _listen_as_told(config: Any, settings: Settings) -> None:
    config.max_ref_len = settings.max_ref_length or config.max_ref_len
    config.gpt_cond_len = settings.gpt_cond_len or config.gpt_cond_len
    config.gpt_cond_chunk_len = settings.gpt_cond_chunk_len or config.gpt_cond_chunk_len
    if config.gpt_cond_chunk_len > config.gpt_cond_len:
        raise ConfigError(
            f"xtts: gpt_cond_chunk_len must be at most gpt_cond_len, which is {config.gpt_cond_len}, "
            f"not {config.gpt_cond_chunk_len}"
        )


def speakers(folder: Path) -> dict[str, dict[str, Any]]:
    """The stock voices by name; none where their file is absent."""
    path = folder / SPEAKERS
    if not path.is_file():
        return {}
    found: object = coqui.load_weights(path)
    if not isinstance(found, dict):
        raise ModelMissing(f"{path} holds no voices: fetch it again, or take it away")
    return cast("dict[str, dict[str, Any]]", found)


def _plain(weights: dict[str, Any]) -> dict[str, Any]:
    named = {name.removeprefix("xtts."): tensor for name, tensor in weights.items()}
    return {
        name: tensor
        for name, tensor in named.items()
        if name.split(".", 1)[0] not in TRAINING_KEYS and not name.startswith(SHARED_KEYS)
    }


def _fetched() -> Path:
    """The folder that coqui's own manager fills, below voicebus's cache.

    A note says where it is, so that nothing is asked of a server once all is here: a worker must start
    without the internet.
    """
    home = models_dir() / "xtts"
    note = home / "folder"
    if note.is_file():
        folder = Path(note.read_text("utf-8").strip())
        if not missing(folder, FETCHED):
            return folder
    log.info("fetching XTTS-v2 into %s; the operator has agreed to the %s", home, LICENCE)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _agreed(home):
            manager = coqui.module("TTS.utils.manage").ModelManager(output_prefix=home, progress_bar=False)
            found, _, _ = manager.download_model(COQUI_NAME)
    except (BusError, ModuleNotFoundError):
        raise
    except Exception as error:  # the hub's client raises dozens of kinds
        raise ModelMissing(f"XTTS-v2 could not be fetched: {type(error).__name__}: {error}") from error
    folder = Path(found) if Path(found).is_dir() else Path(found).parent
    lacking = missing(folder, FETCHED)
    if lacking:
        raise ModelMissing(f"what was fetched to {folder} lacks {', '.join(lacking)}: start the worker again")
    note.write_text(f"{folder}\n", "utf-8")
    return folder


@contextmanager
def _agreed(home: Path) -> Generator[None, None, None]:
    """For one call: the agreement that the operator has given, and the hub's cache inside our own."""
    constants: Any = coqui.module("huggingface_hub.constants")
    cache = constants.HF_HUB_CACHE
    before = os.environ.get("COQUI_TOS_AGREED")
    os.environ["COQUI_TOS_AGREED"] = "1"
    constants.HF_HUB_CACHE = str(home / "hub")
    try:
        yield
    finally:
        constants.HF_HUB_CACHE = cache
        if before is None:
            del os.environ["COQUI_TOS_AGREED"]
        else:
            os.environ["COQUI_TOS_AGREED"] = before
