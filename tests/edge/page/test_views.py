"""The views: live, in two languages and two themes, narrow and wide, by keyboard and read aloud."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.edge.page.acts import Opener, say, view
from tests.edge.page.scripts import (
    CONTRASTS,
    TEXT,
    TEXTS,
)
from tests.edge.page.texts import EN, ZH
from tests.edge.server import EdgeProcess
from voicebus.client.launch import Bus

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import (
    Page,
    expect,
)

pytestmark = pytest.mark.edge


WIDTHS = (1280, 390)


def test_a_worker_that_is_killed_leaves_the_view(page: Page, stand: tuple[Bus, EdgeProcess]) -> None:
    bus, _ = stand
    page.get_by_role("link", name="Workers", exact=True).click()
    rows = page.locator("#workers tr")
    expect(rows).to_have_count(2)
    number = bus.start_worker()
    expect(rows).to_have_count(3)
    bus.kill_worker(number)
    expect(rows).to_have_count(2, timeout=15_000)
    expect(page.locator("#events")).to_contain_text("has gone")


def test_the_page_speaks_chinese_and_knows_the_dark(page: Page) -> None:
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("heading", name="朗读")).to_be_visible()
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_off_and_the_views_are_kept_as_pictures(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.get_by_label("Text").fill(TEXT)
    page.get_by_role("button", name="Say it").click()
    expect(page.locator("#said")).to_contain_text("Done")
    kept = os.environ.get("VOICEBUS_SCREENSHOTS")
    for name in ("Speak", "Voices", "Workers", "History"):
        view(page, name)
        expect(page.get_by_role("heading", name=name, exact=True)).to_be_attached()
        expect(page.get_by_role("link", name=name, exact=True)).to_have_attribute("aria-current", "page")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} at {width}"
        if kept:
            page.screenshot(path=Path(kept, f"{name.lower()}-{width}.png"), animations="disabled")


def test_it_can_be_used_by_keyboard_and_read_by_a_reader(page: Page) -> None:
    """Every control has a name, and the tab key reaches the text, the voice and the button in this order."""
    nameless = page.evaluate(
        "() => [...document.querySelectorAll('button, input:not([type=hidden]):not([hidden]),"
        " select, textarea')]"
        ".filter((e) => !(e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim()))"
        ".map((e) => e.id)"
    )
    assert nameless == []
    page.locator("#text").focus()
    order = []
    for _ in range(5):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id"))
    assert order[:4] == ["voice", "engine", "speed", "go"]


def test_nothing_stays_behind_in_the_other_language(page: Page) -> None:
    say(page, "Hello.")
    expect(page.locator("#said")).to_contain_text("Done")
    view(page, "History")
    expect(page.locator("#past li")).to_have_count(1)
    view(page, "Voices")
    expect(page.locator("#voice-list li").first).to_be_visible()
    page.locator("#record").click()
    expect(page.locator("#record")).to_have_text("Stop recording")
    expect(page.locator("#pulse")).to_contain_text("workers")
    expect(page.locator("#workers tr").first).to_be_attached()
    fixed = "() => [...document.querySelectorAll('[data-words]')].map((element) => element.textContent)"
    english = {*page.evaluate(fixed), *EN.values()}
    numbers = r"\d+(\.\d+)?( s)?"
    before = [text for text in page.evaluate(TEXTS) if not re.fullmatch(numbers, text)]
    assert {EN["hear"], EN["again"], EN["any-engine"], EN["waiting"], EN["state-ready"]} <= set(before)
    page.locator("#language").click()
    expect(page.locator("#record")).to_have_text(ZH["record-stop"])
    expect(page.locator("#language")).to_have_attribute("lang", "en")
    after = page.evaluate(TEXTS)
    assert english & set(after) == set()
    assert {ZH["hear"], ZH["again"], ZH["any-engine"], ZH["waiting"], ZH["state-ready"]} <= set(after)
    assert any(text.startswith("完成：") for text in after)
    assert any(text.startswith("节点 2") for text in after)
    assert any("已加入" in text for text in after)
    assert "语音：Hello." in after
    page.locator("#language").click()
    expect(page.locator("#language")).to_have_attribute("lang", "zh-CN")
    expect(page.locator("#record")).to_have_text("Stop recording")
    assert {*before} - {*page.evaluate(TEXTS)} == set()
    page.locator("#record").click()
    expect(page.locator("#record")).to_have_text("Record")


def test_what_is_read_out_is_not_read_twice(opened: Opener, stand: tuple[Bus, EdgeProcess]) -> None:
    watch = """addEventListener("DOMContentLoaded", () => {
        window.writes = [];
        const said = document.getElementById("live-said");
        new MutationObserver(() => writes.push(said.textContent)).observe(said, { childList: true });
    });"""
    page = opened(stand[1].url, watch)
    for _ in range(2):
        say(page, "Hello.")
        expect(page.locator("#said")).to_contain_text("Done")
    assert page.evaluate("() => writes") == ["live"]


def test_edges_and_hints_can_be_seen_in_both_themes(page: Page) -> None:
    for theme in ("light", "dark"):
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        too_faint = [found for found in page.evaluate(CONTRASTS) if found[2] < found[1]]
        assert too_faint == [], theme
        page.locator("#theme").click()


def test_the_waveform_takes_the_colours_of_the_theme(page: Page) -> None:
    picture = "canvas => canvas.toDataURL()"
    say(page, "Hello.")
    expect(page.locator("#said")).to_contain_text("Done")
    page.keyboard.press("Escape")
    light = page.locator("#wave").evaluate(picture)
    page.locator("#theme").click()
    assert page.locator("#wave").evaluate(picture) != light
    page.locator("#theme").click()
    assert page.locator("#wave").evaluate(picture) == light


def test_long_names_do_not_widen_a_narrow_page(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 900})
    name = "Unbroken" * 10
    voice = {"id": "amber", "name": name, "language": "en", "licence": name, "seconds": 7, "shipped": False}
    page.route("**/v1/audio/voices", lambda route: route.fulfill(json={"voices": [voice]}))
    page.reload()
    say(page, name)
    expect(page.locator("#said")).to_contain_text("Done")
    for shown in ("Speak", "Voices", "Workers", "History"):
        view(page, shown)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), shown
    expect(page.locator("#past li")).to_have_count(1)
    view(page, "Workers")
    page.locator("#events").evaluate("(list, name) => { list.lastChild.textContent = name; }", name)
    page.locator("#workers").evaluate(
        "(rows, name) => { rows.lastChild.lastChild.textContent = name; }", name
    )
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_keys_of_the_keyboard_do_what_they_say(page: Page) -> None:
    view(page, "Voices")
    expect(page.locator("#drop")).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 300})
    page.locator("#drop").focus()
    top = page.evaluate("scrollY")
    page.evaluate("document.getElementById('file').onclick = () => { window.chosen = true; return false; }")
    page.keyboard.press("Space")
    assert page.evaluate("window.chosen")
    assert page.evaluate("scrollY") == top
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    expect(page.locator("#voices")).to_be_visible()
    expect(page.locator("#speak")).to_be_hidden()
