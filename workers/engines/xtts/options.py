"""How a segment is spoken: the options of a request, and the defaults that the settings give them.

What is out of range is refused by name before anything is spoken: coqui's own code would take it and answer
with noise, or with an error in the middle of a batch that others are in too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from ....common.errors import BadRequest, BusError

SPEEDS: Final = (0.25, 4.0)
SEEDS: Final = 2**32


@dataclass(frozen=True, slots=True)
class Sampling:
    """Coqui's own defaults. `length_penalty` is taken but changes nothing: it weighs beams, here is one."""

    temperature: float = 0.75
    length_penalty: float = 1.0
    repetition_penalty: float = 10.0
    top_k: int = 50
    "0 is no limit."
    top_p: float = 0.85
    do_sample: bool = True
    "False takes the likeliest token always, whatever the temperature, top_k and top_p."
    seed: int = 0
    "The same seed, text and voice give the same speech."
    stream_chunk_size: int = 20
    "Audio tokens, of 21.5 a second, that a part of a stream is made of."


RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "temperature": (0.01, 2),
    "length_penalty": (-10, 10),
    "repetition_penalty": (0.1, 50),
    "top_k": (0, 1000),
    "top_p": (0.01, 1),
    "seed": (0, SEEDS - 1),
    "stream_chunk_size": (5, 200),
}
WHOLE: Final = frozenset({"top_k", "seed", "stream_chunk_size"})
NAMES: Final = tuple(field.name for field in fields(Sampling))


def sampling(
    options: Mapping[str, Any], defaults: Sampling | None = None, error: type[BusError] = BadRequest
) -> Sampling:
    """Return the defaults with these options in their places.

    Raises `error` for one that is unknown or out of its range, naming the range.
    """
    for name, value in options.items():
        if name == "do_sample":
            if not isinstance(value, bool):
                raise error(f"xtts: do_sample must be true or false, not {value!r}")
        elif name in RANGES:
            _check_number(name, value, error)
        else:
            raise error(f"xtts has no option {name!r}; it knows {', '.join(NAMES)}")
    return replace(defaults or Sampling(), **options)


def check_speed(speed: float) -> None:
    """Raise `BadRequest` for a speed the audio would not survive."""
    if not (math.isfinite(speed) and SPEEDS[0] <= speed <= SPEEDS[1]):
        raise BadRequest(f"xtts: speed must be from {SPEEDS[0]:g} to {SPEEDS[1]:g}, not {speed!r}")


def _check_number(name: str, value: object, error: type[BusError]) -> None:
    least, most = RANGES[name]
    kind = int if name in WHOLE else int | float
    if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most:
        whole = "a whole number" if name in WHOLE else "a number"
        raise error(f"xtts: {name} must be {whole} from {least:.10g} to {most:.10g}, not {value!r}")
