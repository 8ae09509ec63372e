"""Where a job's text is cut: the first clause alone, so that sound starts early, then ever longer stretches.

The model speaks several times faster than real time, so while one stretch plays, the next may be up to
about twice as long without a gap. Stretches therefore grow from a few words to whole sentences and then
groups of sentences; cuts fall between sentences where possible, then at inner punctuation, then before a
small word that opens a phrase, and within a phrase only past the hard limit. Text and language alone
decide, and the time it takes grows with the text's length alone.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import Final

from ....common import text as common_text

FIRST_CHARS: Final = 34
"Most characters of the first stretch: some 1.9 s of speech, synthesised in some 0.9 s on two cores."
GROWTH: Final = 2.2
"The next stretch is at most so many times as long as the one that plays while it is made."
FULL_CHARS: Final = 240
"The model's prosody hurries past about 300 characters."
MAX_CHARS: Final = 320
MOST_SENTENCE_CHARS: Final = 10 * MAX_CHARS
"""A sentence is looked through for each stretch that is cut off it: a longer one is no sentence, and is cut
between words first."""
_SHORT_CHARS: Final = 24
"A stretch shorter than this counts as so long: a short pause behind two words is better than many cuts."
_LEAST_CHARS: Final = 10
_SLACK: Final = 1.15
"A stretch a little over its room is better left whole, or cut there than inside a phrase."
_DIGIT_WEIGHT: Final = 6
"A digit is worth this many letters: '7' is said as 'seven', and inside a number as more."

_INNER: Final = re.compile(r"(?<=[,;:—…)\]”])\s+|(?<=\s)(?=[(\[“])|(?<=[、，；：])")


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_OPENERS: Final[dict[str, frozenset[str]]] = {
    "en": _words(
        "and or but nor so yet because although though while when where which who whose that if unless until "
        "since before after as than for from with without within into onto over under between through during "
        "against about in on at by to of"
    ),
    "es": _words("y e o u pero porque aunque mientras cuando donde que si desde con sin para por en de a"),
    "fr": _words("et ou mais car parce quand où que qui si depuis avec sans pour par dans en de à"),
    "it": _words("e o ma perché mentre quando dove che se da con senza per in di a"),
    "pt": _words("e ou mas porque embora enquanto quando onde que se desde com sem para por em de a"),
    "hi": _words("और या लेकिन क्योंकि जब जहाँ कि अगर जो तो"),
}


_OPENER_CHARS: Final = 3 + max(len(word) for words in _OPENERS.values() for word in words)


def weight(text: str) -> int:
    """Characters, with digits counted as the words they become."""
    return len(text) + (_DIGIT_WEIGHT - 1) * sum(map(str.isdigit, text))


def _sentences(text: str, language: str) -> list[str]:
    found: list[str] = []
    for line in text.splitlines():
        for sentence in common_text.sentences(line, language[:2]) if line.strip() else ():
            # One space between words is as good as a thousand, and not as far to look through.
            plain = " ".join(sentence.split())
            found += [plain] if len(plain) <= MOST_SENTENCE_CHARS else _hard_split(plain, MOST_SENTENCE_CHARS)
    return [sentence for sentence in found if sentence]


def _speakable(text: str) -> bool:
    return any(map(str.isalnum, text))


def _hard_split(text: str, limit: int) -> list[str]:
    """Cut between words, or within a monstrous word, so that no piece weighs more than `limit`."""
    pieces: list[str] = []
    words: list[str] = []
    heavy = 0
    for word in chain.from_iterable(_pieces_of_word(whole, limit) for whole in text.split()):
        weighs = weight(word)
        if words and heavy + 1 + weighs > limit:
            pieces.append(" ".join(words))
            words, heavy = [], 0
        heavy += weighs + bool(words)
        words.append(word)
    return [*pieces, " ".join(words)] if words else pieces


def _pieces_of_word(word: str, limit: int) -> list[str]:
    if weight(word) <= limit:
        return [word]
    pieces: list[str] = []
    start = heavy = 0
    for place, character in enumerate(word):
        weighs = weight(character)
        if heavy + weighs > limit and place > start:
            pieces.append(word[start:place])
            start, heavy = place, 0
        heavy += weighs
    return [*pieces, word[start:]]


def _cut(text: str, language: str, limit: int) -> tuple[str, str]:
    """Cut the best head of at most `limit` off `text`; the head is empty where only a forced cut would do."""
    window = text[: limit + 2]
    spoken_until = next((n for n in range(len(text), 0, -1) if text[n - 1].isalnum()), 0)
    heads = [window[: m.end()].strip() for m in _INNER.finditer(window)]
    good = [
        h for h in heads if _LEAST_CHARS <= weight(h) <= limit and _speakable(h) and len(h) < spoken_until
    ]
    if not good:
        openers = _OPENERS.get(language[:2], frozenset())
        spaces = [m.start() for m in re.finditer(r"\s+", window)]
        heads = [text[:n].strip() for n in spaces if _word_at(text, n) in openers]
        good = [
            h for h in heads if limit // 3 <= weight(h) <= limit and len(text) - len(h) > _LEAST_CHARS * 2
        ]
    if not good:
        return "", text
    head = max(good, key=len)
    return head, text[len(head) :].strip()


def _word_at(text: str, place: int) -> str:
    """The next word in lower case, as far as it could be one that opens a phrase."""
    following = text[place : place + _OPENER_CHARS].split(maxsplit=1)
    return following[0].lower() if following else ""


def split(text: str, language: str) -> list[str]:
    """Return the stretches of `text` to speak one by one; joined by spaces they are the text again.

    None weighs more than `MAX_CHARS`. Text without a letter or digit comes back as it is.
    """
    pending = _sentences(text, language)[::-1]
    stretches: list[str] = []
    room = float(FIRST_CHARS)
    while pending:
        current = pending.pop()
        limit = int(min(room, FULL_CHARS))
        if weight(current) > limit * _SLACK:
            head, rest = _cut(current, language, limit)
            if not head:
                head, rest = _cut(current, language, int(limit * _SLACK))
            if head:
                pending.append(rest)
                current = head
            elif weight(current) > MAX_CHARS or not stretches:
                forced = MAX_CHARS if stretches else max(limit, weight(current.split()[0]))
                head, *more = _hard_split(current, min(forced, MAX_CHARS))
                if not stretches and len(" ".join(more)) < _LEAST_CHARS * 2 and weight(current) <= MAX_CHARS:
                    head, more = current, []
                if more:
                    pending.append(" ".join(more))
                current = head
        else:
            while pending and (
                weight(f"{current} {pending[-1]}") <= limit
                or (not _speakable(pending[-1]) and weight(f"{current} {pending[-1]}") <= MAX_CHARS)
            ):
                current = f"{current} {pending.pop()}"
        stretches.append(current)
        room = GROWTH * max(weight(current), _SHORT_CHARS)
    return stretches or [text]
