"""The options of a request, and what the server is told of them.

They are those of api_v2's request, without the paths: where a file lies on the server's disk is no user's
affair. What is unknown or out of range is refused here in our own words. The server ignores what it does not
know, so an option that its version lacks is refused too: it would silently change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ....common.errors import BadRequest, BusError
from ...engine import Request

SPEEDS: Final = (0.5, 2.0)
SEEDS: Final = 2**32

Value = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a range, whole or not."""

    least: float
    most: float
    whole: bool = False

    def take(self, value: object) -> Value | None:
        """The value as it is sent; None where it does not fit."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return None
        return value if self.least <= value <= self.most else None

    def __str__(self) -> str:
        return f"a {'whole ' if self.whole else ''}number from {self.least:.10g} to {self.most:.10g}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    def take(self, value: object) -> Value | None:
        """The value as it is sent; None where it does not fit."""
        return value if isinstance(value, str) and value in self.words else None

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}"


@dataclass(frozen=True, slots=True)
class Switch:
    """True or false."""

    def take(self, value: object) -> Value | None:
        """The value as it is sent; None where it does not fit."""
        return value if isinstance(value, bool) else None

    def __str__(self) -> str:
        return "true or false"


OPTIONS: Final[Mapping[str, Number | Choice | Switch]] = {
    "batch_size": Number(1, 200, whole=True),
    "batch_threshold": Number(0, 1),
    "fragment_interval": Number(0.01, 2),
    "min_chunk_length": Number(4, 200, whole=True),
    "overlap_length": Number(0, 16, whole=True),
    "parallel_infer": Switch(),
    "repetition_penalty": Number(0.5, 3),
    "sample_steps": Number(1, 128, whole=True),
    "seed": Number(-1, SEEDS - 1, whole=True),
    "split_bucket": Switch(),
    "super_sampling": Switch(),
    "temperature": Number(0.05, 2),
    "text_split_method": Choice(("cut0", "cut1", "cut2", "cut3", "cut4", "cut5")),
    "top_k": Number(1, 100, whole=True),
    "top_p": Number(0.01, 1),
    "vits_parallel_infer": Switch(),
}
"""`seed` −1 is a new one each time. `sample_steps` and `super_sampling` are for models of version 3 and 4;
`vits_parallel_infer` is known to the CPU fork alone."""


def checked(
    options: Mapping[str, Any],
    *,
    known: Collection[str] | None = None,
    problem: Callable[[str], BusError] = BadRequest,
) -> dict[str, Value]:
    """Return options as the server takes them. Raises `problem` naming what is allowed.

    `known` are the names this very server knows; None where it did not say.
    """
    taken: dict[str, Value] = {}
    for name, raw in options.items():
        kind = OPTIONS.get(name)
        if kind is None:
            raise problem(f"gpt-sovits has no option {name!r}: allowed are {', '.join(OPTIONS)}")
        value = kind.take(raw)
        if value is None:
            raise problem(f"gpt-sovits: {name} must be {kind}, not {raw!r}")
        if known is not None and name not in known:
            raise problem(f"the GPT-SoVITS server's version has no option {name!r}: leave it out")
        taken[name] = value
    return taken


def check_speed(speed: float) -> None:
    """Raise `BadRequest` for a speed out of range."""
    if not SPEEDS[0] <= speed <= SPEEDS[1]:
        raise BadRequest(f"gpt-sovits: speed must be from {SPEEDS[0]} to {SPEEDS[1]}, not {speed}")


def for_server(
    request: Request, defaults: Mapping[str, Value], known: Collection[str] | None
) -> dict[str, Value]:
    """The generation parameters of one segment: the settings' defaults, the request's on top, and its speed.

    A later take of a text with a fixed seed counts the seed on, or it would be the same take again. Raises
    `BadRequest` for what does not fit.
    """
    check_speed(request.speed)
    values = {**defaults, **checked(request.options, known=known)}
    seed = values.get("seed", -1)
    if request.take and isinstance(seed, int) and seed >= 0:
        values["seed"] = (seed + request.take) % SEEDS
    values["speed_factor"] = float(request.speed)
    return values
