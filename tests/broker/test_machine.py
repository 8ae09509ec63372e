"""The broker core under every order of events Hypothesis can think of, its invariants checked after each.

The model is small: what was accepted must end in exactly one answer, however peers come, go, lie and repeat
themselves.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.broker.model import Bus
from voicebus.common import wire

STRATEGIES = st.sampled_from(["lru", "round_robin", "least_load", "random"])
PEERS = st.sampled_from([b"p1", b"p2", b"p3", b"p4"])
WORKERS = st.sampled_from(["w1", "w2", "w3"])
CLIENTS = st.sampled_from([b"c", b"d", b"e"])
VOICES = st.sampled_from([(), ("amber",), ("amber", "basil")])
CODES = st.sampled_from(
    ["worker_lost", "engine_error", "unknown_voice", "cancelled", "overloaded", "made_up"]
)


class Machine(RuleBasedStateMachine):
    @initialize(
        strategy=st.sampled_from(["lru", "round_robin", "least_load", "random"]), attempts=st.integers(1, 3)
    )
    def start(self, strategy: str, attempts: int) -> None:
        self.bus = Bus(
            strategy,
            max_attempts=attempts,
            max_jobs=30,
            max_jobs_per_client=20,
            client_timeout_s=5.0,
            progress_lease_s=6.0,
            no_worker_grace_s=4.0,
            retry_floor=1,
            ageing_s=2.0,
            affinity_wait_s=1.0,
        )
        self.jobs: list[bytes] = []
        self.refused: Counter[tuple[bytes, bytes]] = Counter()
        self.keys: list[bytes] = [bytes(16) + b"\x00\x01"]

    def key(self, peer: bytes, pick: int) -> bytes:
        """Mostly an attempt the peer holds; sometimes one that it does not."""
        held = self.bus.open(peer)
        self.keys += held
        pool = held if held and pick % 4 else self.keys
        return pool[pick % len(pool)]

    @rule(
        client=CLIENTS,
        stream=st.booleans(),
        ms=st.sampled_from([0, 1, 800, 5000]),
        lane=st.sampled_from(["batch", "interactive"]),
        voice=st.sampled_from(["", "amber", "basil"]),
        tenant=st.sampled_from(["", "a", "b"]),
        characters=st.sampled_from([0, 300, 9000]),
    )
    def submit(
        self, client: bytes, stream: bool, ms: int, lane: str, voice: str, tenant: str, characters: int
    ) -> None:
        before = self.bus.core.ledger.totals["refused"]
        job = self.bus.submit(
            client, flags=wire.STREAM if stream else 0, ms=ms, lane=lane, voice=voice, tenant=tenant,
            characters=characters,
        )  # fmt: skip
        self.jobs.append(job)
        self.refused[client, job] += self.bus.core.ledger.totals["refused"] - before

    @rule(client=CLIENTS, pick=st.integers(0, 50), text=st.sampled_from([b"hi", b"other"]))
    def submit_again(self, client: bytes, pick: int, text: bytes) -> None:
        job = self.jobs[pick % len(self.jobs)] if self.jobs else wire.NO_JOB
        if job in self.bus.core.ledger.jobs or job == wire.NO_JOB:
            before = self.bus.core.ledger.totals["refused"]
            self.bus.submit(client, job, text=text, lane="batch")
            self.refused[client, job] += self.bus.core.ledger.totals["refused"] - before

    @rule(client=CLIENTS, pick=st.integers(0, 50))
    def cancel(self, client: bytes, pick: int) -> None:
        if self.jobs:
            self.bus.cancel(self.jobs[pick % len(self.jobs)], client)

    @rule(client=CLIENTS)
    def lose_client(self, client: bytes) -> None:
        self.bus.core.client_gone(client)
        self.bus.settle()

    @rule(
        peer=PEERS,
        worker=WORKERS,
        incarnation=st.integers(1, 3),
        slots=st.integers(1, 3),
        engine=st.sampled_from(["tone", "other"]),
        warm=VOICES,
    )
    def ready(
        self, peer: bytes, worker: str, incarnation: int, slots: int, engine: str, warm: tuple[str, ...]
    ) -> None:
        self.bus.ready(
            peer, worker, incarnation=incarnation, slots=slots, engine=engine, warm=warm, learns=True
        )

    @rule(peer=PEERS, warm=VOICES)
    def beat(self, peer: bytes, warm: tuple[str, ...]) -> None:
        self.bus.beat(peer, warm=warm)

    @rule(peer=PEERS, pick=st.integers(0, 50))
    def started(self, peer: bytes, pick: int) -> None:
        self.bus.started(peer, self.key(peer, pick))

    @rule(
        peer=PEERS,
        pick=st.integers(0, 50),
        segment=st.integers(0, 3),
        end=st.booleans(),
        audio=st.sampled_from([b"", b"\0\0"]),
    )
    def chunk(self, peer: bytes, pick: int, segment: int, end: bool, audio: bytes) -> None:
        self.bus.chunk(peer, self.key(peer, pick), segment=segment, end=end, audio=audio)

    @rule(peer=PEERS, pick=st.integers(0, 50))
    def done(self, peer: bytes, pick: int) -> None:
        self.bus.done(peer, self.key(peer, pick))

    @rule(peer=PEERS, pick=st.integers(0, 50), segment=st.integers(0, 2))
    def spoken(self, peer: bytes, pick: int, segment: int) -> None:
        self.bus.spoken(peer, self.key(peer, pick), segment=segment)

    @rule(peer=PEERS, pick=st.integers(0, 50), code=CODES)
    def failed(self, peer: bytes, pick: int, code: str) -> None:
        self.bus.failed(peer, self.key(peer, pick), code)

    @rule(peer=PEERS, pick=st.integers(0, 50))
    def returned(self, peer: bytes, pick: int) -> None:
        self.bus.returned(peer, self.key(peer, pick))

    @rule(peer=PEERS)
    def drains(self, peer: bytes) -> None:
        self.bus.core.worker_drains(peer, self.bus.now)
        self.bus.settle()

    @rule(peer=PEERS)
    def leaves(self, peer: bytes) -> None:
        self.bus.core.worker_leaves(peer, "left", self.bus.now)
        self.bus.settle()

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 3.5, 12.0]), alive=st.sets(PEERS))
    def wait(self, seconds: float, alive: set[bytes]) -> None:
        self.bus.pass_time(seconds, *alive, clients=(b"c", b"d"))

    @invariant()
    def one_answer_each(self) -> None:
        if not hasattr(self, "bus"):
            return
        for (client, job), answers in self.bus.sent.terminal.items():
            # A submission refused while another of its id is open is answered beside it. A connection that
            # handed its job on to another hears of the end too, so it is each connection that counts.
            assert answers <= 1 + self.refused[client, job], "answered once"

    def teardown(self) -> None:
        """However it went: when everything stops, every accepted job has had its one answer."""
        if not hasattr(self, "bus"):
            return
        self.bus.core.abort()
        self.bus.settle()
        assert not self.bus.core.ledger.jobs
        totals = self.bus.core.ledger.totals
        assert totals["accepted"] == totals["done"] + totals["failed"] + totals["cancelled"]


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=300, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
