"""Text on its way to the network: written out, cut into stretches, turned into the model's letters."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from voicebus.common.errors import EngineError
from voicebus.workers.engines.kokoro import clauses, espeak
from voicebus.workers.engines.kokoro.g2p import G2P, to_model
from voicebus.workers.engines.kokoro.normalise import normalise

LONG = (
    "When the sun rose, the birds began to sing; nobody had heard them for weeks, and yet the old man "
    "smiled. He went home. Nothing else happened that day. It was, after all, a Tuesday, and on Tuesdays "
    "Dr. Smith never came before 3.30 p.m. because of the trains."
)


@pytest.mark.parametrize(
    ("language", "text", "wanted"),
    [
        ("en-us", "It cost $3.50.", "It cost 3 dollars and 50 cents."),
        ("en-us", "$1 and $1,250", "1 dollar and 1250 dollars"),
        ("en-us", "€5 million", "5 million euros"),
        ("en-us", "on 3/14/2024", "on March 14th, 20 24"),
        ("en-gb", "on 14/03/2024", "on 14th March 20 24"),
        ("en-us", "2024-03-14", "March 14th, 20 24"),
        ("en-us", "in 1984, 1905 and 2007", "in 19 84, 19 oh 5 and 2007"),
        ("en-us", "the 1990s", "the 19 nineties"),
        ("en-us", "at 5:30 p.m. Then", "at 5 30 PM. Then"),
        ("en-us", "at 5:00 sharp", "at 5 o'clock sharp"),
        ("en-us", "Dr. Lee, i.e. No. 5, said no.", "doctor Lee, that is number 5, said no."),
        ("en-us", "St. Mary on Main St.", "saint Mary on Main street."),
        ("en-us", "the U.S.A. and e.g. this", "the USA and for example this"),
        ("en-us", "pages 10-20", "pages 10 to 20"),
        ("en-us", "wait... what 🙂 now", "wait… what now"),
        ("fr", "12,50 € le 14/03/2024", "12 euros et 50 centimes le 14 mars 2024"),
        ("es", "1.250,50 €", "1250 euros con 50 céntimos"),
        ("it", "Il sig. Rossi alle 5:30", "Il signor Rossi alle 5 30"),
        ("pt-br", "R$ 12,50", "12 reais e 50 centavos"),
        ("hi", "₹1,25,000", "125000 रुपये"),
    ],
)
def test_numbers_money_dates_and_abbreviations_are_written_out(language: str, text: str, wanted: str) -> None:
    assert normalise(text, language) == wanted


def test_the_first_clause_stands_alone_and_stretches_grow() -> None:
    found = clauses.split(LONG, "en-us")
    assert found[0] == "When the sun rose,"
    for playing, made_meanwhile in pairwise(found):
        # Synthesis takes .43 of real time: more than 2.2 times as much would leave a gap in a stream.
        assert len(made_meanwhile) <= 2.2 * 1.15 * max(len(playing), 24)
    assert clauses.split("Hello there.", "en-us") == ["Hello there."]
    # Without a comma the cut falls before a word that opens a phrase.
    plain = (
        "The quick brown fox jumps over the lazy dog near the quiet river while everyone watches from afar."
    )
    assert clauses.split(plain, "en-us")[0] == "The quick brown fox jumps"


@given(st.text(max_size=900), st.sampled_from(["en-us", "fr", "hi", "pt-br", "xx"]))
@example("a" * 1000, "en-us")
@example("5 " * 300, "en-us")
@example("…", "fr")
@example("One.\n\n\nTwo,\rthree", "es")
def test_segments_lose_nothing_and_keep_the_limit(text: str, language: str) -> None:
    found = clauses.split(text, language)
    assert found == clauses.split(text, language)
    assert found
    assert re.sub(r"\s+", "", "".join(found)) == re.sub(r"\s+", "", text)
    if text.strip():
        assert all(clauses.weight(part) <= clauses.MAX_CHARS for part in found)


@pytest.mark.parametrize(
    "unit", ["a", "1", "A.", "e\u0301", "\u200b", "!", "[ ", "a, ", "and ", "1 ", "B\u00a0. "]
)
def test_no_text_keeps_an_engine_busy_before_it_speaks(unit: str) -> None:
    """A word of a hundred thousand letters took hours to cut, so its job took down every worker that got it.
    It would run into the suite's timeout here."""
    text = unit * (100_000 // len(unit))
    found = clauses.split(text, "en-us")
    assert max(map(clauses.weight, found)) <= clauses.MAX_CHARS
    assert len("".join("".join(found).split())) == len("".join(text.split()))


@pytest.mark.parametrize("language", ["en-us", "en-gb", "es", "fr", "it", "pt-br", "hi"])
@pytest.mark.parametrize("unit", ["1", "1,", "123.", "$1", "12/", "1 000", "st. ", "U.S.A. ", "10:30 p.m. "])
def test_no_number_is_read_again_and_again(language: str, unit: str) -> None:
    """The pattern for sums of money began anew at each digit: a hundred thousand took hours."""
    assert normalise(unit * (100_000 // len(unit)), language)


@pytest.mark.parametrize(
    ("language", "ipa", "wanted"),
    [
        ("en-us", "həlˈo^ʊ", "həlˈO"),
        ("en-us", "t^ʃˈɜːt^ʃ bˈɛɾɚ", "ʧˈɜɹʧ bˈɛTəɹ"),
        ("en-us", "t^ʃˈɜːt^ʃ mˈɪɾə^l", "ʧˈɜɹʧ mˈɪTᵊl"),
        ("en-gb", "ðˈe^ə ɡˈə^ʊ", "ðˈɛː ɡˈQ"),
        ("fr", "lə- (^e^n)wˈiːkˈɛnd(^f^r) bɔ̃ʒˈuʁ", "lə wˈiːkˈɛnd bɔ̃ʒˈuʁ"),
    ],
)
def test_ipa_becomes_the_models_letters(language: str, ipa: str, wanted: str) -> None:
    assert to_model(ipa, language) == wanted


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    letters = (
        ';:,.!?—…"()“” \u0303ʣʥʦʨᵝAIOQSTWYᵊabcdefhijklmnopqrstuvwxyzɑɐɒæβɔɕçɖðʤəɚɛɜɟɡɥɨɪʝɯɰŋɳɲɴøɸθœɹɾɻʁɽʂʃʈʧ'
        "ʊʋʌɣɤχʎʒʔˈˌːʰʲᵻ"
    )
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({"vocab": {c: i for i, c in enumerate(letters, 1)}}), encoding="utf-8")
    return path


def test_text_is_phonemised_with_its_punctuation(vocabulary: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the kokoro extra is not installed")
    g2p = G2P(vocabulary)
    try:
        assert g2p.phonemes("Hello, world! Isn't it great?", "en-us") == "həlˈO, wˈɜɹld! ˌɪzənt ɪt ɡɹˈAt?"
        assert g2p.phonemes("It is 3.14 — ok…", "en-us") == "ɪT ɪz θɹˈi pYnt wˈʌn fˈɔɹ — ˌOkˈA…"
        assert g2p.phonemes("Bonjour, ça va ?", "fr") == "bɔ̃ʒˈuʁ, sa vˈa ?"
        assert g2p.phonemes("नमस्ते।", "hi") == "nəmˈʌsteː."
        for nothing in ("", "…", "🙂🙂", "?!", "—"):
            assert g2p.phonemes(nothing, "en-us") == ""
        line = g2p.phonemes("Hello, world!", "en-gb")
        assert len(g2p.tokens(line)) == len(line)
    finally:
        g2p.close()


def test_a_phonemiser_that_dies_is_started_again_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    helper = tmp_path / "espeak_helper.py"
    helper.write_text(
        "import sys, pathlib\n"
        f"mark = pathlib.Path({str(tmp_path / 'mark')!r})\n"
        "for line in sys.stdin:\n"
        "    if 'always' in line or not mark.exists():\n"
        "        mark.touch(); sys.exit(3)\n"
        '    print(\'{"phonemes": ["a"]}\', flush=True)\n',
        encoding="utf-8",
    )
    monkeypatch.setattr(espeak, "find_library", lambda: ("none", None))
    monkeypatch.setattr(espeak, "__file__", str(tmp_path / "espeak.py"))
    phonemiser = espeak.Espeak()
    try:
        assert phonemiser.phonemes("once", "en-us") == ["a"]
        with pytest.raises(EngineError, match="died twice"):
            phonemiser.phonemes("always", "en-us")
    finally:
        phonemiser.close()
