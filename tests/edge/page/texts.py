"""The page's sources as text, and its words in both languages."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "edge" / "page"
SCRIPTS = {path.name: path.read_text("utf-8") for path in sorted(PAGE.glob("*.js"))}
EDGE = PAGE.parent


def table(language: str) -> dict[str, str]:
    body = re.search(rf"export const {language} = \{{(.*?)\n\}};", SCRIPTS["texts.js"], re.DOTALL)
    assert body is not None
    pairs = re.findall(r'(?:^|[\s,])(?:"([\w-]+)"|(\w+)): "((?:[^"\\]|\\.)*)"', body[1])
    names = [quoted or bare for quoted, bare, _ in pairs]
    assert len(names) == len(set(names)), "no key twice"
    assert body[1].count('": "') + len(re.findall(r'\w: "', body[1])) == len(names), "every entry was read"
    return {quoted or bare: text for quoted, bare, text in pairs}


EN, ZH = table("EN"), table("ZH")
