"""Kinds of fields that several faces take, so that each is checked and described alike everywhere."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from ..common.messages import LANGUAGE_PATTERN

NOT_BLANK: Final = r"\S"
HINTS: Final = {
    LANGUAGE_PATTERN: "give a language tag such as en, pt-br or zh-cn",
    NOT_BLANK: "there is nothing to say in it",
}
"""What a pattern means in words, for whoever did not match it."""

Text = Annotated[str, Meta(pattern=NOT_BLANK, description="The text to speak.")]
Language = Annotated[
    str, Meta(pattern=LANGUAGE_PATTERN, max_length=35, description="A language tag; empty: the voice's own.")
]
VoiceName = Annotated[
    str, Meta(max_length=64, description="A voice's id, or a name that edge.aliases has; empty: the default.")
]
Model = Annotated[
    str, Meta(max_length=128, description="An engine; OpenAI's names, or none, mean the broker's default.")
]
Speed = Annotated[float, Meta(ge=0.25, le=4, description="A factor; 1 is the engine's own pace.")]
