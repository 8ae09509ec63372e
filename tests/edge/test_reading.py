"""What is wrong with a body or a query is told with the field that it is in."""

from __future__ import annotations

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from voicebus.common.errors import BadRequest
from voicebus.edge.openai import SpeechRequest
from voicebus.edge.reading import WrongField, decoded, from_words


class Form(Struct):
    text: Annotated[str, Meta(min_length=1)]
    many: int = 1
    inner: list[int] = []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{}", None),
        (b'{"text": ""}', "text"),
        (b'{"text": 1}', "text"),
        (b'{"text": "a", "inner": [1, "b"]}', "inner[1]"),
        (b"[]", None),
        (b"{", None),
        (b"", None),
        (b'{"text": "\xff"}', None),
    ],
)
def test_the_field_is_named(body: bytes, param: str | None) -> None:
    with pytest.raises(WrongField) as wrong:
        decoded(body, Form)
    assert wrong.value.param == param
    assert param is None or wrong.value.message.startswith(f"{param}: ")


def test_a_query_s_words_are_read_as_what_they_stand_for() -> None:
    assert from_words({"text": "a", "many": "5"}, Form).many == 5
    with pytest.raises(WrongField, match="many"):
        from_words({"text": "a", "many": "five"}, Form)


@given(st.binary(max_size=200))
def test_no_body_does_anything_but_be_refused(body: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        decoded(body, SpeechRequest)
    assert refused.value.message
