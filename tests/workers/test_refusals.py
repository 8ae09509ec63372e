"""A worker whose key is not taken: it ends where nobody takes it, and goes on where others do."""

from __future__ import annotations

from tests.workers.model import World, ready_world
from voicebus.common import wire
from voicebus.common.errors import Unauthorized
from voicebus.workers.core import REFUSALS
from voicebus.workers.states import LinkState


def test_a_worker_that_no_broker_lets_in_ends_with_the_reason() -> None:
    """Caught: it tried again for ever, and its log said that the broker does not answer."""
    world = World()
    world.loaded()
    world.do(world.core.refused, 0, Unauthorized("not here"), world.now)
    assert isinstance(world.core.error, Unauthorized)
    assert world.core.leaving


def test_a_worker_that_one_broker_refuses_gives_its_jobs_up_there_and_serves_the_other() -> None:
    world = ready_world(brokers=2, slots=2)
    world.give(1, link=0)
    world.give(2, link=1)
    world.do(world.core.refused, 0, Unauthorized("not here any more"), world.now)
    world.core.check_invariants()
    assert world.core.error is None
    assert world.core.links[0].state is LinkState.LOST
    assert world.core.links[1].slots == 2
    assert [job for job in world.core.desk.jobs if job[:16] == (2).to_bytes(16)]


def test_a_broker_that_lets_a_worker_in_again_has_it_again() -> None:
    world = ready_world(brokers=2, slots=2)
    world.do(world.core.refused, 0, Unauthorized("not here"), world.now)
    world.tick(1)
    world.welcome(0)
    assert world.core.links[0].state is LinkState.REGISTERED
    world.do(world.core.refused, 1, Unauthorized("nor here"), world.now)
    assert world.core.error is None, "the first one takes it"


def test_a_worker_that_was_let_in_once_goes_on_trying() -> None:
    """Caught: whoever listened at the broker's port while it was away ended all its workers for good."""
    world = ready_world()
    world.do(world.core.refused, 0, Unauthorized("not any more"), world.now)
    for _ in range(20):
        world.tick(1)
        if world.core.links[0].state is LinkState.CONNECTING:
            world.do(world.core.refused, 0, Unauthorized("not any more"), world.now)
    assert world.core.error is None
    assert len([line for line in world.log if line == "not any more"]) == 1
    while world.core.links[0].state is not LinkState.CONNECTING:
        world.tick(1)
    world.welcome()
    assert world.core.is_ready


def test_handshakes_that_break_off_are_told_once() -> None:
    world = World()
    world.loaded()
    for _ in range(10):
        world.do(world.core.cut_short, 0)
    said = [line for line in world.log if "ends each connection in its beginning" in line]
    assert len(said) == 1


def test_one_broker_of_several_cannot_end_a_worker_by_saying_goodbye() -> None:
    """Caught by the fuzzer: two GOODBYEs in answer to READY ended it for all brokers."""
    world = ready_world(brokers=2, slots=2)
    world.broker(wire.GOODBYE, link=0)
    for _ in range(3 * REFUSALS):
        world.tick(1)
        if world.core.links[0].state is LinkState.CONNECTING:
            world.broker(wire.GOODBYE, link=0)
        world.broker(wire.HEARTBEAT, link=1)
    assert world.core.links[0].refusal is not None
    assert world.core.error is None
    assert world.core.links[1].state is LinkState.REGISTERED
