"""The step of the build that puts the bill of materials into the wheel; `setup.cfg` names it.

setuptools has no setting for it yet. Nothing is made here: what lies in the tree is copied, and a test says
when that is behind. So whoever builds needs no more than setuptools, and gets the same bytes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools.command.bdist_wheel import bdist_wheel

SBOM = Path(__file__).with_name("voicebus.cdx.json")


class WheelWithSbom(bdist_wheel):
    """A wheel with `.dist-info/sboms`, as PEP 770 has it."""

    def write_wheelfile(self, wheelfile_base: str, *arguments: str, **options: str) -> None:
        """Complete the wheel's metadata; its list of files is written after this."""
        super().write_wheelfile(wheelfile_base, *arguments, **options)
        folder = Path(wheelfile_base) / "sboms"
        folder.mkdir(exist_ok=True)
        shutil.copyfile(SBOM, folder / SBOM.name)
