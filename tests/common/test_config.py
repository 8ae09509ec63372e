"""Configuration: the shipped file is the defaults, and a typing error never becomes one."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from voicebus.common.config import Config, load_config
from voicebus.common.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def test_the_shipped_file_says_the_defaults() -> None:
    shipped = load_config(ROOT / "config.yaml", {})
    defaults = Config()
    assert shipped.broker.journal == str(ROOT / (defaults.broker.journal or ""))
    assert msgspec.structs.replace(shipped.broker, journal=defaults.broker.journal) == defaults.broker
    assert shipped.workers == defaults.workers
    assert shipped.edge.jobs == str(ROOT / defaults.edge.jobs)
    assert msgspec.structs.replace(shipped.edge, jobs=defaults.edge.jobs) == defaults.edge
    assert shipped.security.audit == str(ROOT / (defaults.security.audit or ""))
    assert msgspec.structs.replace(shipped.security, audit=defaults.security.audit) == defaults.security
    assert shipped.voices.path == str(ROOT / "voices")


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("broker: {strategy: random, liveness: 5}\nworkers: {tone: {slots: 2}}\n")
    env = {
        "VOICEBUS_BROKER__STRATEGY": "least_load",
        "VOICEBUS_WORKERS__TONE__SETTINGS__SECONDS_PER_CHAR": "0.5",
        "VOICEBUS_MODELS": "/elsewhere",
    }
    config = load_config(file, env)
    assert (config.broker.strategy, config.broker.liveness) == ("least_load", 5)
    assert (config.workers["tone"].slots, config.workers["tone"].settings) == (2, {"seconds_per_char": 0.5})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("broker: {strategie: lru}", "broker: .*`strategie`.*strategy"),
        ("broker: {strategy: fair}", "broker.strategy: .*'fair'.*lru, round_robin, least_load, random"),
        ("broker: {liveness: 0}", "broker.liveness: .*>= 1"),
        ("broker: {liveness: three}", "broker.liveness: .*int"),
        ("broker: {frontend: localhost}", "broker.frontend: .*tcp"),
        ("workers: {xtts: {slots: 0}}", r"workers\.\*\.slots: .*>= 1"),
        ("workers: {xtts: {device: gpu}}", r"workers\.\*\.device: .*cuda"),
        ("worker: {}", "`worker`.*workers"),
        ("voices: {default: ../x}", "voices.default"),
        ("logging: {level: LOUD}", "logging.level: .*DEBUG, INFO"),
        ("- a\n- b", "sections"),
        ("broker: [", "not valid YAML"),
        ("broker: {name: a}\nedge: {}\nbroker: {}", "says 'broker' twice"),
        ("x: !!python/object/apply:os.system [id]", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        load_config(file, {})
    assert str(file) in caught.value.message
    assert "\n" not in caught.value.message


def test_a_file_without_an_end_is_no_configuration() -> None:
    """A device has a size of 0, and was read until the memory was full."""
    with pytest.raises(ConfigError, match="larger than"):
        load_config("/dev/zero", {})


def test_aliases_in_the_environment_and_the_file_cannot_fill_the_memory(tmp_path: Path) -> None:
    bomb = "{a: &a [x,x,x,x,x,x,x,x,x]"
    bomb += "".join(f", {b}: &{b} [{', '.join([f'*{a} '] * 9)}]" for a, b in pairwise("abcdefghij")) + "}"
    file = tmp_path / "config.yaml"
    file.write_text(f"workers: {{tone: {{settings: {bomb}}}}}\n")
    with pytest.raises(ConfigError, match="aliases"):
        load_config(file, {})
    with pytest.raises(ConfigError, match="VOICEBUS_WORKERS__TONE__SETTINGS: its value is not valid YAML"):
        load_config(None, {"VOICEBUS_WORKERS__TONE__SETTINGS": bomb})


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "absent.yaml", {})


def test_relative_folders_are_the_files_own(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("voices: {path: v}\nlogging: {file: l/x.log}\n")
    config = load_config(file, {})
    assert config.voices.path == str(tmp_path / "v")
    assert config.logging.file == str(tmp_path / "l/x.log")
    file.write_text("voices: {path: 's3://bucket/v'}\n")
    assert load_config(file, {}).voices.path == "s3://bucket/v"


@pytest.mark.parametrize("text", ["?", "1: x", "[]", "words"])
def test_what_has_no_sections_is_refused(tmp_path: Path, text: str) -> None:
    """Fuzzing found that a key which is no word got out as an error of msgspec's."""
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="sections"):
        load_config(file, {})
