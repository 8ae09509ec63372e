"""YAML that is none, or whose values are none, is refused in one way."""

from __future__ import annotations

from itertools import pairwise

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


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefghij")
)
MERGED = f"a: &a {{{', '.join(f'k{n}: v' for n in range(2000))}}}\n" + "".join(
    f"m{n}: {{<<: *a}}\n" for n in range(1000)
)


@pytest.mark.parametrize("text", [LAUGHS, MERGED, "a: &a [*a]", "a: &a {b: *a}"], ids=len)
def test_aliases_cannot_make_much_of_little(text: str) -> None:
    """Each was read, and took all memory or all time of whoever sent it on or looked through it."""
    with pytest.raises(ValueError, match="alias"):
        read_yaml(text)


def test_aliases_may_save_writing() -> None:
    assert read_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
        "c": [{"x": 1}, {"x": 1}],
    }
