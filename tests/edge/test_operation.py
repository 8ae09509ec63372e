"""What operators see: alive, ready, figures, a log that names requests; and an edge that leaves in order."""

from __future__ import annotations

import signal
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.edge.server import EdgeProcess
from voicebus.client.launch import Bus

PACE = {"seconds_per_char": 0.01, "realtime_factor": 0.1}


def test_ready_follows_the_bus_and_alive_does_not() -> None:
    with Bus(engines={"tone": 1}, settings=PACE) as bus, EdgeProcess(bus) as edge, edge.client() as http:
        assert http.get("/readyz").json() == {"broker": "broker", "engines": ["tone"], "status": "ok"}
        bus.kill_broker()
        refused = http.get("/readyz")
        while refused.status_code == 200:
            refused = http.get("/readyz")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "broker_unreachable")
        assert http.get("/livez").status_code == 200
        assert http.get("/metrics").status_code == 200


def test_figures_are_prometheus_s_and_count(http: httpx.Client) -> None:
    http.post("/v1/audio/speech", json={"input": "Counted."})
    http.get("/nothing/here")
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    requests = {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for sample in families["voicebus_http_requests"].samples
        if sample.name.endswith("_total")
    }
    assert requests["/v1/audio/speech", "200"] >= 1
    assert requests["other", "404"] >= 1, "no label grows with what strangers ask"
    assert families["voicebus_broker_up"].samples[0].value == 1
    assert {
        "voicebus_jobs",
        "voicebus_jobs_queued",
        "voicebus_workers",
        "voicebus_http_request_seconds",
    } <= set(families)
    assert all(family.documentation for family in families.values())


def test_an_edge_that_is_stopped_finishes_what_it_says() -> None:
    with Bus(engines={"tone": 1}, settings={**PACE, "realtime_factor": 0.5}) as bus, EdgeProcess(bus) as edge:
        body = {
            "model": "tone",
            "input": "A sentence that takes its time, so that the edge is told to go while it is spoken.",
        }
        assert edge.child is not None
        with (
            edge.client() as http,
            http.stream("POST", "/v1/audio/speech", json=body | {"response_format": "pcm"}) as answer,
        ):
            parts = answer.iter_raw()
            heard = len(next(parts))
            edge.child.signal(signal.SIGTERM)
            heard += sum(len(part) for part in parts)
        assert heard > 20_000
        assert edge.child.wait(15) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(edge.url)


def test_tls_by_configuration(bus: Bus, tmp_path: Path) -> None:
    certificate, key = tmp_path / "edge.crt", tmp_path / "edge.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    section = {"certificate": str(certificate), "certificate_key": str(key)}
    with EdgeProcess(bus, edge=section) as edge:
        assert edge.url.startswith("https://")
        context = ssl.create_default_context(cafile=str(certificate))
        assert httpx.get(f"{edge.url}/livez", verify=context).json() == {"status": "ok"}
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{edge.url}/livez")


@pytest.mark.parametrize(
    ("edge", "said"),
    [
        ({"host": "203.0.113.1"}, "vc keys api new"),
        ({"certificate": "/nowhere.crt"}, "edge.certificate"),
        ({"trusted_proxies": ["nonsense"]}, "edge.trusted_proxies"),
        ({"redis": "http://a"}, "edge.redis"),
        ({"no_such_key": 1}, "no_such_key"),
    ],
)
def test_a_wrong_configuration_is_one_sentence_and_exit_code_2(
    bus: Bus, edge: dict[str, object], said: str
) -> None:
    process = EdgeProcess(bus, edge=edge)
    with pytest.raises(Exception, match=said), process:
        pass
    assert process.child is not None
    assert process.child.exit_code == 2


def test_pages_elsewhere_call_where_they_are_named(bus: Bus) -> None:
    with EdgeProcess(bus, edge={"cors_origins": ["https://good.example"]}) as edge, edge.client() as http:
        asked = {"Origin": "https://good.example", "Access-Control-Request-Method": "POST"}
        allowed = http.options("/v1/audio/speech", headers=asked)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (
            204,
            "https://good.example",
        )
        spoken = http.post(
            "/v1/audio/speech", json={"input": "Hi."}, headers={"Origin": "https://good.example"}
        )
        assert spoken.headers["access-control-allow-origin"] == "https://good.example"
        refused = http.options("/v1/audio/speech", headers={**asked, "Origin": "https://evil.example"})
        assert refused.status_code == 405
        assert "access-control-allow-origin" not in refused.headers


def test_the_page_brings_all_it_needs_and_may_do_no_more(http: httpx.Client) -> None:
    page = http.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "http://" not in page.text
    assert "https://" not in page.text
    for part in ("main.js", "style.css", "icon.svg", "player.js"):
        answer = http.get(f"/page/{part}")
        assert answer.status_code == 200
        again = http.get(f"/page/{part}", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert http.get("/page/../cli.py").status_code == http.get("/page/nothing.js").status_code == 404


ELSEWHERE = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}


def test_a_page_elsewhere_can_make_this_machine_do_nothing(http: httpx.Client) -> None:
    """A browser carries any page's requests to loopback; only their answers it keeps from the page."""
    form = {"name": "a", "consent": "b"}
    files = {"audio_sample": ("a.wav", b"RIFF")}
    for headers in (ELSEWHERE, {"Sec-Fetch-Site": "cross-site"}):
        for answer in (
            http.post("/v1/audio/speech", json={"input": "Hi."}, headers=headers),
            http.post("/v1/audio/voices", headers=headers, data=form, files=files),
            http.delete("/v1/jobs/0", headers=headers),
            http.get("/tts_stream?text=Hi", headers=headers),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert http.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200, "links lead here"
    untyped = http.post(
        "/v1/audio/speech", content=b'{"input": "Hi."}', headers={"Content-Type": "text/plain"}
    )
    assert untyped.status_code == 415


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example"])
def test_a_name_that_a_stranger_owns_is_not_ours(http: httpx.Client, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}"}
    assert http.get("/v1/jobs", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "host", ["127.0.0.1:1", "[::1]:8080", "localhost", "edge", "box.local", "203.0.113.9"]
)
def test_addresses_and_local_names_are_ours(http: httpx.Client, host: str) -> None:
    assert http.get("/v1/jobs", headers={"Host": host}).status_code == 200


def test_a_name_that_is_configured_and_headers_that_clients_bring(bus: Bus) -> None:
    own = {"host_names": ["voices.example"], "cors_origins": ["https://good.example"]}
    with EdgeProcess(bus, edge=own) as edge, edge.client() as http:
        assert http.get("/v1/jobs", headers={"Host": "voices.example"}).status_code == 200
        asked = "authorization,content-type,x-stainless-lang,cache-control"
        answer = http.options(
            "/v1/audio/speech",
            headers={
                "Origin": "https://good.example",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": asked,
            },
        )
        assert answer.headers["access-control-allow-headers"] == asked
        assert "Origin" in http.get("/v1/models").headers["vary"]
