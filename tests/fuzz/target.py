"""What a target of the fuzzers is: a function of bytes that raises when a promise is broken.

A target is a plain function, so the same one is run over its corpus by pytest, with seeded changes by the
runner here, with coverage as a guide by atheris, and on one file to see a finding again. What it may raise is
nothing: refusing an input properly is checked inside, by `refused`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fuzz.mutate import Mutator, flip
from voicebus.common.errors import BusError

CORPUS: Final = Path(__file__).parent / "corpus"
LONGEST_SENTENCE: Final = 100_000


class BrokenPromiseError(AssertionError):
    """An input had an effect that it must not have."""


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that reads what others wrote.

    `most_cpu_s` is the processor time one input may take, `most_growth_bytes` what the process may grow by
    while one is handled.
    """

    name: str
    promises: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    mutate: Mutator = flip
    max_bytes: int = 16_384
    most_cpu_s: float = 1.0
    most_growth_bytes: int = 96 << 20

    def inputs(self) -> list[bytes]:
        """All that it begins with: what is made here, and the corpus on disk."""
        folder = CORPUS / self.name
        kept = [file.read_bytes() for file in sorted(folder.glob("*"))] if folder.is_dir() else []
        return [*self.seeds(), *kept]


def require(holds: bool, what: str) -> None:
    """Raise unless a promise is kept."""
    if not holds:
        raise BrokenPromiseError(what)


def check_error(error: BusError, codes: Iterable[str] = ()) -> None:
    """An error of ours has a code that the protocol lists, and says something."""
    require(BusError.by_code.get(error.code) is not None, f"the code {error.code!r} is registered")
    require(not codes or error.code in codes, f"{error.code} is no answer to this: {error.message}")
    require(0 < len(error.message) <= LONGEST_SENTENCE, "an error says what is wrong, in bounds")
    str(error).encode()  # it must fit a log and a header


@contextmanager
def refused(*codes: str) -> Generator[None]:
    """Let the input be refused with one of these codes. Anything else that is raised is a finding."""
    try:
        yield
    except BusError as error:
        check_error(error, codes)
