"""A key is asked for once, taken as it is pasted, and cannot take the page along."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.edge.page.acts import Opener, say, view
from tests.edge.page.texts import EN
from tests.edge.server import EdgeProcess
from voicebus.client.launch import Bus
from voicebus.common.apikeys import ApiKeys

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import (
    Dialog,
    Route,
    expect,
)

pytestmark = pytest.mark.edge


def test_a_key_is_taken_as_it_is_pasted(opened: Opener, guarded: tuple[EdgeProcess, str]) -> None:
    edge, key = guarded
    answers = ["ключ ✓", f" “Bearer {key}”\t"]
    asked: list[str] = []

    def paste(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.accept(answers[len(asked) - 1])

    page = opened(edge.url, strict=False, ask=paste)
    expect(page.locator("#voice option").first).to_be_attached()
    expect(page.locator("#engine option")).to_have_count(2)
    expect(page.locator("#pulse")).to_contain_text("workers")
    assert asked == [EN["key"], EN["key-again"]], "two requests were refused, and asked once"
    assert page.evaluate("() => localStorage.getItem('api-key')") == key
    page.evaluate("() => localStorage.setItem('api-key', 'ключ')")
    answers += [key]
    page.reload()
    expect(page.locator("#pulse")).to_contain_text("workers")
    assert asked == [EN["key"], EN["key-again"], EN["key"]], "what no header takes is as good as no key"


def test_whoever_gives_no_key_is_asked_once(opened: Opener, guarded: tuple[EdgeProcess, str]) -> None:
    asked: list[str] = []

    def refuse(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.dismiss()

    page = opened(guarded[0].url, strict=False, ask=refuse)
    expect(page.locator("#wrong")).to_contain_text("API key")
    say(page, "Hello.")
    expect(page.locator("#go")).to_be_enabled()
    expect(page.locator("#wrong")).to_contain_text("API key")
    view(page, "Workers")
    expect(page.locator("#pulse")).to_have_text(EN["lost"])
    assert asked == [EN["key"]]
    page.reload()
    expect(page.locator("#wrong")).to_contain_text("API key")
    assert asked == [EN["key"]] * 2


def test_a_key_that_another_request_has_found_is_used(
    opened: Opener, guarded: tuple[EdgeProcess, str]
) -> None:
    edge, key = guarded

    def never(dialog: Dialog) -> None:
        raise AssertionError(dialog.message)

    kept = f"localStorage.getItem('api-key') ?? localStorage.setItem('api-key', '{key}');"
    page = opened(edge.url, kept, strict=False, ask=never)
    expect(page.locator("#engine option")).to_have_count(2)
    page.evaluate("() => localStorage.setItem('api-key', 'vb_old')")

    def answered(route: Route) -> None:
        page.evaluate(f"() => localStorage.setItem('api-key', '{key}')")
        route.fallback()

    with page.expect_response("**/v1/audio/speech") as refused:
        page.route("**/v1/audio/speech", answered)
        say(page, "Hello.")
    assert refused.value.status == 401
    expect(page.locator("#said")).to_contain_text("Done")


def test_the_status_cannot_take_the_page_along(opened: Opener, stand: tuple[Bus, EdgeProcess]) -> None:
    page = opened(
        stand[1].url, "window.WebSocket = class { constructor() { throw new SyntaxError('no'); } };"
    )
    expect(page.locator("#pulse")).to_have_text(EN["lost"])
    say(page, "Hello.")
    expect(page.locator("#said")).to_contain_text("Done")


def test_a_key_that_may_only_speak_is_told_so_and_speaks(
    opened: Opener, stand: tuple[Bus, EdgeProcess], tmp_path: Path
) -> None:
    """Without workers in the status the page took the bus for lost."""
    _, key = ApiKeys(tmp_path / "keys.json").new("a")
    with EdgeProcess(stand[0], edge={"api_keys": str(tmp_path / "keys.json")}) as edge:
        page = opened(edge.url, strict=False, ask=lambda dialog: dialog.accept(key))
        expect(page.locator("#pulse")).to_have_text(EN["ready"])
        expect(page.locator("#pulse")).to_have_attribute("data-state", "idle")
        view(page, "Workers")
        expect(page.locator("#live-said")).to_have_text(EN["not-shown"])
        expect(page.locator("#workers tr")).to_have_count(0)
        view(page, "Voices")
        page.locator("[data-hear=amber]").click()
        expect(page.locator("[data-hear=amber]")).to_have_text(EN["stop"])
