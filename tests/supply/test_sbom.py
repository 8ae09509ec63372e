"""The bill of materials is valid CycloneDX and tells of this tree."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from requirements.locks import FOLDER, LOCKS, direct
from requirements.sbom import PATH, document

BOM: dict[str, Any] = json.loads(PATH.read_text())
VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)


def test_it_is_not_behind_the_tree() -> None:
    assert PATH.read_text() == document(), "run `make lock`"


def test_it_keeps_to_the_schema() -> None:
    assert VALIDATOR.validate_str(PATH.read_text()) is None


@pytest.mark.parametrize(("field", "value"), [("serialNumber", "7"), ("components", [{"name": "x"}])])
def test_the_schema_is_really_looked_at(field: str, value: object) -> None:
    assert VALIDATOR.validate_str(json.dumps({**BOM, field: value})) is not None


def test_it_names_what_is_installed_and_by_whom_it_is_wanted() -> None:
    listed = {(part["name"], part["version"]) for part in BOM["components"]}
    run = LOCKS[0].pins()
    assert listed == {(pin.name, pin.version) for pin in run}
    wants = {entry["ref"]: entry.get("dependsOn", []) for entry in BOM["dependencies"]}
    aiohttp, yarl = (f"pkg:pypi/{pin.name}@{pin.version}" for pin in run if pin.name in ("aiohttp", "yarl"))
    assert aiohttp in wants["voicebus"]
    assert yarl in wants[aiohttp]
    required = {part["name"] for part in BOM["components"] if part["scope"] == "required"}
    assert {"numpy", "pyzmq", "cffi"} <= required, "cffi comes with soundfile"
    assert not {"aiohttp", "onnxruntime"} & required, "extras"
    assert len(required) > len(direct(()))


def test_what_the_wheel_carries_besides_code_is_named_by_its_hash() -> None:
    carried = BOM["metadata"]["component"]["components"]
    assert len(carried) == 3
    for part in carried:
        path = FOLDER.parent / part["name"].removeprefix("voicebus/")
        assert part["hashes"][0]["content"] == hashlib.sha256(path.read_bytes()).hexdigest()
