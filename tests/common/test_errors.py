"""The error tree is one table on every surface."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

from voicebus.common.errors import BusError, Overloaded, error_from_code

ROOT = Path(__file__).resolve().parents[2]


def test_every_code_is_documented_in_the_protocol_and_only_those() -> None:
    section = (ROOT / "docs/protocol.md").read_text().split("## 7. Errors")[1].split("## 8.")[0]
    documented = set(re.findall(r"`([a-z_]+)`", section))
    # HTTP has some of its own (edge/problems.py), which no wire carries.
    on_the_wire = {code for code, kind in BusError.by_code.items() if kind.__module__ == BusError.__module__}
    assert documented == on_the_wire


def test_codes_are_unique_and_speak_for_themselves() -> None:
    assert len(BusError.by_code) == len(set(BusError.by_code.values()))
    for code, cls in BusError.by_code.items():
        assert re.fullmatch(r"[a-z_]+", code)
        assert 400 <= cls.http_status < 600
        assert str(cls("why")) == f"{code}: why"
        assert cls().message, "an error always has a sentence"


def test_an_error_survives_its_code() -> None:
    error = error_from_code("overloaded", "full", 1.5)
    assert isinstance(error, Overloaded)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes, made just now
    assert (type(again), again.message, again.retry_after_s) == (Overloaded, "full", 1.5)
