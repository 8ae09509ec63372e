"""The settings of the openvoice engine, checked before anything is loaded.

Those of the base engine travel inside: as a mapping `base_settings`, or key by key as `base.model_dir=…`,
which is easier to type on a command line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from ....common.errors import BusError, ConfigError, ModelMissing

NAME: Final = "openvoice"
KNOWN: Final = ("converter_dir", "base", "base_settings", "base_voice", "tau", "device", "threads")
PREFIX: Final = "base."
MAX_THREADS: Final = 64
TAU: Final = 0.3
"The original's default."
KOKORO_VOICES: Final[Mapping[str, str]] = {
    "": "af_heart",
    "en-gb": "bf_emma",
    "es": "ef_dora",
    "fr": "ff_siwis",
    "hi": "hf_alpha",
    "it": "if_sara",
    "pt-br": "pf_dora",
}
"""A voice of Kokoro speaks its own language without an accent; the converter would keep an accent."""
FILES: Final = ("config.json", "checkpoint.pth")
WHERE: Final = (
    "take config.json and checkpoint.pth from the folder `converter` of the OpenVoice v2 checkpoints (MIT;"
    " myshell-ai/OpenVoiceV2 on the model hub) and set converter_dir to their folder"
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for. `base_voices` goes by language; that of "" is for all others."""

    converter: Path
    base: str
    base_settings: Mapping[str, Any]
    base_voices: Mapping[str, str]
    tau: float
    """How much the converter strays from the source frame by frame: 0 is steady and dull, 1 wild. A request's
    own option `tau` comes before it."""
    device: str
    threads: int | None

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Settings:
        """Check raw settings; look for the converter's files.

        Raises `ConfigError` for one that is unknown or out of range, `ModelMissing` where files are absent.
        """
        own = {key: value for key, value in settings.items() if not key.startswith(PREFIX)}
        unknown = sorted(set(own) - set(KNOWN))
        if unknown:
            raise ConfigError(
                f"{NAME} has no setting {unknown[0]!r}; it knows {', '.join(KNOWN)} and base.KEY for its base"
            )
        base = own.get("base", "kokoro")
        if not isinstance(base, str) or not base:
            raise ConfigError(f"{NAME}: base must be the name of an engine, not {base!r}")
        if base == NAME:
            raise ConfigError(f"{NAME} cannot be its own base; set base to an engine that speaks, say kokoro")
        device = str(own.get("device", "auto"))
        dotted = {key[len(PREFIX) :]: value for key, value in settings.items() if key.startswith(PREFIX)}
        threads = _threads(own.get("threads"))
        base_settings = {
            # Not the converter's GPU: the base may know none, or be meant for another. Every engine knows
            # the CPU.
            **({"device": "cpu"} if device == "cpu" else {}),
            **({} if threads is None else {"threads": threads}),
            **_mapping("base_settings", own.get("base_settings", {})),
            **dotted,
        }
        return cls(
            _converter(own.get("converter_dir")),
            base,
            base_settings,
            _voices(own.get("base_voice"), base),
            tau_of(own.get("tau", TAU), ConfigError),
            device,
            threads,
        )

    def base_voice(self, language: str) -> str:
        """The voice of the base that speaks a language of the base; "" for the base's usual one."""
        for tag in (language.lower(), _bare(language), ""):
            if tag in self.base_voices:
                return self.base_voices[tag]
        return ""

    def check_languages(self, known: Sequence[str]) -> None:
        """Raise `ConfigError` for a voice that is set for a language the base does not speak."""
        spoken = {"", *(tag.lower() for tag in known), *map(_bare, known)}
        if wrong := sorted(set(self.base_voices) - spoken):
            raise ConfigError(
                f"{NAME}: base_voice names a voice for {wrong[0]!r}, which {self.base} does not speak;"
                f" it speaks {', '.join(known)}"
            )


def _bare(language: str) -> str:
    """'en' of 'en-us': what is said of it holds for its variants."""
    return language.lower().partition("-")[0]


def _threads(value: Any) -> int | None:
    if value in (None, "", "auto"):
        return None
    if isinstance(value, bool) or not str(value).isdecimal() or not 1 <= int(value) <= MAX_THREADS:
        raise ConfigError(f"{NAME}: threads must be a number from 1 to {MAX_THREADS}, not {value!r}")
    return int(value)


def tau_of(value: Any, problem: type[BusError]) -> float:
    """Check a `tau`, be it a setting or a request's option; raise `problem` where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise problem(f"{NAME}: tau must be a number from 0 to 1, not {value!r}")
    return float(value)


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{NAME}: {name} must be a mapping, not {value!r}")
    return {str(key): item for key, item in cast("Mapping[Any, Any]", value).items()}


def _voices(value: Any, base: str) -> dict[str, str]:
    if value is None or value == "":
        return dict(KOKORO_VOICES) if base == "kokoro" else {}
    voices = {"": value} if isinstance(value, str) else _mapping("base_voice", value)
    for voice in voices.values():
        if not isinstance(voice, str):
            raise ConfigError(f"{NAME}: base_voice must be a name or map languages to names, not {value!r}")
    return {language.lower(): str(voice) for language, voice in voices.items()}


def _converter(value: Any) -> Path:
    if not value:
        raise ModelMissing(f"{NAME} has no converter: {WHERE}")
    folder = Path(str(value)).expanduser()
    if not (folder / FILES[0]).exists() and (folder / "converter").is_dir():
        folder /= "converter"
    for needed in FILES:
        if not (folder / needed).is_file():
            raise ModelMissing(f"{folder} holds no {needed}: {WHERE}")
    return folder
