"""Voices from the microphone and from files: kept once, heard one at a time, and no microphone left on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.edge.page.acts import Opener, fill_voice, view
from tests.edge.page.scripts import (
    MICROPHONES,
    SAMPLES,
    TWICE,
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


def test_a_voice_from_the_microphone_is_kept_and_used(page: Page) -> None:
    page.get_by_role("link", name="Voices", exact=True).click()
    page.get_by_role("button", name="Record", exact=True).click()
    expect(page.locator("#recorded")).to_have_text(re.compile(r"^(6\.[5-9]|7\.\d) s$"), timeout=20_000)
    page.get_by_role("button", name="Stop recording").click()
    page.get_by_label("Name").fill("From the microphone")
    page.get_by_role("button", name="Keep the voice").click()
    assert page.locator("#consent").evaluate("field => !field.checkValidity()"), "not without consent"
    page.get_by_label("Whose voice is it").fill("synthetic, made by this test")
    page.get_by_label("The speaker has agreed").check()
    page.get_by_role("button", name="Keep the voice").click()
    expect(page.locator("#voice-said")).to_contain_text("is kept")
    page.get_by_role("link", name="Speak", exact=True).click()
    page.locator("#voice").select_option(label="From the microphone")
    page.get_by_label("Text").fill("In the voice of the microphone.")
    page.get_by_role("button", name="Say it").click()
    expect(page.locator("#said")).to_contain_text("Done")


def test_no_microphone_is_left_on(opened: Opener, stand: tuple[Bus, EdgeProcess]) -> None:
    page = opened(stand[1].url, MICROPHONES)
    view(page, "Voices")
    states = "() => tracks.map((track) => track.readyState)"
    page.locator("#record").evaluate(TWICE)
    expect(page.locator("#record")).to_have_text("Stop recording")
    expect(page.locator("#recorded")).not_to_be_empty()
    assert page.evaluate(states) == ["live"]
    page.locator("#record").evaluate(TWICE)
    expect(page.locator("#sample")).to_be_visible()
    expect(page.locator("#record")).to_have_text("Record")
    assert page.evaluate(states) == ["ended"]


def test_a_recording_that_cannot_begin_leaves_no_microphone_on(
    opened: Opener, stand: tuple[Bus, EdgeProcess]
) -> None:
    fails = "AudioWorklet.prototype.addModule = () => Promise.reject(new Error('no module'));"
    page = opened(stand[1].url, MICROPHONES, SAMPLES, fails)
    view(page, "Voices")
    page.locator("#record").click()
    expect(page.locator("#voice-said")).to_have_text("No microphone: no module")
    expect(page.locator("#record")).to_be_enabled()
    assert page.evaluate("() => tracks.map((track) => track.readyState)") == ["ended"]
    assert page.evaluate("() => contexts.map((context) => context.state)") == ["closed"]


def test_without_https_it_says_why_nothing_is_recorded(
    opened: Opener, stand: tuple[Bus, EdgeProcess]
) -> None:
    page = opened(stand[1].url, "Object.defineProperty(navigator, 'mediaDevices', { value: undefined });")
    view(page, "Voices")
    expect(page.locator("#record")).to_be_disabled()
    expect(page.locator("#needs-https")).to_contain_text("HTTPS")


def test_a_voice_is_kept_once_and_removed(page: Page, tmp_path: Path) -> None:
    fill_voice(page, tmp_path, "Pressed twice")
    page.locator("#keep").evaluate(TWICE)
    expect(page.locator("#voice-said")).to_contain_text("is kept")
    expect(page.locator("#keep")).to_be_enabled()
    kept = page.locator("#voice-list li", has_text="Pressed twice")
    expect(kept).to_have_count(1)
    kept.get_by_role("button", name="Remove").click()
    expect(kept).to_have_count(0)
    expect(page.locator("#voice-said")).to_have_text(EN["removed"].format(name="Pressed twice"))
    expect(page.locator("#voices-title")).to_be_focused()


def test_one_recording_is_heard_at_a_time(opened: Opener, stand: tuple[Bus, EdgeProcess]) -> None:
    sounds = """
    window.sounds = [];
    window.Audio = function (source) {
        const sound = document.createElement("audio");
        sound.src = source;
        sounds.push(sound);
        return sound;
    };"""
    page = opened(stand[1].url, sounds)
    view(page, "Voices")
    paused = "() => sounds.map((sound) => sound.paused)"
    one, other = (
        page.locator("#voice-list [data-hear]").nth(0),
        page.locator("#voice-list [data-hear]").nth(1),
    )
    one.click()
    expect(one).to_have_text("Stop")
    other.click()
    expect(one).to_have_text("Hear it")
    expect(other).to_have_text("Stop")
    page.locator("#language").click()
    expect(other).to_have_text(ZH["stop"])
    expect(one).to_have_text(ZH["hear"])
    other.click()
    expect(other).to_have_text(ZH["hear"])
    assert all(page.evaluate(paused))
