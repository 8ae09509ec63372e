"""The page in a real browser: headless Chromium with a microphone that plays a file."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from tests.edge.server import EdgeProcess
from voicebus.client.launch import Bus
from voicebus.common.voices import VoiceStore

playwright = pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

pytestmark = pytest.mark.edge

ROOT = Path(__file__).resolve().parents[2]
WIDTHS = (1280, 390)
TEXT = "The ferry leaves the northern harbour at nine. The last bus waits for everyone who missed it."
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)
AT = """player => new Promise((heard) => {{
    player.ontimeupdate = () => player.currentTime > {} && heard(document.getElementById("said").textContent);
}})"""
"""An event that is waited for: the policy of the page lets nobody evaluate words, Playwright included."""
PACE = {"seconds_per_char": 0.03, "realtime_factor": 0.8}


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bus, EdgeProcess]]:
    store = {"voices": {"path": str(tmp_path_factory.mktemp("voices"))}}
    config = {"broker": {"default_engine": "tone"}, **store}
    with (
        Bus(engines={"tone": 2}, settings=PACE, config=config) as bus,
        EdgeProcess(bus, config=store) as edge,
    ):
        yield bus, edge


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    recording = VoiceStore().reference("amber")
    sound = tmp_path_factory.mktemp("microphone") / "voice.wav"
    soundfile.write(sound, recording.samples, recording.rate_hz, subtype="PCM_16")
    microphone = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={sound}",
    )
    chromium = shutil.which("chromium") or os.environ.get("CHROMIUM", "")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=[*QUIET, *microphone])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, stand: tuple[Bus, EdgeProcess]) -> Iterator[Page]:
    context = browser.new_context(
        viewport={"width": 1280, "height": 900},
        locale="en-GB",
        accept_downloads=True,
        reduced_motion="reduce",
    )
    context.grant_permissions(["microphone"])
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(stand[1].url)
    yield page
    assert not wrong
    assert all(url.startswith((stand[1].url, "blob:", "data:")) for url in asked), "nothing from another host"
    context.close()


def test_a_text_is_heard_seen_and_downloaded(page: Page, tmp_path: Path) -> None:
    page.get_by_label("Text").fill(TEXT)
    page.keyboard.press("Control+Enter")
    player = page.locator("#player")
    said = player.evaluate(AT.format(0.1))
    assert said == "Speaking…", "heard while it is still being spoken"
    begun = player.evaluate("player => player.currentTime")
    player.evaluate(AT.format(begun + 0.2))
    assert player.evaluate("player => !player.paused && !player.error")
    expect(page.locator("#said")).to_contain_text("Done")
    painted = page.evaluate(
        "() => { const c = document.getElementById('wave');"
        " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " return d.some((value) => value > 0); }"
    )
    assert painted
    for format in ("wav", "flac", "opus", "mp3"):
        page.get_by_label("Format").select_option(format)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download").click()
        file = tmp_path / f"speech.{format}"
        download.value.save_as(file)
        assert soundfile.info(file).duration > 2


def test_without_streams_in_the_element_it_is_heard_at_once_too(page: Page) -> None:
    """Firefox takes no MP3 in parts: samples are played as they come, and the element has them after."""
    page.add_init_script("delete window.MediaSource")
    page.reload()
    with page.expect_request("**/v1/audio/speech") as asked:
        page.get_by_label("Text").fill(TEXT)
        page.keyboard.press("Control+Enter")
    assert '"pcm"' in (asked.value.post_data or "")
    expect(page.locator("#said")).to_contain_text("Done")
    player = page.locator("#player")
    player.evaluate("player => player.play()")
    player.evaluate(AT.format(0.2))
    assert player.evaluate("player => player.duration") > 2


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


def test_history_is_kept_in_the_browser_and_forgotten(page: Page) -> None:
    page.get_by_label("Text").fill("To be remembered.")
    page.get_by_role("button", name="Say it").click()
    expect(page.locator("#said")).to_contain_text("Done")
    page.reload()
    page.get_by_role("link", name="History", exact=True).click()
    expect(page.locator("#past li")).to_have_count(1)
    page.get_by_role("button", name="Forget all").click()
    expect(page.locator("#past li")).to_have_count(0)


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
    for view in ("Speak", "Voices", "Workers", "History"):
        page.get_by_role("link", name=view, exact=True).click()
        expect(page.get_by_role("heading", name=view, exact=True)).to_be_attached()
        expect(page.get_by_role("link", name=view, exact=True)).to_have_attribute("aria-current", "page")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{view} at {width}"
        if kept:
            page.screenshot(path=Path(kept, f"{view.lower()}-{width}.png"), animations="disabled")


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
