"""Nobody in who does not belong: keys at both doors of a live broker, and what each role may say there.

An unlisted key, a revoked one, none at all and one that is for another broker: each is kept out, and told so
in words, by the library, by the worker and by the command line. Who is in may say what their role says.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import zmq

from voicebus.broker.roles import COMMANDS, SAID
from voicebus.client import Client
from voicebus.common import wire
from voicebus.common.atomic import write_bytes
from voicebus.common.errors import BrokerUnreachable, Forbidden, Unauthorized
from voicebus.common.keyring import ALLOWED, KeyFile, Keyring, Role, read_key

from .conftest import House
from .peers import Peer, pack

ROOT = Path(__file__).resolve().parents[2]
DOORS = ("frontend", "backend")
LET_IN = {
    ("client", "frontend"): True,
    ("client", "backend"): False,
    ("worker", "frontend"): False,
    ("worker", "backend"): True,
    ("admin", "frontend"): True,
    ("admin", "backend"): False,
}
"""Written out, and not taken from the broker's own table: this one is what was promised."""
MAY_SAY = {
    "frontend": {"SUBMIT", "PING", "CANCEL", "FETCH", "ADMIN", "BUNDLE"},
    "backend": {
        "READY", "HEARTBEAT", "STARTED", "CHUNK", "DONE", "SPOKEN", "FAILED", "RETURN", "DRAIN", "DRAINED",
        "GOODBYE", "BUNDLE",
    },
}  # fmt: skip
MAY_COMMAND = {
    "status": {"client", "admin"},
    "jobs": {"client", "admin"},
    "job": {"client", "admin"},
    "cancel": {"client", "admin"},
    "drain": {"admin"},
}
JOB = bytes(range(16))


def stranger(house: House, role: str) -> KeyFile:
    """A key that was drawn elsewhere, for the right broker."""
    public, secret = (half.decode() for half in zmq.curve_keypair())
    return KeyFile("stranger", role, public, secret, house.ring.server().public)


def for_another_broker(house: House, role: str) -> KeyFile:
    """A listed key, of somebody who was told of another broker, or talks to a false one."""
    public, _ = (half.decode() for half in zmq.curve_keypair())
    return msgspec.structs.replace(house.key(role), server=public)


# ---- who is let in


@pytest.mark.parametrize("door", DOORS)
def test_a_key_that_is_not_listed_stays_outside(house: House, door: str) -> None:
    peer = house.peer(door, stranger(house, "client" if door == "frontend" else "worker"))
    assert peer.event() == (zmq.EVENT_HANDSHAKE_FAILED_AUTH, 400)


@pytest.mark.parametrize("door", DOORS)
def test_a_peer_without_a_key_stays_outside(house: House, door: str) -> None:
    assert not house.peer(door, None).is_let_in


@pytest.mark.parametrize("door", DOORS)
def test_a_peer_trusts_no_broker_but_the_one_its_key_is_for(house: House, door: str) -> None:
    key = for_another_broker(house, "client" if door == "frontend" else "worker")
    assert not house.peer(door, key).is_let_in


@pytest.mark.parametrize(("role", "door"), LET_IN)
def test_each_role_has_its_door(house: House, role: str, door: str) -> None:
    assert house.peer(door, house.key(role)).is_let_in == LET_IN[role, door]


@pytest.mark.parametrize("door", DOORS)
def test_a_key_that_is_revoked_is_cut_off_and_not_let_in_again(house: House, door: str) -> None:
    role = Role.CLIENT if door == "frontend" else Role.WORKER
    key = house.new_key(f"leaving-{door}", role)
    peer = house.peer(door, key)
    assert peer.is_let_in
    if role is Role.CLIENT:
        peer.send(wire.PING)
        peer.recv(wire.PONG)
    else:
        peer.send(wire.READY, ready("leaving"))
        peer.recv(wire.WELCOME)
    house.ring.revoke(f"leaving-{door}")
    peer.wait_cut_off()
    assert peer.event() == (zmq.EVENT_HANDSHAKE_FAILED_AUTH, 400)
    with Client(house.bus.frontend, key=house.key("client")) as client:
        assert "leaving" not in {worker["id"] for worker in client.status()["workers"]}


def test_a_key_that_is_revoked_between_handshake_and_first_word_is_of_no_use(house: House) -> None:
    peer = house.peer("frontend", house.new_key("early", Role.CLIENT))
    assert peer.is_let_in
    house.ring.revoke("early")
    peer.send(wire.PING)
    assert msgspec.msgpack.decode(peer.recv(wire.FAILED)[1])[0] == "unauthorized"
    peer.wait_cut_off()


def test_a_key_that_is_bound_to_a_tenant_while_it_is_used_is_looked_at_again(house: House) -> None:
    peer = house.peer("frontend", house.new_key("loose", Role.CLIENT))
    peer.send(wire.PING)
    peer.recv(wire.PONG)
    listed = [
        msgspec.structs.replace(key, tenant="radio") if key.name == "loose" else key
        for key in house.ring.list()
    ]
    write_bytes(house.ring.folder / ALLOWED, msgspec.json.encode(listed), mode=0o600)
    peer.wait_cut_off()
    with (
        Client(house.bus.frontend, key=house.key("loose"), tenant="theatre") as client,
        pytest.raises(Forbidden),
    ):
        client.say("Off.", engine="tone")


def test_the_jobs_of_a_worker_whose_key_is_revoked_go_to_others(house: House) -> None:
    liar = house.peer("backend", house.new_key("hoarder", Role.WORKER))
    liar.send(wire.READY, ready("hoarder", engine="slow"))
    liar.recv(wire.WELCOME)
    with Client(house.bus.frontend, key=house.key("client")) as client:
        job = client.submit("Words that another has to speak.", engine="slow")
        liar.recv(wire.JOB)
        heir = house.peer("backend", house.key("worker"))
        heir.send(wire.READY, ready("heir", engine="slow"))
        heir.recv(wire.WELCOME)
        house.ring.revoke("hoarder")
        envelope = heir.recv(wire.JOB)[0]
        heir.send(wire.SPOKEN, pack(["heir", "slow", 24_000, 1, 2]), b"abcd", job=envelope[4:20], attempt=2)
        assert job.result(10).samples.tobytes() == b"abcd"
        heir.send(wire.GOODBYE)


def test_nobody_takes_the_name_of_a_worker_whose_key_they_do_not_hold(house: House) -> None:
    """Caught: with any worker's key one could register under another's id, which then ended as replaced."""
    thief = house.peer("backend", house.new_key("thief", Role.WORKER))
    honest = house.peer("backend", house.key("worker"))
    honest.send(wire.READY, ready("mine"))
    honest.recv(wire.WELCOME)
    thief.send(wire.READY, pack(["mine", 2**62, "table", ["en"], 1, 1000, 24_000]))
    assert msgspec.msgpack.decode(thief.recv(wire.FAILED)[1])[0] == "forbidden"
    honest.send(wire.READY, pack(["mine", 2, "table", ["en"], 1, 1000, 24_000]))
    honest.recv(wire.WELCOME)


# ---- and is told so


@pytest.mark.parametrize(
    ("which", "error", "words"),
    [
        ("stranger", Unauthorized, "refuses the key stranger"),
        ("worker", Unauthorized, "is for another role"),
        ("none", Unauthorized, "asks for a key"),
        ("another", BrokerUnreachable, "not the one that this key is for"),
    ],
)
def test_the_library_says_why_it_is_kept_out(
    house: House, which: str, error: type[Exception], words: str
) -> None:
    """Caught: all four waited for the connect timeout, and said that no broker answers."""
    key = {
        "stranger": stranger(house, "client"),
        "worker": house.key("worker"),
        "none": None,
        "another": for_another_broker(house, "client"),
    }[which]
    with (
        Client(house.bus.frontend, key=key, connect_timeout_s=2) as client,
        pytest.raises(error, match=words),
    ):
        client.say("hello", engine="tone")


def test_the_library_says_that_a_broker_without_keys_cannot_prove_itself() -> None:
    from voicebus.client.launch import Bus

    public, secret = (half.decode() for half in zmq.curve_keypair())
    key = KeyFile("k", "client", public, secret, public)
    with (
        Bus({}) as open_bus,
        Client(open_bus.frontend, key=key) as client,
        pytest.raises(Unauthorized, match="has no keys"),
    ):
        client.status()


def command(house: House, *arguments: str) -> subprocess.CompletedProcess[str]:
    keys = {"VOICEBUS_SECURITY__KEYS": str(house.ring.folder)}
    return subprocess.run(
        [sys.executable, "-m", *arguments], env=os.environ | keys, capture_output=True, text=True, timeout=60
    )


def test_a_worker_that_is_kept_out_ends_and_says_why(house: House) -> None:
    _, place = house.ring.new("gone", Role.WORKER)
    kept = place.read_bytes()
    house.ring.revoke("gone")
    place.write_bytes(kept)
    place.chmod(0o600)
    ended = command(house, "voicebus.workers.cli", "tone", "--broker", house.bus.backend, "--key", str(place))
    assert ended.returncode == 1
    assert "vc-worker: unauthorized: the broker at" in ended.stderr
    assert "refuses the key gone (worker)" in ended.stderr


def test_a_worker_with_a_clients_key_does_not_even_start(house: House) -> None:
    ended = command(
        house,
        "voicebus.workers.cli",
        "tone",
        "--broker",
        house.bus.backend,
        "--key",
        str(house.ring.file("client")),
    )
    assert ended.returncode == 2
    assert "is a key for the role client, and worker is needed here" in ended.stderr


def test_the_command_line_drains_with_the_operators_key_alone(house: House) -> None:
    vc = ("voicebus.client.cli", "drain", "nobody", "--broker", house.bus.frontend)
    mine = command(house, *vc, "--key", str(house.ring.file("client")))
    assert (mine.returncode, "vc: forbidden: a key with the role client may not drain" in mine.stderr) == (
        1,
        True,
    )
    operators = command(house, *vc)
    assert "no worker `nobody`" in operators.stderr


# ---- what is said inside


def ready(worker: str, engine: str = "table") -> bytes:
    return pack([worker, 1, engine, ["en"], 1, 1000, 24_000])


FRAMES = {
    wire.SUBMIT: (pack(["tone", "amber", "en"]), b"hello"),
    wire.ACCEPTED: (pack(["tone"]),),
    wire.STARTED: (pack(["w", "tone", 24_000]),),
    wire.CHUNK: (b"\0\0",),
    wire.DONE: (pack([0, 0]),),
    wire.FAILED: (pack(["engine_error", "no"]),),
    wire.ADMIN: (pack(["status"]),),
    wire.BUNDLE: (pack([]),),
    wire.SPOKEN: (pack(["w", "tone", 24_000]), b"\0\0"),
    wire.READY: (ready("table"),),
    wire.WELCOME: (pack(["broker", 1000, 3]),),
    wire.HEARTBEAT: (pack([1]),),
    wire.JOB: (pack(["tone"]), b"hello"),
}
MARKS = {"frontend": (wire.PING, (), wire.PONG), "backend": (wire.READY, (ready("mark"),), wire.WELCOME)}
"""What is always answered at a door, and by what: all that went before has been dealt with by then."""


def refused(peer: Peer, door: str, kind: int) -> bool:
    """Say one thing, and return whether the broker had it for a breach of the protocol."""
    mark, frames, answer = MARKS[door]
    peer.send(kind, *FRAMES.get(kind, ()), job=JOB, attempt=1)
    peer.send(mark, *frames, job=bytes(16), sequence=7)
    if kind == mark:
        return peer.recv()[0][3] != answer
    codes: list[str] = []
    while (said := peer.recv())[0][3] != answer:
        if said[0][3] == wire.FAILED:
            codes.append(msgspec.msgpack.decode(said[1])[0])
    return "protocol_error" in codes


@pytest.mark.parametrize("kind", wire.KIND_NAMES, ids=wire.KIND_NAMES.get)
@pytest.mark.parametrize(("role", "door"), [place for place, is_in in LET_IN.items() if is_in])
def test_each_role_says_what_is_in_the_table_and_nothing_else(
    house: House, role: str, door: str, kind: int
) -> None:
    peer = house.peer(door, house.key(role))
    name = wire.KIND_NAMES[kind]
    assert refused(peer, door, kind) == (name not in MAY_SAY[door])


def test_the_brokers_own_tables_are_the_ones_that_were_promised() -> None:
    said = {door.removeprefix("voicebus."): {wire.KIND_NAMES[kind] for kind in SAID[door]} for door in SAID}
    assert said == {"clients": MAY_SAY["frontend"], "workers": MAY_SAY["backend"]}
    assert {name: {str(role) for role in roles} for name, roles in COMMANDS.items()} == MAY_COMMAND


@pytest.mark.parametrize("name", MAY_COMMAND)
@pytest.mark.parametrize("role", ["client", "admin"])
def test_each_role_gives_the_commands_that_are_in_the_table(house: House, role: str, name: str) -> None:
    peer = house.peer("frontend", house.key(role))
    peer.send(wire.ADMIN, pack([name, "" if name in ("status", "jobs") else JOB.hex()]))
    ok, _, code, _ = msgspec.msgpack.decode(peer.recv(wire.ADMIN)[1])
    assert (code == "forbidden") == (role not in MAY_COMMAND[name])
    assert ok == (name in ("status", "jobs")), code


def test_a_key_for_one_tenant_speaks_for_no_other_and_sees_no_others_jobs(house: House) -> None:
    bound = house.new_key("radio", Role.CLIENT, tenant="radio")
    theirs = house.peer("frontend", house.key("client"))
    busy = house.peer("backend", house.key("worker"))
    busy.send(wire.READY, ready("busy", engine="busy"))
    busy.recv(wire.WELCOME)
    job_id = b"theirs".ljust(16)
    theirs.send(wire.SUBMIT, pack(["busy", "", "", "batch", "theatre"]), b"secret", job=job_id)
    theirs.recv(wire.ACCEPTED)
    with Client(house.bus.frontend, key=bound, tenant="radio") as client:
        assert client.say("On air.", engine="tone").samples.size
        assert all(job["tenant"] == "radio" for job in client.jobs())
        with pytest.raises(Forbidden, match="speaks for the tenant 'radio'"):
            client.as_tenant("theatre").say("Off.", engine="tone")
    peer = house.peer("frontend", bound)
    for name in ("job", "cancel"):
        peer.send(wire.ADMIN, pack([name, job_id.hex()]))
        assert msgspec.msgpack.decode(peer.recv(wire.ADMIN)[1])[2] == "unknown_job"
    peer.send(wire.FETCH, job=job_id)
    assert msgspec.msgpack.decode(peer.recv(wire.FAILED)[1])[0] == "unknown_job"
    peer.send(wire.CANCEL, job=job_id)
    theirs.send(wire.ADMIN, pack(["job", job_id.hex()]))
    assert msgspec.msgpack.decode(theirs.recv(wire.ADMIN)[2])["state"] == "running", "it was not cancelled"


def test_what_has_ended_is_its_tenants_alone_too(house: House) -> None:
    bound = house.peer("frontend", house.new_key("press", Role.CLIENT, tenant="press"))
    theirs = house.peer("frontend", house.key("client"))
    job = bytes(reversed(JOB))
    theirs.send(wire.SUBMIT, pack(["tone", "", "", "batch", "theatre"]), b"secret", job=job)
    theirs.recv(wire.DONE)
    bound.send(wire.FETCH, job=job)
    assert msgspec.msgpack.decode(bound.recv()[1])[0] == "unknown_job"
    theirs.send(wire.FETCH, job=job)
    theirs.recv(wire.DONE)


def test_two_brokers_can_share_a_keyring(house: House) -> None:
    """And a worker that serves both is let in at both."""
    from voicebus.client.launch import Bus

    assert isinstance(house.ring, Keyring)
    with Bus({}, config={"security": {"keys": str(house.ring.folder)}}) as second:
        addresses = f"{house.bus.frontend},{second.frontend}"
        with Client(addresses, key=read_key(house.ring.file("client"))) as client:
            assert client.say("hello", engine="tone").samples.size


def test_a_client_written_from_the_page_alone_is_let_in(house: House, tmp_path: Path) -> None:
    wav = tmp_path / "raw.wav"
    script = [sys.executable, str(ROOT / "examples" / "raw_client.py"), "--broker", house.bus.frontend]
    words = ["--engine", "tone", "-o", str(wav), "--key", str(house.ring.file("client"))]
    subprocess.run([*script, *words], check=True, timeout=60)
    assert wav.stat().st_size > 44
