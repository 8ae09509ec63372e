"""What was spoken before is kept in the browser, if it keeps anything, and said again as it was."""

from __future__ import annotations

import json

import pytest

from tests.edge.page.acts import Opener, say, view
from tests.edge.page.scripts import (
    AT,
    FULL_ONCE,
    NOTHING_KEPT,
    TEXT,
)
from tests.edge.page.texts import EN, ZH
from tests.edge.server import EdgeProcess
from voicebus.client.launch import Bus

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import (
    Dialog,
    Page,
    expect,
)

pytestmark = pytest.mark.edge


def test_history_is_kept_in_the_browser_and_forgotten(opened: Opener, stand: tuple[Bus, EdgeProcess]) -> None:
    asked: list[str] = []

    def refuse_once(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.accept() if len(asked) > 1 else dialog.dismiss()

    page = opened(stand[1].url, ask=refuse_once)
    say(page, "To be remembered.")
    expect(page.locator("#said")).to_contain_text("Done")
    page.reload()
    view(page, "History")
    expect(page.locator("#past li")).to_have_count(1)
    expect(page.locator("#past audio")).to_have_attribute("aria-label", "Speech: To be remembered.")
    page.get_by_role("button", name="Forget all").click()
    expect(page.locator("#past li")).to_have_count(1)
    page.get_by_role("button", name="Forget all").click()
    expect(page.locator("#past li")).to_have_count(0)
    assert asked == [EN["confirm-forget"]] * 2


def test_a_browser_that_keeps_nothing_speaks(opened: Opener, stand: tuple[Bus, EdgeProcess]) -> None:
    page = opened(stand[1].url, NOTHING_KEPT)
    say(page, "Not to be kept.")
    expect(page.locator("#said")).to_contain_text("Done")
    expect(page.locator("#wrong")).to_be_empty()
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.locator("#voice").select_option(index=1)
    view(page, "History")
    expect(page.locator("#past-said")).to_have_text(EN["no-history"])
    page.get_by_role("button", name="Forget all").click()
    page.locator("#language").click()
    expect(page.locator("#past-said")).to_have_text(ZH["no-history"])


def test_a_history_that_was_full_once_is_tried_again(opened: Opener, stand: tuple[Bus, EdgeProcess]) -> None:
    page = opened(stand[1].url, FULL_ONCE)
    for text in ("Not kept.", "Kept."):
        say(page, text)
        expect(page.locator("#said")).to_contain_text("Done")
    view(page, "History")
    expect(page.locator("#past li p")).to_have_text(["Kept."])


def test_it_is_said_again_as_it_was(page: Page) -> None:
    page.locator("#voice").select_option(index=1)
    voice = page.locator("#voice").input_value()
    page.locator("#engine").select_option("tone")
    page.locator("#speed").fill("1.5")
    say(page, "Once more.")
    expect(page.locator("#said")).to_contain_text("Done")
    page.reload()
    expect(page.locator("#engine option")).not_to_have_count(0)
    page.locator("#voice").select_option(index=0)
    say(page, TEXT)
    page.locator("#player").evaluate(AT.format(0.1))
    view(page, "History")
    with page.expect_request("**/v1/audio/speech") as asked:
        page.get_by_role("button", name="Say again").click()
    wish = json.loads(asked.value.post_data or "")
    assert wish == {
        "input": "Once more.", "voice": voice, "model": "tone", "speed": 1.5, "response_format": "mp3",
    }  # fmt: skip
    expect(page.locator("#said")).to_contain_text("Done")
    expect(page.locator("#speak")).to_be_visible()
    assert page.locator("#voice").input_value() == voice
    expect(page.locator("#text")).to_have_value("Once more.")
    expect(page.locator("#speed-shown")).to_have_text("1.5×")


def test_it_is_not_said_again_in_another_voice(page: Page) -> None:
    say(page, "In a voice that will go.")
    expect(page.locator("#said")).to_contain_text("Done")
    voice = page.locator("#voice").input_value()
    other = {"id": "other", "name": "Other", "language": "en", "licence": "", "seconds": 7, "shipped": True}
    page.route("**/v1/audio/voices", lambda route: route.fulfill(json={"voices": [other]}))
    page.reload()
    spoken: list[str] = []
    page.on("request", lambda request: spoken.append(request.url) if "speech" in request.url else None)
    view(page, "History")
    page.get_by_role("button", name="Say again").click()
    expect(page.locator("#wrong")).to_have_text(EN["voice-gone"].format(voice=voice))
    expect(page.locator("#text")).to_have_value("In a voice that will go.")
    assert spoken == []
