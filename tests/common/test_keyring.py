"""The bus's keys: made private, listed, revoked, and read again when they change."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import msgspec
import pytest

from voicebus.common import keyring
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


@pytest.mark.parametrize("name", ["client.key", ALLOWED, "."])
def test_what_another_user_has_put_there_is_refused(
    ring: Keyring, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ring.folder / name
    if os.geteuid() == 0:
        os.chown(place, 12_345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        read_key(place) if name.endswith(".key") else ring.list()


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


def test_a_list_that_was_refused_for_its_mode_is_read_when_that_is_put_right(ring: Keyring) -> None:
    """Caught: `chmod` alone was not noticed, and whoever had been revoked by that list stayed in."""
    allowed = Allowed(ring.folder)
    gone = ring.revoke("client")
    place = ring.folder / ALLOWED
    place.chmod(0o644)
    assert allowed.find(gone.public) is not None
    assert "chmod 600" in allowed.problem
    place.chmod(0o600)
    assert allowed.find(gone.public) is None
    assert not allowed.problem


def test_a_list_that_could_not_be_read_for_a_moment_is_read_in_the_next(
    ring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Caught: while strangers held all file descriptors a revocation came to nothing, and later too."""
    allowed = Allowed(ring.folder)
    gone = ring.revoke("client")

    def exhausted(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", exhausted)
        assert allowed.find(gone.public) is not None
    assert allowed.find(gone.public) is None
    assert not allowed.problem


@pytest.mark.parametrize("field", ["name", "public"])
def test_a_list_with_a_key_twice_is_none(ring: Keyring, field: str) -> None:
    """Caught: of two keys of one name `revoke` took one away, and the other was still let in."""
    keys = msgspec.to_builtins(ring.list())
    keys[1][field] = keys[0][field]
    (ring.folder / ALLOWED).write_bytes(msgspec.json.encode(keys))
    with pytest.raises(ConfigError, match="twice"):
        ring.revoke("client")


def test_a_keyring_that_was_cut_off_in_the_making_says_what_to_do(ring: Keyring) -> None:
    """Caught: `init` said that there are keys, `list` that there are none."""
    (ring.folder / ALLOWED).unlink()
    with pytest.raises(BadRequest, match="remove the folder and begin anew"):
        ring.init()


def test_a_key_that_cannot_be_listed_leaves_no_file(ring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caught: with a full disk a name was neither free nor revocable any more."""
    before = {path.name: path.read_bytes() for path in ring.folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(keyring, "MAX_FILE_BYTES", len(before[ALLOWED]))
        with pytest.raises(BadRequest, match="revoke some"):
            ring.new("one-too-many", Role.CLIENT)
    assert {path.name: path.read_bytes() for path in ring.folder.iterdir()} == before


@pytest.mark.parametrize(
    ("field", "value"),
    [("role", "../evil"), ("role", "\x1b[2J"), ("public", "a" * 40 + "\n"), ("secret", "#" * 40)],
)
def test_a_key_file_with_nonsense_is_refused(ring: Keyring, field: str, value: str) -> None:
    """Caught: a role that is a path led `copy` out of its folder; a newline behind a key, and letters that
    stand for more than 32 bytes, ended in a traceback."""
    place = ring.file("client")
    words = msgspec.json.decode(place.read_bytes())
    place.write_bytes(msgspec.json.encode(words | {field: value}))
    with pytest.raises(ConfigError, match="is no key"):
        read_key(place)


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
