"""The host's own settings among those of an engine."""

from __future__ import annotations

from typing import Any

import pytest

from voicebus.common.errors import ConfigError
from voicebus.workers.host_settings import HostSettings


def test_the_hosts_keys_are_taken_out_and_survive_the_way_to_the_engine_process() -> None:
    given = {"max_voices": 8, "verify": "asr", "verify_limit": 0.5, "model_dir": "/m", "idle_unload_s": 60}
    host, rest = HostSettings.read(given)
    assert rest == {"model_dir": "/m"}
    assert (host.max_voices, host.idle_unload_s, host.self_check) == (8, 60, True)
    assert host.verify == {"verify": "asr", "verify_limit": 0.5}
    again, nothing = HostSettings.read(host.raw())
    assert (again, nothing) == (host, {})


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_voices": 0},
        {"batch_wait_s": 5},
        {"memory_limit_mb": 1},
        {"self_check": "perhaps"},
        {"idle_unload_s": -1},
        {"verify": "perhaps"},
    ],
)
def test_a_value_out_of_range_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        HostSettings.read(wrong)
