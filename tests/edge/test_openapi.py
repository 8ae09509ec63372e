"""The description is what is served: every route in it, valid OpenAPI 3.1, no lie that schemathesis finds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.edge.server import EdgeProcess


def test_every_route_is_described_and_nothing_else(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert {
        ("POST", "/v1/audio/speech"),
        ("GET", "/v1/models"),
        ("GET", "/v1/audio/voices"),
        ("POST", "/v1/audio/voices"),
        ("DELETE", "/v1/audio/voices/{id}"),
        ("POST", "/v1/jobs"),
        ("GET", "/v1/jobs/{id}"),
        ("DELETE", "/v1/jobs/{id}"),
        ("GET", "/v1/jobs/{id}/audio"),
        ("POST", "/v1/text-to-speech/{voice_id}"),
        ("GET", "/speakers_list"),
        ("POST", "/tts_to_audio/"),
        ("GET", "/livez"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
    } <= described
    operations = [
        operation["operationId"] for methods in document["paths"].values() for operation in methods.values()
    ]
    assert len(operations) == len(set(operations))
    page = http.get("/docs").text
    assert all(path in page for _, path in described)
    assert "<script" not in page
    assert "http://" not in page.replace("http://127.0.0.1", "")


def test_the_document_is_valid_openapi(http: httpx.Client) -> None:
    validate = pytest.importorskip("openapi_spec_validator").validate
    validate(http.get("/openapi.json").json())


@pytest.mark.edge
@pytest.mark.timeout(600)
def test_schemathesis_finds_nothing(edge: EdgeProcess, tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{edge.url}/openapi.json",
        "--checks",
        "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
        "response_schema_conformance,negative_data_rejection,unsupported_method",
        "--max-examples",
        "40",
        "--exclude-path",
        "/docs",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=550, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
