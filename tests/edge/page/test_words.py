"""The page's words: all of them in both languages, looked up in its source."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from tests.edge.page.texts import EDGE, EN, PAGE, SCRIPTS, ZH
from voicebus.broker.states import WorkerState

DYNAMIC = {
    "`${kind}-${state}`": {
        *(f"speech-{state}" for state in ("begun", "done", "failed", "cancelled")),
        *(f"job-{state}" for state in ("running", "done", "failed", "cancelled")),
    },
    "`state-${worker.state}`": {f"state-{state.name.lower()}" for state in WorkerState},
    "own": set[str](),  # failure.js: the values of its table
    "name": set[str](),  # words.js itself and adding.js's label(), whose callers are looked at
}
"""Arguments that are no literal, and what they may come to."""


class Document(HTMLParser):
    """Keys of the document; those whose English the document itself has not."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: set[str] = set()
        self.bare: set[str] = set()
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids += [found["id"]] if "id" in found else []
        for name, holder in (
            ("data-words", ""),
            ("data-words-label", "aria-label"),
            ("data-words-placeholder", "placeholder"),
        ):
            if name in found:
                self.keys.add(found[name])
                if holder and not found.get(holder):
                    self.bare.add(found[name])


DOCUMENT = Document()
DOCUMENT.feed((PAGE / "index.html").read_text("utf-8"))


def calls(name: str) -> list[tuple[str, str]]:
    """The key that each call of words() or tell() or label() names, with the script it is in."""
    target = r"\$\(\"[\w-]+\"\), *|element, *" if name == "tell" else ""
    found: list[tuple[str, str]] = []
    for script, source in SCRIPTS.items():
        for call in re.finditer(rf"(?<!function )(?<![\w.$-]){name}\((?:{target})([^,()]+)[,)]", source):
            found.append((script, call[1].strip()))
        made = len(re.findall(rf"(?<!function )(?<![\w.$-]){name}\(", source))
        assert made == sum(place == script for place, _ in found), f"every {name}() in {script} was read"
    assert found
    return found


def used() -> set[str]:
    keys: set[str] = set()
    for name in ("words", "tell", "label"):
        for script, argument in calls(name):
            if re.fullmatch(r'"[\w-]+"', argument):
                keys.add(argument[1:-1])
            else:
                assert argument in DYNAMIC, f"{script}: {name}({argument}) is looked at by no test"
                keys |= DYNAMIC[argument]
    own = re.search(r"const OWN = \{(.*?)\}", SCRIPTS["failure.js"])
    assert own is not None
    keys |= set(re.findall(r': "([\w-]+)"', own[1]))
    return keys


USED = used()


def test_the_keys_are_found() -> None:
    assert {"speaking", "too-long", "broken", "drop", "record-stop", "hear", "job-done", "lost"} <= USED
    assert {"speak", "placeholder", "waveform", "player", "views"} <= DOCUMENT.keys


@pytest.mark.parametrize("key", sorted(USED))
def test_what_the_scripts_say_is_in_both_languages(key: str) -> None:
    assert EN.get(key)
    assert ZH.get(key)


@pytest.mark.parametrize("key", sorted(DOCUMENT.keys))
def test_what_the_document_says_is_in_chinese_too(key: str) -> None:
    assert ZH.get(key)


@pytest.mark.parametrize("key", sorted(DOCUMENT.bare))
def test_a_label_that_the_document_lacks_is_in_english(key: str) -> None:
    assert EN.get(key)


def test_nothing_in_the_tables_is_said_nowhere() -> None:
    assert not (EN.keys() | ZH.keys()) - USED - DOCUMENT.keys
    assert not EN.keys() - ZH.keys()


def test_each_language_is_its_own() -> None:
    chinese = re.compile(r"[\u4e00-\u9fff]")
    assert [key for key, text in EN.items() if chinese.search(text)] == []
    assert [key for key, text in ZH.items() if not chinese.search(text)] == []


@pytest.mark.parametrize("key", sorted(EN))
def test_both_languages_fill_in_what_the_caller_gives(key: str) -> None:
    """One may leave a value out, but neither names one that the caller has not."""
    gaps = {language: set(re.findall(r"\{(\w+)\}", text[key])) for language, text in (("EN", EN), ("ZH", ZH))}
    if key.startswith(("speech-", "job-")):
        given = {"id", "engine", "worker", "voice", "seconds", "done", "total"}
        assert gaps["EN"] | gaps["ZH"] <= given
    else:
        assert gaps["EN"] == gaps["ZH"]


def test_what_happens_is_what_the_edge_tells() -> None:
    states = re.search(r"State = Literal\[(.*?)\]", (EDGE / "news.py").read_text("utf-8"))
    assert states is not None
    told = {state for key in DYNAMIC["`${kind}-${state}`"] for state in [key.partition("-")[2]]}
    assert set(re.findall(r'"(\w+)"', states[1])) == told


def test_every_element_that_a_script_asks_for_is_there() -> None:
    asked = {id for source in SCRIPTS.values() for id in re.findall(r'\$\("([\w-]+)"\)', source)}
    assert asked <= set(DOCUMENT.ids)
    assert len(DOCUMENT.ids) == len(set(DOCUMENT.ids))
