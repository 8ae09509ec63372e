"""Which of an engine's languages a request means."""

from __future__ import annotations

from collections.abc import Sequence

from ..common.errors import BadRequest


def match_language(wanted: str, supported: Sequence[str], engine: str) -> str:
    """Return the engine's own tag for a BCP 47 tag.

    The same tag wins, then a bare tag's first variant ('en' → 'en-us'), then a bare tag of the engine for
    a variant ('fr-ca' → 'fr'). Raises `BadRequest` naming what the engine speaks.
    """
    tag = wanted.lower().replace("_", "-")
    tags = [language.lower() for language in supported]
    if tag in tags:
        return supported[tags.index(tag)]
    if "-" not in tag:
        for index, other in enumerate(tags):
            if other.startswith(tag + "-"):
                return supported[index]
    elif (bare := tag.split("-", 1)[0]) in tags:
        return supported[tags.index(bare)]
    raise BadRequest(f"{engine} does not speak {wanted!r}: it speaks {', '.join(supported)}")
