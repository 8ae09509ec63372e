from __future__ import annotations

import pytest

from voicebus.common.errors import BadRequest
from voicebus.workers.languages import match_language


@pytest.mark.parametrize(
    ("wanted", "supported", "tag"),
    [
        ("en-GB", ("en-us", "en-gb"), "en-gb"),
        ("en", ("fr", "en-us", "en-gb"), "en-us"),
        ("fr-ca", ("en", "fr"), "fr"),
        ("ZH_cn", ("zh-cn",), "zh-cn"),
        ("zh", ("zh-cn",), "zh-cn"),
        ("en", ("en-us", "en"), "en"),
    ],
)
def test_a_tag_finds_the_engines_own(wanted: str, supported: tuple[str, ...], tag: str) -> None:
    assert match_language(wanted, supported, "x") == tag


@pytest.mark.parametrize("wanted", ["de", "en-au", "e", "eng"])
def test_the_refusal_names_what_is_spoken(wanted: str) -> None:
    with pytest.raises(BadRequest, match="it speaks en-us, fr"):
        match_language(wanted, ("en-us", "fr"), "x")
