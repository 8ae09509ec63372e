"""HTTPS: what certificates are taken, how they are renewed, and what a handshake may cost."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.edge.server import EdgeProcess
from voicebus.client.launch import Bus
from voicebus.common.config import Edge
from voicebus.common.errors import ConfigError
from voicebus.edge.headers import common_headers
from voicebus.edge.tls import Certificate, certificate_of


class Pair:
    """A certificate and its key in two files, which can be issued anew."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.certificate, self.key = folder / "edge.pem", folder / "edge.key"
        self.issue()

    def issue(self) -> None:
        """Both files, the way certbot and others renew them: one after the other, each by a rename."""
        made = self.authority.issue_cert("127.0.0.1", "localhost")
        chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
        for path, data in ((self.certificate, chain), (self.key, made.private_key_pem.bytes())):
            written = path.with_suffix(".new")
            written.write_bytes(data)
            written.chmod(0o600)
            written.replace(path)

    @property
    def section(self) -> dict[str, str]:
        return {"certificate": str(self.certificate), "certificate_key": str(self.key)}

    def trusting(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def edge(bus: Bus, pair: Pair) -> Iterator[EdgeProcess]:
    own = {**pair.section, "max_connections_per_ip": 20, "header_timeout_s": 60.0, "hsts_max_age_s": 3600}
    with EdgeProcess(bus, edge=own) as edge:
        yield edge


def serial(edge: EdgeProcess, pair: Pair, *, name: str | None = None) -> int:
    """The number of the certificate that a new connection is shown."""
    host, port = edge.url.removeprefix("https://").split(":")
    context = pair.trusting()
    context.check_hostname = name is not None
    with (
        socket.create_connection((host, int(port)), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        known = secure.getpeercert()
        assert known is not None
        return int(str(known["serialNumber"]), 16)


def test_it_speaks_https_and_tells_browsers_to_stay(edge: EdgeProcess, pair: Pair) -> None:
    assert edge.url.startswith("https://127.0.0.1:")
    with httpx.Client(base_url=edge.url, verify=pair.trusting()) as http:
        answer = http.post("/v1/audio/speech", json={"input": "In private."})
        assert (answer.status_code, answer.headers["strict-transport-security"]) == (200, "max-age=3600")
        assert http.get("/").headers["strict-transport-security"] == "max-age=3600"
        assert http.get("/nothing").headers["strict-transport-security"] == "max-age=3600"
        speakers = http.get("/speakers").json()
        assert all(speaker["preview_url"].startswith("https://") for speaker in speakers)


def test_hsts_is_promised_by_whoever_ends_tls() -> None:
    """Behind a proxy that does, the promise is the proxy's: this process does not know its certificate."""
    name = "Strict-Transport-Security"
    assert name not in common_headers(Edge())
    assert name not in common_headers(Edge(trusted_proxies=("10.0.0.0/8",)))
    assert common_headers(Edge(certificate="a"))[name] == "max-age=31536000"
    assert common_headers(Edge(certificate="a", hsts_max_age_s=0))[name] == "max-age=0"


@pytest.mark.parametrize(("version", "taken"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
def test_old_versions_are_refused(edge: EdgeProcess, pair: Pair, version: str, taken: bool) -> None:
    context = pair.trusting()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    host, port = edge.url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as plain:
        if taken:
            context.wrap_socket(plain, server_hostname="127.0.0.1").close()
        else:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(plain, server_hostname="127.0.0.1")
    assert Certificate(str(pair.certificate), str(pair.key)).context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("name", [None, "localhost"], ids=["by address", "by name"])
def test_a_renewed_certificate_is_taken_up_and_a_half_renewed_one_is_not(
    edge: EdgeProcess, pair: Pair, name: str | None
) -> None:
    with httpx.Client(base_url=edge.url, verify=pair.trusting()) as open_one:
        assert open_one.get("/livez").status_code == 200
        before = serial(edge, pair, name=name)
        assert serial(edge, pair, name=name) == before
        pair.issue()
        after = serial(edge, pair, name=name)
        assert after != before
        key = pair.key.read_bytes()
        pair.key.write_bytes(b"half a file")
        assert serial(edge, pair, name=name) == after, "what was good serves on"
        pair.key.unlink()
        assert serial(edge, pair, name=name) == after
        pair.key.write_bytes(key)
        assert serial(edge, pair, name=name) == after
        assert open_one.get("/livez").status_code == 200, "connections that are open stay"


def test_connections_that_shake_no_hand_are_counted(edge: EdgeProcess, pair: Pair) -> None:
    """They were nobody's: a client could hold as many as the system has descriptors."""
    host, port = edge.url.removeprefix("https://").split(":")
    silent = [socket.create_connection((host, int(port)), timeout=30) for _ in range(30)]
    try:
        with suppress(ConnectionResetError):
            assert silent[-1].recv(1) == b"", "the last ones are closed at once"
        for one in silent:
            one.close()
        while True:  # the places come back
            try:
                serial(edge, pair)
                break
            except OSError:
                continue
    finally:
        for one in silent:
            one.close()


def test_who_speaks_no_tls_harms_nobody(edge: EdgeProcess, pair: Pair) -> None:
    host, port = edge.url.removeprefix("https://").split(":")
    for data in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", os.urandom(3000), b"\x16\x03\x01\xff\xff", b""):
        with socket.create_connection((host, int(port)), timeout=30) as plain:
            plain.sendall(data)
            plain.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                while plain.recv(4096):
                    pass
    assert serial(edge, pair) > 0
    assert edge.child is not None
    assert not any("Traceback" in line for line in edge.child.lines)


def test_a_handshake_that_takes_too_long_is_given_up(bus: Bus, pair: Pair) -> None:
    with EdgeProcess(bus, edge={**pair.section, "header_timeout_s": 0.2}) as edge:
        host, port = edge.url.removeprefix("https://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as slow:
            slow.sendall(b"\x16\x03\x01")
            with suppress(ConnectionResetError):
                assert slow.recv(1) == b""


def encrypted(pair: Pair, folder: Path) -> Path:
    key = load_pem_private_key(pair.key.read_bytes(), None)
    path = folder / "locked.key"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a passphrase"))
    )
    return path


def test_pairs_that_cannot_serve_are_told_in_a_sentence(pair: Pair, tmp_path: Path) -> None:
    other = Pair(tmp_path)
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    good, key = str(pair.certificate), str(pair.key)
    wrong: list[tuple[str | None, str | None, str]] = [
        (good, str(other.key), "is not the key of"),
        (good, str(encrypted(pair, tmp_path)), "is encrypted"),
        (str(tmp_path / "none.pem"), key, "edge.certificate .*none.pem: cannot be read: No such file"),
        (good, str(tmp_path / "none.key"), "edge.certificate_key .*none.key: cannot be read: No such file"),
        (str(tmp_path), key, "cannot be read: Is a directory"),
        (good, None, "cannot be used: give both in PEM"),
        (str(nonsense), key, "cannot be used: give both in PEM"),
        (key, good, "cannot be used: give both in PEM"),
        (None, key, "edge.certificate is not"),
    ]
    for certificate, of_key, said in wrong:
        with pytest.raises(ConfigError, match=said):
            certificate_of(certificate, of_key)
    assert certificate_of(None, None) is None
    both = tmp_path / "both.pem"
    both.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
    assert certificate_of(str(both), None) is not None


def test_an_encrypted_key_asks_nobody_and_ends_with_two(pair: Pair, tmp_path: Path) -> None:
    """OpenSSL asked the terminal for a passphrase, for which a service waits for ever."""
    command = [sys.executable, "-m", "voicebus.edge.cli", "--port", "0"]
    names = {"CERTIFICATE": str(pair.certificate), "CERTIFICATE_KEY": str(encrypted(pair, tmp_path))}
    environ = {**os.environ, **{f"VOICEBUS_EDGE__{name}": value for name, value in names.items()}}
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("vc-edge: config_error: the key in ")


def test_a_key_that_everybody_can_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair = Pair(tmp_path)
    Certificate(str(pair.certificate), str(pair.key))
    assert not caplog.records
    pair.key.chmod(0o644)
    Certificate(str(pair.certificate), str(pair.key))
    assert "chmod 600" in caplog.text
