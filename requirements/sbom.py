"""The bill of materials: what voicebus is made of and installed with, as CycloneDX, made from the lock `run`.

`python -m requirements.sbom` writes it, at the end of `make lock`; every wheel carries it in
`.dist-info/sboms`, where PEP 770 says that tools look for it. It names no time and no random number: the same
tree makes the same bytes. What is a part of the wheel has its hash; a package has none, for which of its
files is installed depends on the machine: the lock has the hashes of them all.
"""

from __future__ import annotations

import configparser
import hashlib
import re
import sys
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

import cyclonedx.model
import cyclonedx.model.bom
import cyclonedx.model.component
import cyclonedx.model.license
from cyclonedx.model import HashAlgorithm
from cyclonedx.model.component import ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .licences import rows
from .locks import FOLDER, LOCKS, SETUP, Pin, direct

# The library's decorators hide from a type checker what these take.
Bom: Any = cyclonedx.model.bom.Bom
BomMetaData: Any = cyclonedx.model.bom.BomMetaData
Component: Any = cyclonedx.model.component.Component
HashType: Any = cyclonedx.model.HashType
LicenseExpression: Any = cyclonedx.model.license.LicenseExpression
Property: Any = cyclonedx.model.Property

PATH: Final = FOLDER / "voicebus.cdx.json"

#: What the wheel carries besides our own code, and the licence of each.
CARRIED: Final = {
    "voices/amber/reference.wav": "CC0-1.0",
    "voices/basil/reference.wav": "CC0-1.0",
    "workers/engines/kokoro/atlas.npz": "Apache-2.0",
}


def document() -> str:
    """The bill of materials of this tree."""
    setup = configparser.ConfigParser()
    setup.read(SETUP)
    (lock,) = (lock for lock in LOCKS if lock.name == "run")
    always: set[str] = {canonicalize_name(Requirement(line).name) for line in direct(())}
    pins = lock.pins()
    needed = set(_needed(always, pins))
    ourselves = Component(
        name="voicebus",
        version=setup["metadata"]["version"],
        type=ComponentType.APPLICATION,
        purl=PackageURL("pypi", name="voicebus", version=setup["metadata"]["version"]),
        bom_ref="voicebus",
        licenses=[LicenseExpression(setup["metadata"]["license"])],
        components=[_carried(path, licence) for path, licence in CARRIED.items()],
    )
    licences = rows()
    packages = {
        pin: _package(pin, licences[pin.name, pin.version], required=pin.name in needed) for pin in pins
    }
    bom = Bom(metadata=BomMetaData(component=ourselves), components=packages.values())
    asked_for = {canonicalize_name(requirement.name) for requirement in lock.asked_for()}
    bom.register_dependency(ourselves, [packages[pin] for pin in pins if pin.name in asked_for])
    for pin in pins:
        wants = [packages[other] for other in pins if pin.name in other.wanted_by]
        bom.register_dependency(packages[pin], wants)
    bom.metadata.timestamp = None
    content = f"{ourselves.version} {[(pin.name, pin.version) for pin in pins]}"
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, content)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def _carried(path: str, licence: str) -> Any:
    digest = hashlib.sha256((FOLDER.parent / path).read_bytes()).hexdigest()
    return Component(
        name=f"voicebus/{path}",
        type=ComponentType.DATA,
        bom_ref=path,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        licenses=[LicenseExpression(licence)],
    )


def _package(pin: Pin, licence: str, *, required: bool) -> Any:
    marker = [Property(name="voicebus:marker", value=str(pin.marker))] if pin.marker else []
    purl = PackageURL("pypi", name=pin.name, version=pin.version)
    return Component(
        name=pin.name,
        version=pin.version,
        type=ComponentType.LIBRARY,
        purl=purl,
        bom_ref=str(purl),
        scope=ComponentScope.REQUIRED if required else ComponentScope.OPTIONAL,
        licenses=[LicenseExpression(licence)],
        properties=marker,
    )


def _needed(names: set[str], pins: list[Pin]) -> Iterator[str]:
    """These, and all that they need."""
    wants: Mapping[str, set[str]] = {
        pin.name: {other.name for other in pins if pin.name in other.wanted_by} for pin in pins
    }
    found: set[str] = set()
    ahead = list(names)
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += wants.get(name, ())
            yield name


def main() -> int:
    """Entry point."""
    text = document()
    PATH.write_text(text)
    print(f"{PATH.name}: {len(re.findall('purl', text))} components")
    return 0


if __name__ == "__main__":
    sys.exit(main())
