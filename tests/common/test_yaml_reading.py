"""YAML that is none, or whose values are none, is refused in one way."""

from __future__ import annotations

import pytest

from voicebus.common.yaml_reading import read_yaml


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "!!bool x",
        "!!timestamp x",
        '!!int ""',
        "2024-13-45",
        "[" * 5000,
        "{[]: 1}",
        "1" * 5000,
        b"\xff\xfea",
    ],
)
def test_whatever_pyyaml_stumbles_over_is_a_sentence(text: str | bytes) -> None:
    """Fuzzing found that each of these but the first got out as an error of PyYAML's insides: a traceback."""
    with pytest.raises(ValueError, match=r"\S") as caught:
        read_yaml(text)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) <= 300
    assert type(caught.value) is ValueError


def test_what_is_yaml_is_read() -> None:
    assert read_yaml("a: [1, 2.5, null, x]") == {"a": [1, 2.5, None, "x"]}
