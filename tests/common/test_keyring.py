"""The bus's keys: made private, listed, revoked, and read again when they change."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from voicebus.common.errors import BadRequest, ConfigError
from voicebus.common.keyring import ALLOWED, Allowed, Keyring, Role, key_for, read_key


@pytest.fixture
def ring(tmp_path: Path) -> Keyring:
    made = Keyring(tmp_path / "keys")
    made.init()
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_keyring_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ring = Keyring(tmp_path / "keys")
        listed = ring.init()
    finally:
        os.umask(before)
    assert mode(ring.folder) == 0o700
    assert {mode(path) for path in ring.folder.iterdir()} == {0o600}
    assert [key.role for key in listed] == list(Role)
    assert [read_key(ring.file(key.name)).public for key in listed] == [key.public for key in ring.list()]
    assert {read_key(ring.file(role)).server for role in Role} == {ring.server().public}


def test_no_secret_is_shown(ring: Keyring) -> None:
    key = read_key(ring.file("client"))
    assert key.secret not in repr(key)
    assert key.secret.encode() not in (ring.folder / ALLOWED).read_bytes()


@pytest.mark.parametrize("bits", [0o705, 0o750, 0o710, 0o777])
def test_a_folder_that_others_may_enter_is_refused_with_the_remedy(ring: Keyring, bits: int) -> None:
    ring.folder.chmod(bits)
    for use in (ring.list, ring.server, lambda: ring.new("more", Role.CLIENT), lambda: ring.revoke("client")):
        with pytest.raises(ConfigError, match="chmod 700"):
            use()


@pytest.mark.parametrize("name", ["client.key", ALLOWED])
def test_a_file_that_others_may_read_is_refused_with_the_remedy(ring: Keyring, name: str) -> None:
    place = ring.folder / name
    place.chmod(0o644)
    with pytest.raises(ConfigError, match=f"chmod 600 {place}"):
        read_key(place) if name.endswith(".key") else Allowed(ring.folder)


def test_keys_are_not_made_over_others(ring: Keyring) -> None:
    before = {path.name: path.read_bytes() for path in ring.folder.iterdir()}
    with pytest.raises(BadRequest, match="has keys already"):
        ring.init()
    with pytest.raises(BadRequest, match="already"):
        ring.new("client", Role.ADMIN)
    assert {path.name: path.read_bytes() for path in ring.folder.iterdir()} == before


@pytest.mark.parametrize("name", ["", "../evil", "server", "UPPER", "a/b", "a\n", "ä", ".hidden", "x" * 65])
def test_names_that_are_none_are_refused(ring: Keyring, name: str) -> None:
    with pytest.raises(BadRequest):
        ring.new(name, Role.CLIENT)
    assert len(ring.list()) == len(Role)


def test_a_revoked_key_is_neither_listed_nor_kept(ring: Keyring) -> None:
    made, place = ring.new("studio", Role.CLIENT, tenant="radio")
    allowed = Allowed(ring.folder)
    assert allowed.find(made.public) == made
    assert made.tenant == "radio"
    assert ring.revoke("studio") == made
    assert allowed.find(made.public) is None
    assert not place.exists()
    with pytest.raises(BadRequest, match="no key is named"):
        ring.revoke("studio")


def test_a_list_that_breaks_while_it_is_used_lets_nobody_in_and_throws_nobody_out(ring: Keyring) -> None:
    allowed = Allowed(ring.folder)
    known = dict(allowed.now())
    place = ring.folder / ALLOWED
    for broken in (b"[", b'[{"name": "x", "role": "root"}]', b"\xff\xfe"):
        place.write_bytes(broken)
        assert allowed.now() == known
        assert str(place) in allowed.problem
    place.unlink()
    assert allowed.now() == known
    with pytest.raises(ConfigError):
        Allowed(ring.folder)


def test_of_many_who_add_keys_at_once_none_is_lost(ring: Keyring) -> None:
    names = [f"peer-{number}" for number in range(8)]
    threads = [threading.Thread(target=ring.new, args=(name, Role.WORKER)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in ring.list()} == {*Role, *names}


def test_each_process_finds_the_key_of_its_role(ring: Keyring, tmp_path: Path) -> None:
    folder = str(ring.folder)
    client = key_for(folder, None, Role.CLIENT, Role.ADMIN)
    assert client is not None
    assert client.role == "client"
    assert key_for(None, None, Role.CLIENT) is None
    given = key_for(folder, str(ring.file("admin")), Role.CLIENT, Role.ADMIN)
    assert given is not None
    assert given.role == "admin"
    with pytest.raises(ConfigError, match="a key for the role client, and worker is needed"):
        key_for(folder, str(ring.file("client")), Role.WORKER)
    with pytest.raises(ConfigError, match=r"client\.key cannot be read"):
        key_for(str(tmp_path), None, Role.CLIENT, Role.ADMIN)


def test_a_copied_key_is_the_one_that_its_role_uses_there(ring: Keyring, tmp_path: Path) -> None:
    ring.new("gpu-2", Role.WORKER)
    place = ring.copy("gpu-2", tmp_path / "far")
    assert place == tmp_path / "far" / "worker.key"
    assert (mode(place), mode(place.parent)) == (0o600, 0o700)
    assert key_for(str(place.parent), None, Role.WORKER) == read_key(ring.file("gpu-2"))
    with pytest.raises(BadRequest, match="server's key stays"):
        ring.copy("server", tmp_path / "far")
