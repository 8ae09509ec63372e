"""Cutting text into pieces: nothing lost, nothing above the limit, in every script."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicebus.common.text import MAX_SEGMENTED_CHARS, PARAGRAPH_PAUSE_S, SENTENCE_PAUSE_S, sentences, split

SAMPLES = {
    "english": 'Dr. Smith paid $3.50, i.e. too much. See https://a.org/a.b?c=d. Really? "Yes!" he said. ',
    "german": "Er kam z. B. um 8 Uhr an. Die Straße war leer; niemand wartete. ",
    "chinese": "你好。今天天气很好，你呢？好的！",
    "japanese": "「そうです。」と彼は言った。次です。",
    "arabic": "مرحبا. كيف حالك؟ انا بخير، شكرا. ",
    "hindi": "नमस्ते। आप कैसे हैं? मैं ठीक हूँ। ",
    "breaks": "First line\nsecond line.\r\n\r\nA new paragraph. \u2029 Another one.\n\n\n \n",
    "marks": "... !!! Well\u2026 -- (so) \u2014 \u00abno\u00bb. 1. 2. 3. ",
}
texts = st.lists(
    st.one_of(st.sampled_from(list(SAMPLES.values())), st.text(max_size=30)), min_size=1, max_size=6
).map("".join)


@given(texts, st.integers(1, 90))
@settings(max_examples=300, deadline=None)
def test_nothing_is_lost_and_nothing_is_over_the_limit(text: str, max_chars: int) -> None:
    pieces = split(text, max_chars=max_chars)
    assert "".join(piece.text for piece in pieces) == (text if text.strip() else "")
    for piece in pieces:
        assert 1 <= len(piece.spoken) <= max_chars
        assert piece.pause_s >= 0


@pytest.mark.parametrize("name", SAMPLES)
def test_a_limit_above_the_text_leaves_sentences_whole(name: str) -> None:
    text = SAMPLES[name]
    assert split(text, max_chars=1000) == split(text, max_chars=2000)


def spoken(text: str, max_chars: int = 400, language: str = "") -> list[str]:
    return [piece.spoken for piece in split(text, max_chars=max_chars, language=language)]


def test_abbreviations_numbers_and_addresses_do_not_end_a_sentence() -> None:
    assert spoken(SAMPLES["english"])[:2] == [
        "Dr. Smith paid $3.50, i.e. too much.",
        "See https://a.org/a.b?c=d.",
    ]


def test_sentences_of_other_scripts_are_found() -> None:
    assert len(spoken(SAMPLES["chinese"])) == 3
    assert len(spoken(SAMPLES["arabic"])) == 3
    assert len(spoken(SAMPLES["hindi"])) == 3


def test_a_long_sentence_is_cut_at_a_clause_then_at_a_space_then_anywhere() -> None:
    assert spoken("one two three, four five six seven", 20) == ["one two three,", "four five six seven"]
    assert spoken("one two three four five", 12) == ["one two", "three four", "five"]
    assert spoken("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]
    assert spoken("see https://example.org/a:b,c and go on", 30)[0].startswith(
        "see https://example.org/a:b,c"
    )


def test_a_character_is_not_cut_from_its_accent() -> None:
    text = "e\u0301" * 20
    assert all(not piece.startswith("\u0301") for piece in spoken(text, 5))


def test_marks_alone_go_with_their_neighbours() -> None:
    """An engine that is asked to speak "..." fails the whole text."""
    assert spoken("Well. ... Go on. !!") == ["Well. ...", "Go on. !!"]


def test_pauses_follow_sentences_and_paragraphs_and_never_the_end() -> None:
    pauses = [piece.pause_s for piece in split("One. Two.\n\nThree, and a very long clause", max_chars=16)]
    assert pauses == [SENTENCE_PAUSE_S, PARAGRAPH_PAUSE_S, 0.0, 0.0, 0.0]


def test_a_book_is_cut_in_linear_time() -> None:
    """A quadratic cut would take minutes here and run into the suite's timeout."""
    pieces = split("word " * 19_999 + "end", max_chars=60)
    assert len(pieces) > 1600
    assert len(split("A short sentence. " * 5000, max_chars=60)) == 5000


@pytest.mark.parametrize(
    "text",
    [
        " " * 1_000_000 + "end",
        "a" + "\n " * 500_000 + "b",
        "a" + "\n" * 1_000_000,
        "x" * 1_000_000,
        "1" * 1_000_000,
        "e" + "\u0301" * 1_000_000,
        "\u300ca\u3002" * 100_000,
        "a! " * 300_000,
    ],
    ids=["spaces", "line ends", "a tail", "a word", "digits", "accents", "open brackets", "sentences"],
)
def test_no_text_takes_longer_than_its_length(text: str) -> None:
    """The first four were cut in the square of their length: a hundred thousand spaces took half a minute, in
    the edge's event loop too. Each would run into the suite's timeout here."""
    assert "".join(piece.text for piece in split(text)) == text


@pytest.mark.parametrize("space", "\u00a0\u0085\u1680\u2028\u3000")
def test_a_wide_space_before_a_full_stop_is_only_a_space(space: str) -> None:
    """sentencex panicked on these, which is no `Exception`: one text ended an engine, an edge, a client."""
    assert spoken(f"Plan B{space}. And then? No.") == [f"Plan B{space}.", "And then?", "No."]


def test_a_panic_of_the_library_below_leaves_the_text_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        """As pyo3 makes it."""

    def panics(language: str, text: str) -> list[str]:
        raise PanicException

    def interrupted(language: str, text: str) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("sentencex.segment", panics)
    assert spoken("One. Two.") == ["One. Two."]
    monkeypatch.setattr("sentencex.segment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        split("One. Two.")


def test_a_long_paragraph_is_cut_as_its_sentences_are() -> None:
    """It is looked at in windows, and no sentence must end because its window does."""
    text = SAMPLES["english"] * 400
    assert len(text) > 4 * MAX_SEGMENTED_CHARS
    assert sentences(text, "en") == sentences(SAMPLES["english"], "en") * 400
