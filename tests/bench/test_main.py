"""The pass as a whole, on made-up rows: its headline, its page, its files. Nothing is measured here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as main
from bench import drawing, flame, hot, stages, tables
from bench.brokers.stands import BUNDLED, C_BROKER, PROXY
from bench.headline import BUDGETS, merged
from bench.machine import cpu_model
from bench.peers.plan import SINGLE, TEXT_BYTES, WINDOWED
from bench.processes import ROOT
from bench.stages import QUICK, STAGES, Outcome

PEERS = ("voicebus", "voicebus-bare", "nats", "redis", "http-gateway", "zmq.proxy")
WANTED = {
    "broker_us_per_request", "ratio_to_proxy_200B", "ratio_to_proxy_200KB", "ratio_to_c_broker_credit1",
    "ratio_to_nats", "ratio_to_redis", "ratio_to_http_gateway", "latency_ratio_to_proxy_p50",
    "ratio_to_nats_client_map", "ratio_to_redis_client_map", "ratio_to_http_gateway_client_map",
}  # fmt: skip
"""What scripts read from the last line of a quick pass."""


def broker_row(cell: str, broker: str, rate: float, turn: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "cell": cell, "broker": broker, "credit": 0, "window": 64, "offered_per_s": 0, "repetition": turn,
        "rate_per_s": rate, "cpu_us_per_request": 10.0, "p50_us": 100.0, "p99_us": 200.0,
        "background_cores": 0.25, "errors": 0,
    } | more  # fmt: skip


def peer_row(system: str, rate: float, mode: str = WINDOWED, **more: Any) -> dict[str, Any]:
    return {
        "system": system, "mode": mode, "size_bytes": TEXT_BYTES, "rate_per_s": rate, "mb_per_s": 1.0,
        "p50_us": 100.0, "p99_us": 200.0, "middle_us_per_request": 1.0, "client_us_per_request": 2.0,
        "worker_us_per_request": None, "limit": "client", "background_cores": 0.0, "errors": 0,
    } | more  # fmt: skip


def a_pass(**more: Any) -> dict[str, Any]:
    found = {
        "hot": {
            "rows": [broker_row(hot.PIPELINED_64, BUNDLED.name, 90_000, turn) for turn in range(2)]
            + [broker_row(hot.PIPELINED_64, PROXY.name, 180_000 * (1 + turn), turn) for turn in range(2)]
        },
        "peers": {"rows": [peer_row("voicebus", 20), peer_row("voicebus-bare", 40), peer_row("nats", 10)]},
    }
    return {
        "command": "python -m bench", "date": "2026-01-01", "seconds": 600.0, "setup_seconds": 1.0,
        "load_average": [0.5, 1.5], "wrong": [], "skipped": {"redis": "no\nserver"}, "pictures": [],
        "machine": {
            "cpu": "some", "cores": 2, "system": "Linux", "python": "3", "pyzmq": "27", "libzmq": "4"
        },
        "stages": found, "headline": merged(found, list(found), PEERS),
    } | more  # fmt: skip


def test_a_figure_that_could_not_be_taken_is_null_and_not_missing() -> None:
    figures = merged({"hot": {"rows": []}, "peers": {"rows": []}}, QUICK, PEERS)
    assert figures.keys() >= WANTED
    assert {figures[key] for key in WANTED} == {None}


def test_a_stage_that_broke_leaves_its_figures_null() -> None:
    figures = merged({}, list(STAGES), PEERS)
    assert figures.keys() >= {budget.key for budget in BUDGETS}
    assert set(figures.values()) == {None}


def test_peers_are_compared_with_the_bare_client_and_with_map() -> None:
    figures = a_pass()["headline"]
    assert (figures["ratio_to_nats"], figures["ratio_to_nats_client_map"]) == (4.0, 2.0)
    assert (figures["ratio_to_redis"], figures["ratio_to_redis_client_map"]) == (None, None)
    assert "ratio_to_nats_inbox" not in figures  # the pass was not to have it
    assert figures["ratio_to_proxy_200B"] == 0.375


def test_figures_of_the_other_stages_come_to_the_headline() -> None:
    found = {
        "interactive": {
            "rows": [
                {"p99_to_unloaded": 1.0, "urgency": True},
                {"p99_to_unloaded": 3.0, "urgency": True},
                {"p99_to_unloaded": 9.0, "urgency": False},
            ]
        },
        "counts": {"core": {"calls": 70.0}},
        "bus": {"latency_tone": {"added_p50_ms": 2.5}, "throughput": {"jobs_per_s": 1900.0}},
    }
    assert merged(found, list(found), ()) == {
        "interactive_p99_ratio": 3.0,
        "calls_per_request_core": 70.0,
        "first_audio_added_ms": 2.5,
        "map_jobs_per_s": 1900.0,
    }


def test_a_budget_is_a_floor_or_a_ceiling() -> None:
    by_key = {budget.key: budget for budget in BUDGETS}
    ceiling, floor = by_key["broker_us_per_request"], by_key["ratio_to_proxy_200B"]
    assert (ceiling.holds(12), ceiling.holds(12.1), ceiling.shown) == (True, False, "≤ 12 µs")
    assert (floor.holds(0.5), floor.holds(0.49), floor.shown) == (True, False, "≥ 0.5 ×")
    lines = tables.headline(
        {"broker_us_per_request": 15.5, "ratio_to_proxy_200B": 0.6, "ratio_to_nats": None}
    )
    assert "| 15.5 µs | ≤ 12 µs | **missed** |" in lines[2]
    assert "| 0.6 × | ≥ 0.5 × | kept |" in lines[3]
    assert lines[4].endswith("| – | ≥ 2 × |  |")


def test_a_broker_stands_beside_the_proxy_of_its_own_round() -> None:
    lines = tables.brokers(a_pass()["stages"]["hot"]["rows"])
    assert len(lines) == 4
    assert "**voicebus, bundles**" in lines[2]
    assert "0.25 – **0.38** – 0.50" in lines[2]
    assert "180,000 – **270,000** – 360,000" in lines[3]


def test_brokers_without_a_proxy_have_no_ratio_to_it_and_each_credit_its_line() -> None:
    rows = [broker_row(hot.EIGHT, C_BROKER.name, 100, credit=credit) for credit in (1, 2)]
    lines = tables.brokers(rows)[2:]
    assert [line.split(" | ")[1:4:2] for line in lines] == [["1", "–"], ["2", "–"]]


@pytest.mark.parametrize(
    ("more", "limit"),
    [
        ({}, "broker"),
        ({"cpu_us_per_request": 8.0}, "ends"),
        ({"window": 1}, "round trip"),
        ({"offered_per_s": 5000, "window": 0}, "offered"),
    ],
)
def test_who_limits_a_broker(more: dict[str, Any], limit: str) -> None:
    assert tables.limit([broker_row("cell", BUNDLED.name, 100_000, **more)]) == limit


def test_the_page_has_a_section_for_each_stage_and_says_what_was_left_out() -> None:
    page = tables.page(a_pass())
    assert [line for line in page.splitlines() if line.startswith("#")] == [
        "# What was measured", "## Headline", "## Brokers", f"### {hot.PIPELINED_64}", "## Peers",
        "## Left out, and why",
    ]  # fmt: skip
    assert "- redis: no server\n" in page
    assert ".png" not in page
    assert "![peers.png](peers.png)" in tables.page(a_pass(pictures=["peers.png"]))


def test_counts_that_have_to_be_right_say_so() -> None:
    lines = tables.scale(
        [
            {"what": "answered", "value": 99, "unit": "", "wanted": 100},
            {"what": "of a core", "value": 11.0, "unit": "%", "budget": 10, "note": ""},
            {"what": "a job", "value": 1234.5, "unit": "µs", "budget": None, "note": "with a note"},
        ]
    )
    assert lines[2:] == [
        "| answered | 99 | = 100 | **wrong** |",
        "| of a core | 11 % | ≤ 10 % | **missed** |",
        "| a job | 1,234 µs |  | with a note |",
    ]


def test_a_peer_that_breaks_is_left_out_and_what_is_ours_is_wrong() -> None:
    found = {
        "failed": {"nats": "no server", "voicebus-bare": "it ended"},
        "skipped": {"ray": "no wheel"},
        "rows": [
            peer_row("voicebus", 1, errors=2),
            peer_row("voicebus", 1, errors=1),
            peer_row("redis", 1, errors=5),
        ],
    }
    wrong, skipped = stages.judged(found, {"celery": "no network"})
    # What redis lost stands in its row: that is no mistake of ours.
    assert wrong == ["voicebus-bare: it ended", "voicebus: 3 answers were missing or wrong"]
    assert skipped == {"celery": "no network", "ray": "no wheel", "nats": "no server"}


def test_a_stage_that_breaks_does_not_end_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_quick: bool, _say: stages.Say) -> Outcome:
        raise TimeoutError("nobody came")

    def works(_quick: bool, _say: stages.Say) -> Outcome:
        return Outcome({"core": {"calls": 7.0}}, skipped={"this": "that"}, setup_s=0.5)

    monkeypatch.setattr(main, "STAGES", {"hot": breaks, "counts": works})
    found = main.take(["hot", "counts"], True, lambda _line: None)
    assert found["wrong"] == ["hot: TimeoutError: nobody came"]
    assert found["skipped"] == {"this": "that"}
    assert found["headline"]["calls_per_request_core"] == 7.0
    assert found["setup_seconds"] == 0.5


def test_what_is_saved_can_be_read_has_a_row_a_line_and_no_place(tmp_path: Path) -> None:
    found = a_pass(skipped={"redis": f"{ROOT}/bench/redis is not there"})
    main.save(found, tmp_path)
    text = (tmp_path / main.RESULTS).read_text(encoding="utf-8")
    assert str(ROOT) not in text + (tmp_path / "results.md").read_text(encoding="utf-8")
    again = json.loads(text)
    assert again["stages"] == found["stages"]
    assert sum('"broker": ' in line for line in text.splitlines()) == 4


@pytest.mark.parametrize("value", [{}, [], {"a": []}, [{"a": 1}, {}], {"a": {"b": [1, [2, 3]]}}, None, "é"])
def test_json_by_rows_is_the_same_json(value: Any) -> None:
    assert json.loads(main.written(value)) == value


def test_the_last_line_is_one_object_for_scripts() -> None:
    line = main.last_line(a_pass())
    assert "\n" not in line
    found = json.loads(line)
    assert found.keys() >= WANTED
    assert found["ratio_to_redis"] is None
    assert found["wrong"] == 0


def test_bars_stand_from_the_best_to_the_worst() -> None:
    given = [("slow", [30.0, 10.0, 20.0]), ("absent", []), ("voicebus", [40.0])]
    found = drawing.bars(given, least_first=False)
    assert [bar["name"] for bar in found] == ["voicebus", "slow"]
    assert found[1] == {"name": "slow", "least": 10.0, "middle": 20.0, "most": 30.0, "ours": False}
    assert [bar["name"] for bar in drawing.bars(given, least_first=True)] == ["slow", "voicebus"]


def test_pictures_are_of_the_small_and_pipelined_only() -> None:
    rows = [broker_row(hot.PIPELINED_64, PROXY.name, 5), broker_row(hot.BIG, C_BROKER.name, 6)]
    panels = drawing.brokers_picture(rows)["panels"]
    assert [[bar["name"] for bar in panel["bars"]] for panel in panels] == [[PROXY.name]] * 2
    rows = [peer_row("voicebus", 5), peer_row("nats", 9, SINGLE, p50_us=7.0)]
    rate, latency = drawing.peers_picture(rows)["panels"]
    assert [bar["name"] for bar in rate["bars"]] == ["voicebus, Client.map"]
    assert [(bar["name"], bar["middle"]) for bar in latency["bars"]] == [("nats", 7.0)]


def test_nothing_is_drawn_and_nothing_installed_where_there_are_no_rows(tmp_path: Path) -> None:
    assert drawing.draw({"hot": {"rows": []}}, tmp_path, lambda _line: None) == []


def test_a_flame_graph_names_no_place_and_stays_small() -> None:
    picture = flame.tidy(f'<text id="title" x="5">py-spy -o x</text><title>{ROOT}/broker/loop.py</title>')
    assert picture == f'<text id="title" x="5">{flame.SHOWN}</text><title>broker/loop.py</title>'
    with pytest.raises(flame.NoFlameError, match="bytes"):
        flame.tidy("x" * (flame.LARGEST_BYTES + 1))


def test_the_processor_has_a_name(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: Some CPU\n")
    assert cpu_model(file) == "Some CPU"
    assert cpu_model(tmp_path / "none")
