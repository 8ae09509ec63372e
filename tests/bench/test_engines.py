"""The engines' benchmark on a small scale: both ways say the same, and the page shows what was found."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import engines, machine
from bench.engine_page import page
from bench.engines import Cell, Taken

FOUND = {
    "command": "python -m bench.engines",
    "date": "2026-11-25 12:00 UTC",
    "machine": {"cpu": "a processor", "cores": 2, "system": "Linux", "python": "3.11", "gpu": ""},
    "load_average": (0.1, 0.2),
    "tokens": 40,
    "threads": 1,
    "settings": ", precision=float32",
    "xtts": "a checkpoint",
    "notes": ["2 batches were sent over the bus, and spoken in 2 calls."],
}


def taken(seconds: float, audio_s: float = 2.0, engine_s: float = 0.0) -> Taken:
    return Taken(seconds, audio_s, round(seconds * 1e9), engine_s)


def test_an_engine_speaks_alone_and_over_the_bus() -> None:
    often, seldom = Cell("tone", "2 slots", 3), Cell("tone", "2 slots")
    texts = ["One line.", "Another line.", "A third."]
    cells = {cell: [[text] for text in texts] for cell in (often, seldom)}
    engines.measure(cells, {"seconds_per_char": 0.001}, slots=2, rounds=2)
    assert [list(map(len, cell.starts)) for cell in cells] == [[6], [2]]
    row = seldom.row()
    assert row["audio_s"] > 0
    assert [len(row[name]) for name in ("direct_rate", "bus_rate", "ratio", "processor")] == [2] * 4
    assert row["outside_ms"] == []


def test_a_ratio_is_of_a_pair_and_the_first_turn_warms_up() -> None:
    cell = Cell("some", "1 slot", starts=[[]])
    for turn, seconds in enumerate((9.0, 1.0, 1.0)):
        engines.keep(cell, taken(seconds), taken(1.25, engine_s=1.0), texts=1, slots=1, kept=turn > 0)
    row = cell.row()
    assert row["ratio"] == [1.25, 1.25]
    assert row["bus_rate"] == [1.6, 1.6]
    assert row["outside_ms"] == [250.0, 250.0]


def test_a_pair_that_spoke_different_things_is_no_figure() -> None:
    with pytest.raises(RuntimeError, match=r"2\.000 s of audio alone, 2\.100 s over the bus"):
        engines.keep(
            Cell("some", "1 slot", starts=[[]]), taken(1), taken(1, 2.1), texts=1, slots=1, kept=True
        )


@pytest.mark.parametrize(("bussed_s", "verdict"), [(1.02, "kept"), (1.03, "**missed**")])
def test_the_page_judges_the_middle_ratio(bussed_s: float, verdict: str) -> None:
    cell = Cell("some", "1 slot", 1, [[(1.0, bussed_s)], [(1.0, 5.0), (1.0, 0.5)]], 2.0, [1.0], [])
    text = page({**FOUND, "rows": [cell.row()]})
    line = next(line for line in text.splitlines() if line.startswith("| some"))
    assert f"**{bussed_s:.3f}**" in line
    assert f"| {verdict} |" in line
    assert "40 tokens a row, precision=float32." in text
    assert "Python 3.11, no GPU;" in text
    assert "spoken in 2 calls" in text


def test_a_gpu_is_named_as_its_driver_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB, 580.159.04'\n")
    tool.chmod(0o755)
    assert machine.gpu_name() == "NVIDIA H200, 143771 MiB, 580.159.04"
    tool.write_text("#!/bin/sh\necho 'no driver is loaded'\nexit 9\n")
    assert machine.gpu_name() == ""
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert machine.gpu_name() == ""
