"""The page in a real browser: headless Chromium with a microphone that plays a file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import soundfile

from tests.edge.page.acts import Opener
from tests.edge.server import EdgeProcess
from voicebus.client.launch import Bus
from voicebus.common.apikeys import ApiKeys
from voicebus.common.voices import VoiceStore

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Dialog, Page

if find_spec("playwright") is None:
    collect_ignore_glob = ["test_[!w]*.py"]


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
    from playwright.sync_api import sync_playwright

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
def opened(browser: Browser, stand: tuple[Bus, EdgeProcess]) -> Iterator[Opener]:
    """Opens the page of an edge. No script may fail in it, and unless told otherwise nothing may complain."""
    contexts: list[BrowserContext] = []
    wrong: list[str] = []
    asked: list[str] = []

    def accept(dialog: Dialog) -> None:
        dialog.accept()

    def opened(url: str, *scripts: str, strict: bool = True, ask: Callable[[Dialog], None] = accept) -> Page:
        context = browser.new_context(
            viewport={"width": 1280, "height": 900},
            locale="en-GB",
            accept_downloads=True,
            reduced_motion="reduce",
        )
        contexts.append(context)
        context.grant_permissions(["microphone"])
        page = context.new_page()
        page.on("dialog", ask)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        if strict:
            page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("request", lambda request: asked.append(request.url.removeprefix(url)))
        for script in scripts:
            page.add_init_script(script)
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong
    assert all(url.startswith(("/", "blob:", "data:")) for url in asked), "nothing from another host"


@pytest.fixture
def page(opened: Opener, stand: tuple[Bus, EdgeProcess]) -> Page:
    return opened(stand[1].url)


@pytest.fixture
def guarded(stand: tuple[Bus, EdgeProcess], tmp_path: Path) -> Iterator[tuple[EdgeProcess, str]]:
    _, key = ApiKeys(tmp_path / "keys.json").new("a", scopes=["speak", "operate"])
    with EdgeProcess(stand[0], edge={"api_keys": str(tmp_path / "keys.json")}) as edge:
        yield edge, key
