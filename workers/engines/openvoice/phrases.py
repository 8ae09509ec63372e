"""What a base engine is made to say so that the converter can hear who speaks.

A tone colour is heard best from some varied seconds. It is the speaker's and not the language's, but a voice
is at its most natural in its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_DIGITS: Final = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10."
"Any engine can say numbers."

PHRASES: Final[dict[str, str]] = {
    "ar": "كان الجو جميلا هذا الصباح، فخرجنا نمشي على الشاطئ حتى المساء.",
    "cs": "Ráno bylo krásně, a tak jsme se vydali podél řeky až k starému mlýnu.",
    "de": "Am Morgen war das Wetter schön, also gingen wir am Fluss entlang bis zur alten Mühle.",
    "en": "The weather was fine this morning, so we walked along the river to the old mill and back.",
    "es": "Esta mañana hacía buen tiempo, así que caminamos por el río hasta el viejo molino y volvimos.",
    "fr": "Ce matin il faisait beau, alors nous avons marché le long du fleuve jusqu'au vieux moulin.",
    "hi": "आज सुबह मौसम अच्छा था, इसलिए हम नदी के किनारे पुरानी चक्की तक टहलने गए।",
    "hu": "Reggel szép idő volt, ezért a folyó mentén elsétáltunk a régi malomig.",
    "it": "Stamattina il tempo era bello, così abbiamo camminato lungo il fiume fino al vecchio mulino.",
    "ja": "今朝は天気がよかったので、川にそって古い水車まで歩きました。",
    "ko": "오늘 아침에는 날씨가 좋아서 강을 따라 오래된 방앗간까지 걸어갔습니다.",
    "nl": "Vanmorgen was het mooi weer, dus liepen we langs de rivier naar de oude molen.",
    "pl": "Rano była ładna pogoda, więc poszliśmy wzdłuż rzeki do starego młyna.",
    "pt": "Hoje de manhã o tempo estava bom, então caminhamos ao longo do rio até o velho moinho.",
    "ru": "Утром была хорошая погода, и мы пошли вдоль реки к старой мельнице.",
    "tr": "Bu sabah hava güzeldi, biz de nehir boyunca eski değirmene kadar yürüdük.",
    "zh": "今天早上天气很好，我们沿着河边走到老磨坊，还买了面包。",
}


def phrase(language: str) -> str:
    """Something to say in a language, given by its tag."""
    return PHRASES.get(language.split("-")[0].lower(), _DIGITS)


def most_natural(languages: Sequence[str]) -> str:
    """The language to hear an engine in that speaks all its languages with one voice."""
    known = [tag for tag in languages if tag.split("-")[0].lower() in PHRASES]
    english = [tag for tag in known if tag.split("-")[0].lower() == "en"]
    return (english or known or list(languages))[0]
