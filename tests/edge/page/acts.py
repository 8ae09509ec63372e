"""What people do on the page, and how tests open it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import soundfile

from voicebus.common.voices import VoiceStore

if TYPE_CHECKING:
    from playwright.sync_api import Dialog, Page


class Opener(Protocol):
    def __call__(
        self, url: str, *scripts: str, strict: bool = True, ask: Callable[[Dialog], None] = ...
    ) -> Page: ...


def say(page: Page, text: str) -> None:
    page.get_by_label("Text").fill(text)
    page.get_by_role("button", name="Say it").click()


def view(page: Page, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).click()


def fill_voice(page: Page, tmp_path: Path, name: str) -> None:
    recording = VoiceStore().reference("amber")
    soundfile.write(tmp_path / "voice.wav", recording.samples, recording.rate_hz, subtype="PCM_16")
    view(page, "Voices")
    page.locator("#file").set_input_files(tmp_path / "voice.wav")
    page.locator("#name").fill(name)
    page.locator("#consent").fill("synthetic, made by this test")
    page.locator("#agreed").check()
