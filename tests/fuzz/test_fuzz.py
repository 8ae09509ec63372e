"""The fuzzers in CI: each target over its corpus and a bounded number of seeded changes, without atheris.

And that they would see something: a bug of each kind that is quick to find is planted, and found.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from random import Random

import pytest

from tests.fuzz import mutate
from tests.fuzz.__main__ import shared_out
from tests.fuzz.broker_stage import BrokerStage
from tests.fuzz.capture import FROM_CLIENT, FROM_WORKER, TO_CLIENT, TO_WORKER, conversations
from tests.fuzz.client_stage import ClientStage
from tests.fuzz.hunting import HangError, hunt, shrunk, try_once
from tests.fuzz.live import live
from tests.fuzz.plants import PLANTS, planted
from tests.fuzz.samples import JOBS, message_of
from tests.fuzz.steps import unpacked
from tests.fuzz.target import CORPUS, Target, require
from tests.fuzz.targets import TARGETS
from tests.fuzz.worker_stage import WorkerStage
from tests.sim.mutations import MissingTargetError, patched
from voicebus.common import wire
from voicebus.common.wire import unpack_envelope

SEED = 1
SECONDS = 0.5
QUICK_PLANTS = (
    "crash-frame", "crash-journal", "wrong-parts", "state-corruption", "leak-between-clients",
    "stranger-stops-jobs",
)  # fmt: skip
MOST_CORPUS_BYTES = 300_000


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Refusals are logged, rightly, thousands of times."""
    before = signal.getsignal(signal.SIGVTALRM)
    logging.disable()
    yield
    logging.disable(logging.NOTSET)
    signal.signal(signal.SIGVTALRM, before)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # aiohttp's and numpy's, of inputs that deserve them
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_promise(name: str) -> None:
    target = TARGETS[name]
    count, finding = hunt(target, SEED, seconds=SECONDS)
    assert finding is None, f"{finding.kind}: {finding.said}\n{finding.data!r}"
    assert count >= len(target.inputs())


@pytest.mark.parametrize("name", QUICK_PLANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    plant = PLANTS[name]
    with planted(name):
        _, finding = hunt(TARGETS[plant.target], SEED, seconds=30)
    assert finding is not None, f"{plant.target} does not see {name}"
    assert finding.kind == plant.kind
    again = try_once(TARGETS[plant.target], finding.data)
    assert again is None, "without the bug the same input is well"


def test_a_plant_whose_place_is_gone_says_so() -> None:
    for name, plant in PLANTS.items():
        assert vars(plant.owner).get(plant.name) is not None, f"{name} patches what is not there"
    with pytest.raises(MissingTargetError), patched(wire, "no_such_name", lambda it: it):
        pass


def test_hostile_peers_harm_no_real_process_and_no_honest_client() -> None:
    report = live(3.0, SEED)
    assert not report.wrong
    assert report.sent > 500
    assert report.honest > 3
    assert report.answered_by_client > 0


def test_the_same_seed_makes_the_same_inputs() -> None:
    for target in TARGETS.values():
        data = next(iter(target.seeds()))
        first, second = (target.mutate(data, Random(7)) for _ in range(2))
        assert first == second, target.name


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_time_that_is_given_is_the_time_that_is_taken(count: int) -> None:
    """One target had the time of as many as there are processors: 40 s where 20 were asked for."""
    names = [str(number) for number in range(count)]
    rows, share_s = shared_out(names, 20.0, 2)
    assert sorted(name for row in rows for name in row) == names
    assert max(map(len, rows)) * share_s == 20.0


def test_a_loop_that_does_not_end_is_a_hang_and_not_a_wait() -> None:
    def spin(data: bytes) -> None:
        while data:
            pass

    hunted = Target("spin", "", spin, lambda: [b"x"], most_cpu_s=0.2)
    _, finding = hunt(hunted, SEED, executions=1)
    assert finding is not None
    assert finding.kind == "hang"
    assert HangError.__name__ in finding.said


def test_a_finding_is_made_smaller_and_stays_the_same_finding() -> None:
    def picky(data: bytes) -> None:
        require(b"!?" not in data, "no such signs")

    target = Target("picky", "", picky, list)
    finding = try_once(target, b"words before" * 9 + b"!?" + b"words behind" * 9)
    assert finding is not None
    assert shrunk(target, finding).data == b"!?"


def test_captured_conversations_say_what_each_side_says() -> None:
    heard = [message for said in conversations().values() for message in said]
    assert {way for _, way, _, _ in heard} == {FROM_CLIENT, FROM_WORKER, TO_CLIENT, TO_WORKER}
    for _, _, _, frames in heard:
        kind = unpack_envelope(frames[0])[0]
        assert kind in wire.SHAPES
    assert sum(file.stat().st_size for file in CORPUS.rglob("*") if file.is_file()) <= MOST_CORPUS_BYTES


def test_good_conversations_get_honest_and_strange_peers_alike_to_their_end() -> None:
    """What the stages ask of good behaviour can be met: what nothing gets past finds nothing."""
    broker = BrokerStage()
    for step in unpacked(next(iter(TARGETS["broker-core"].seeds())), 2):
        broker.play(step)
    assert broker.core.ledger.totals["done"] >= 2, "the stranger's job and the honest one's"
    worker = WorkerStage()
    worker.give()
    worker.wait(1)
    assert worker.answered == 1
    client = ClientStage()
    for _ in range(4):
        client.ask()
    client.finish()
    assert client.well >= 2


def test_a_changed_message_is_still_frames() -> None:
    dice = Random(SEED)
    for _ in range(500):
        frames = mutate.message(message_of(dice.choice(mutate.KINDS)), dice, JOBS)
        assert all(isinstance(frame, bytes) for frame in frames)
