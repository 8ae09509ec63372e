"""The settings of the xtts engine, checked before gigabytes are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ....common.errors import ConfigError
from ..threads import default_threads
from .options import NAMES, RANGES, WHOLE, Sampling, sampling

PRECISIONS: Final = ("auto", "float32", "float16", "bfloat16")
MAX_AUDIO_TOKENS: Final = 602
"""The model has learnt positions for no more; they are 28 seconds."""
NUMBERS: Final[Mapping[str, tuple[int, int]]] = {
    "threads": (1, 64),
    "batch": (1, 64),
    "device_memory_mib": (64, 1_048_576),
    "max_tokens": (10, MAX_AUDIO_TOKENS),
    "max_ref_length": (1, 600),
    "gpt_cond_len": (1, 600),
    "gpt_cond_chunk_len": (1, 60),
}
OTHERS: Final = ("model_dir", "accept_cpml", "device", "precision", "graphs", "speaker")


@dataclass(frozen=True, slots=True)
class Settings:
    """What `load` was told."""

    model_dir: Path | None = None
    "A folder with the checkpoint; None for the one that is fetched once the licence is agreed to."
    accept_cpml: bool = False
    "Whether the operator agrees to the Coqui Public Model License."
    device: str = "auto"
    threads: int = 1
    precision: str = "auto"
    "Of the language model; auto is float16 on a GPU. The vocoder is float32 always."
    graphs: bool = True
    "On CUDA, whether a decoding step is recorded once and played back."
    device_memory_mib: int | None = None
    "MiB of a GPU's memory that may be taken; None is all of it."
    batch: int | None = None
    "None is what suits the device."
    max_tokens: int = MAX_AUDIO_TOKENS
    "Most audio tokens of one segment."
    max_ref_length: int | None = None
    "Seconds of a recording that are listened to; None, here and below, is what the checkpoint says."
    gpt_cond_len: int | None = None
    "Seconds of these from which the manner of speaking is learnt."
    gpt_cond_chunk_len: int | None = None
    "Seconds that are looked at in one piece for that."
    speaker: str = ""
    "The stock voice that is meant where none is named; empty for the first."
    sampling: Sampling = field(default_factory=Sampling)

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Settings:
        """Check raw settings. Raises `ConfigError` for one that is unknown or out of range."""
        known = (*OTHERS, *NUMBERS, *NAMES)
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ConfigError(f"xtts has no setting {unknown[0]!r}; it knows {', '.join(sorted(known))}")
        folder = settings.get("model_dir")
        return cls(
            model_dir=Path(str(folder)).expanduser() if folder else None,
            accept_cpml=_switch("accept_cpml", settings.get("accept_cpml", False)),
            device=str(settings.get("device") or "auto"),
            threads=_whole("threads", settings.get("threads")) or default_threads(),
            precision=_word("precision", settings.get("precision") or "auto", PRECISIONS),
            graphs=_switch("graphs", settings.get("graphs", True)),
            device_memory_mib=_whole("device_memory_mib", settings.get("device_memory_mib")),
            batch=_whole("batch", settings.get("batch")),
            max_tokens=_whole("max_tokens", settings.get("max_tokens")) or MAX_AUDIO_TOKENS,
            max_ref_length=_whole("max_ref_length", settings.get("max_ref_length")),
            gpt_cond_len=_whole("gpt_cond_len", settings.get("gpt_cond_len")),
            gpt_cond_chunk_len=_whole("gpt_cond_chunk_len", settings.get("gpt_cond_chunk_len")),
            speaker=str(settings.get("speaker") or ""),
            sampling=sampling(
                {name: _typed(name, settings[name]) for name in NAMES if name in settings}, error=ConfigError
            ),
        )


def _whole(name: str, value: object) -> int | None:
    if value in (None, "", "auto"):
        return None
    least, most = NUMBERS[name]
    try:
        number = int(str(value))
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise ConfigError(f"xtts: {name} must be a whole number from {least} to {most}, not {value!r}")
    return number


def _word(name: str, value: object, words: tuple[str, ...]) -> str:
    if value not in words:
        raise ConfigError(f"xtts: {name} must be one of {', '.join(words)}, not {value!r}")
    return str(value)


def _switch(name: str, value: object) -> bool:
    """A yes that was given on a command line is text. Nothing but a clear yes agrees to a licence."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "": False}
    said = words.get(str(value).lower())
    if said is None:
        raise ConfigError(f"xtts: {name} must be true or false, not {value!r}")
    return said


def _typed(name: str, value: object) -> object:
    """A default of an option as the option's own type, where it came as text from a command line."""
    if not isinstance(value, str):
        return value
    if name not in RANGES:
        return _switch(name, value)
    try:
        return int(value) if name in WHOLE else float(value)
    except ValueError:
        return value  # refused, with its range, by the same check as any other
