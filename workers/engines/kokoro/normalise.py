"""Write out what a phonemiser would misread: money, dates, times, years, abbreviations, odd signs.

espeak-ng reads plain numbers, ordinals and percentages well in every language of this engine; "$3.50" it
reads sign first, "3/14/2024" with slashes, 1984 as nineteen hundred eighty-four, and an emoji by its
name. The rules here turn such things into words or plain numbers and leave the rest alone. They depend on
text and language only.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from .locales import GB, LOCALES, Locale

_PLAIN_SIGNS: Final = str.maketrans({
    "’": "'", "‘": "'", "‛": "'", "`": "'", "´": "'", "„": "“", "«": "“", "»": "”", "‹": "“", "›": "”",
    "‐": "-", "‑": "-", "‒": "-", "–": "-", "―": "—", "−": "-", "·": " ", "•": ",", "।": ".", "॥": ".",
    "[": "(", "]": ")", "{": "(", "}": ")", "*": " ", "_": " ", "~": " ", "^": " ", "|": ",", "\\": " ",
    "<": " ", ">": " ", "“": "“", "”": "”",
})  # fmt: skip
_KEPT_SIGNS: Final = frozenset("°§№©®™")
_CLOCK: Final = re.compile(r"\b(\d{1,2}):(\d{2})\b")
_WORD_END: Final = r"(?![^\W_])"


def _readable(text: str) -> str:
    """Drop pictures, control characters and the like; make quotes, dashes and spaces plain."""
    text = unicodedata.normalize("NFC", text.replace("...", "…")).translate(_PLAIN_SIGNS)
    kept: list[str] = []
    for char in text:
        kind = unicodedata.category(char)
        if kind in ("So", "Sk", "Cs", "Co", "Cn", "Cf", "Cc", "Zl", "Zp", "Zs") and char not in _KEPT_SIGNS:
            kept.append("\u200d" if char == "\u200d" else " ")
        else:
            kept.append(char)
    return re.sub(r"\s+", " ", "".join(kept).replace("\u200d", "")).strip()


def _number(text: str, locale: Locale) -> str:
    """One way to write numbers: no grouping, a point or comma as the language has it."""
    if locale.decimal_comma:
        return re.sub(r"(?<![\d.,])(\d{1,3})((?:[. ]\d{3})+)(?![\d.])", _without(". "), text)
    return re.sub(r"(?<![\d.,])(\d{1,3})((?:,\d{2,3})+)(?![\d,])", _without(","), text)


def _without(signs: str) -> Callable[[re.Match[str]], str]:
    table = str.maketrans("", "", signs)
    return lambda match: match[0].translate(table)


def _say_money(locale: Locale) -> Callable[[re.Match[str]], str]:
    def say(match: re.Match[str]) -> str:
        sign, number, scale = (
            match["sign"] or match["sign2"],
            match["number"] or match["number2"],
            match["scale"],
        )
        one, many, part, parts = locale.money[sign]
        whole, _, fraction = number.replace(",", ".").partition(".")
        if scale:
            return f"{number} {scale} {many}"
        words = f"{whole} {one if whole == '1' else many}"
        if len(fraction) == 2 and int(fraction):
            hundredths = int(fraction)
            words += f" {locale.also} {hundredths} {part if hundredths == 1 else parts}"
        elif fraction.strip("0") and len(fraction) != 2:
            words = f"{number} {many}"
        return re.sub(r" +", " ", words)

    return say


_SCALES: Final = "|".join(
    (
        "hundred", "thousand", "million", "billion", "trillion", "mil", "millones", "millón", "millions",
        "milliard", "milliards", "milioni", "milhões", "milhão", "bilhões",
    )
)  # fmt: skip


@lru_cache(maxsize=16)
def _money_pattern(language: str) -> re.Pattern[str]:
    signs = "|".join(re.escape(sign) for sign in sorted(LOCALES[language].money, key=len, reverse=True))
    number = r"(?<!\d)\d++(?:[.,]\d++)?+"
    return re.compile(
        rf"(?:(?P<sign>{signs}) ?(?P<number>{number})|(?P<number2>{number}) ?(?P<sign2>{signs}))"
        rf"(?: (?P<scale>{_SCALES}){_WORD_END})?",
        re.IGNORECASE,
    )


def _ordinal_en(day: int) -> str:
    suffix = "th" if 10 <= day % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{suffix}"


def _say_date(year: int, month: int, day: int, locale: Locale) -> str:
    name = locale.months[month - 1]
    if locale.month_first:
        return f"{name} {_ordinal_en(day)}, {year}"
    first = _ordinal_en(day) if locale is GB else str(day)
    return locale.between_date_parts.join((first, name, str(year)))


def _dates(text: str, locale: Locale) -> str:
    def iso(match: re.Match[str]) -> str:
        year, month, day = (int(part) for part in match.groups())
        return _say_date(year, month, day, locale) if 1 <= month <= 12 and 1 <= day <= 31 else match[0]

    def slashed(match: re.Match[str]) -> str:
        one, two, year = (int(part) for part in match.groups())
        month, day = (one, two) if locale.month_first else (two, one)
        if not 1 <= month <= 12:
            month, day = day, month
        return _say_date(year, month, day, locale) if 1 <= month <= 12 and 1 <= day <= 31 else match[0]

    text = re.sub(r"(?<![\d-])(\d{4})-(\d{2})-(\d{2})(?![\d-])", iso, text)
    return re.sub(r"(?<![\d/.])(\d{1,2})[/.](\d{1,2})[/.](\d{4})(?![\d/])", slashed, text)


_DECADES: Final = (
    "hundreds", "tens", "twenties", "thirties", "forties",
    "fifties", "sixties", "seventies", "eighties", "nineties",
)  # fmt: skip


def _year_en(match: re.Match[str]) -> str:
    century, rest, decade = int(match[1]), int(match[2]), match[3]
    if decade and rest % 10 == 0:
        return match[0] if century == 20 and rest == 0 else f"{century} {_DECADES[rest // 10]}"
    if decade or (century == 20 and rest < 10):
        return match[0]
    if rest == 0:
        return f"{century} hundred"
    return f"{century} oh {rest}" if rest < 10 else f"{century} {rest}"


def _times_en(match: re.Match[str]) -> str:
    hour, minute, half = int(match[1]), match[2], match[3]
    if hour > 24 or int(minute) > 59:
        return match[0]
    said = (
        f"{hour}"
        if minute == "00"
        else f"{hour} oh {int(minute)}"
        if minute[0] == "0"
        else f"{hour} {minute}"
    )
    if half:
        return f"{said} {half[0].upper()}M" + _sentence_end(match.string[match.end() :])
    return (
        f"{said} o'clock"
        if minute == "00" and 1 <= hour <= 12
        else f"{said} hundred"
        if minute == "00"
        else said
    )


def _hour_en(match: re.Match[str]) -> str:
    return f"{match[1]} {match[2].upper()}M" + _sentence_end(match.string[match.end() :])


def _english(text: str) -> str:
    text = re.sub(r"\b(\d{1,2}):(\d{2})(?: ?([ap])\.?m\b\.?)?", _times_en, text, flags=re.IGNORECASE)
    text = re.sub(r"\b(\d{1,2}) ?([ap])\.?m\b\.?", _hour_en, text, flags=re.IGNORECASE)
    text = re.sub(rf"(?<![\d.,/:$€£¥₹])(1[1-9]|20)(\d\d)('?s)?{_WORD_END}(?![.,:/]\d)", _year_en, text)
    text = re.sub(r"(?<=\d) ?km\b", " kilometers", text)
    text = re.sub(r"(?<=\d) ?kg\b", " kilograms", text)
    text = re.sub(r"(?<=\d) ?cm\b", " centimeters", text)
    text = re.sub(r"(?<=\d) ?mm\b", " millimeters", text)
    return re.sub(r"#(?=\d)", "number ", text)


@lru_cache(maxsize=16)
def _abbreviation_pattern(language: str) -> re.Pattern[str]:
    known = sorted(LOCALES[language].abbreviations, key=len, reverse=True)
    return re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, known))}){_WORD_END}", re.IGNORECASE)


def _abbreviations(text: str, language: str) -> str:
    words = LOCALES[language].abbreviations

    def say(match: re.Match[str]) -> str:
        short = match[0].lower()
        follows = text[match.end() :]
        if short == "no." and not re.match(r" ?\d", follows):
            return match[0]  # the plain word, ending its sentence
        if short == "st." and not re.match(r" [A-Z]", follows):
            return "street" + _sentence_end(follows)
        return words[short] + (
            _sentence_end(follows) if short in ("etc.", "inc.", "jr.", "ltd.", "ecc.") else ""
        )

    return _abbreviation_pattern(language).sub(say, text)


def _sentence_end(follows: str) -> str:
    """The abbreviation's full stop may have been the sentence's too."""
    return "." if not follows.strip() or re.match(r" [A-Z]", follows) else ""


def normalise(text: str, language: str) -> str:
    """Return `text` as it should be phonemised; of a language without rules only the signs are cleaned."""
    text = _readable(text)
    locale = LOCALES.get(language)
    if locale is None:
        return text
    text = _dates(text, locale)
    text = _english(text) if language.startswith("en") else _CLOCK.sub(r"\1 \2", text)
    text = _number(text, locale)
    text = _money_pattern(language).sub(_say_money(locale), text)
    text = _abbreviations(text, language)
    # Initials and dotted acronyms: the points are no pauses.
    text = re.sub(
        r"\b(?:[^\W\d_]\.){2,}", lambda m: m[0].replace(".", "") + _sentence_end(text[m.end() :]), text
    )
    text = re.sub(r"(?<=\d) ?-(?=\d)", locale.to, text)
    text = re.sub(r"(?<=\s)-(?=\s)|--+", "—", text)
    return re.sub(r"\s+", " ", text).strip()
