"""The rules of the worker's core, one by one."""

from __future__ import annotations

import pytest

from tests.workers.model import World, key, ready_world
from voicebus.common import wire
from voicebus.common.errors import (
    Cancelled,
    ConfigError,
    Conflict,
    EngineError,
    ModelMissing,
    Unauthorized,
)
from voicebus.common.messages import MAX_SLOTS, encode, failed
from voicebus.common.wire import pack_envelope
from voicebus.workers import control
from voicebus.workers.actions import Actions, KillChild, ToBroker
from voicebus.workers.states import IllegalMove, JobState, LinkState, SlotState


def test_a_worker_registers_once_its_engine_is_loaded() -> None:
    world = World()
    world.tick(10)
    assert not world.sockets[0]
    world.loaded()
    ready = world.last()
    assert ready.name == "READY"
    assert ready.header[:8] == ["w", 7, "tone", ["en", "de"], 1, 1000, 24_000, "1"]
    assert not world.core.is_ready
    world.welcome()
    assert world.core.is_ready


def test_a_job_goes_to_the_engine_and_its_frames_come_back_untouched() -> None:
    world = ready_world()
    world.give(1, attempt=3, segment=2, ms=5000)
    job = world.slots[0].inbox[-1]
    assert (job.name, job.attempt, job.sequence, job.payload) == ("JOB", 3, 2, b"hello")
    assert 4999 <= job.value <= 5001
    world.begin()
    payload = memoryview(b"\1\0" * 50)
    chunk = [pack_envelope(wire.CHUNK, job.job, 3, wire.SEGMENT_END, 0, 2), payload]
    out: Actions = []
    world.core.child_message(0, chunk, world.now, out)
    assert out == [ToBroker(0, chunk)]
    action = out[0]
    assert isinstance(action, ToBroker)
    assert action.frames is chunk
    world.finish()
    assert world.heard() == ["STARTED", "DONE"]
    assert world.core.tally.jobs_done == 1
    assert world.core.tally.audio_s == 1.0
    assert not world.core.desk.jobs


def test_the_second_job_waits_here_and_starts_at_once() -> None:
    world = ready_world()
    world.give(1)
    world.give(2)
    assert world.core.desk.jobs[(2).to_bytes(16, "big") + b"\0\1"].state is JobState.QUEUED
    world.begin()
    world.finish()
    assert world.slots[0].job == ((2).to_bytes(16, "big"), 1)


def test_more_jobs_than_credits_go_back() -> None:
    world = ready_world()
    for job in range(1, 4):
        world.give(job)
    assert world.heard() == ["RETURN"]
    assert len(world.core.desk.jobs) == 2


def test_stale_output_of_an_engine_is_dropped() -> None:
    world = ready_world()
    world.give(1, attempt=2)
    for envelope in (
        pack_envelope(wire.CHUNK, bytes(15) + b"\1", 1),
        pack_envelope(wire.CHUNK, b"x" * 16, 2),
    ):
        world.child(0, [envelope, b"\0\0"])
    assert world.heard() == []
    assert world.core.tally.fenced == 2


def test_cancel_of_a_waiting_and_of_a_running_job() -> None:
    world = ready_world()
    world.give(1)
    world.give(2)
    world.cancel(2)
    assert world.last().header[0] == "cancelled"
    world.begin()
    world.cancel(1)
    world.cancel(1)  # idempotent
    assert [message.name for message in world.slots[0].inbox] == ["JOB", "CANCEL"]
    world.fail(0, Cancelled())
    assert world.heard() == ["FAILED", "STARTED", "FAILED"]
    assert world.core.crew[0].state is SlotState.IDLE


def test_a_cancelled_job_may_still_end_well() -> None:
    world = ready_world()
    world.give(1)
    world.begin()
    world.cancel(1)
    world.chunk()
    world.finish()
    assert world.heard() == ["STARTED", "CHUNK", "DONE"]
    world.tick(20)
    assert world.slots[0].running
    assert not world.slots[0].killed


def test_an_engine_that_ignores_a_cancel_is_ended_and_the_answer_is_still_cancelled() -> None:
    """Without this a hanging engine would hold its slot for ever."""
    world = ready_world()
    world.give(1)
    world.cancel(1)
    for _ in range(5):
        world.broker(wire.HEARTBEAT)
        world.tick(1.1)
    assert world.slots[0].killed
    world.die()
    assert world.last().header[0] == "cancelled"
    world.tick(2)
    assert world.slots[0].running


def test_a_deadline_ends_waiting_and_running_jobs() -> None:
    world = ready_world()
    world.give(1, ms=1000)
    world.give(2, ms=500)
    world.begin()
    world.heard()
    world.tick(0.6)
    assert world.last().header[0] == "deadline_exceeded"
    world.tick(0.6)
    assert world.slots[0].cancelled
    world.fail(0, Cancelled())
    assert world.last().header[0] == "deadline_exceeded"


def test_an_expired_job_never_reaches_the_engine() -> None:
    world = ready_world()
    world.give(1, ms=0)
    assert world.last().header[0] == "deadline_exceeded"
    assert world.slots[0].inbox == []


def test_a_dead_engine_process_fails_its_job_at_once_and_is_started_again() -> None:
    world = ready_world()
    world.give(1)
    world.give(2)
    world.begin()
    world.chunk()
    world.die(how="signal 9, SIGKILL")
    assert world.last().name == "FAILED"
    assert world.last().header[0] == "worker_lost"
    assert "SIGKILL" in world.last().header[1]
    world.tick(1)
    assert world.slots[0].running
    world.loaded()
    assert world.slots[0].job == ((2).to_bytes(16, "big"), 1)
    assert world.core.crew.restarts == 1


def test_an_engine_that_does_not_come_back_leaves_the_bus_until_it_does() -> None:
    world = ready_world(slots=1)
    world.give(1)
    world.give(2)
    world.die()
    world.tick(1)
    world.heard()
    world.die()  # again, while loading
    assert world.heard() == ["RETURN", "GOODBYE"]
    assert not world.sockets[0]
    world.tick(1)
    world.loaded()
    assert world.heard() == ["READY"]


def test_an_engine_that_never_loads_ends_the_worker_with_its_error() -> None:
    world = World(slots=2)
    world.child(
        0, [pack_envelope(wire.FAILED), encode(failed(ModelMissing("no files: vc models pull kokoro")))]
    )
    world.die(0, "exit code 1")
    assert world.exit is None
    assert world.slots[1].killed
    world.die(1)
    assert isinstance(world.error, ModelMissing)
    assert "vc models pull" in world.error.message


def test_a_process_that_dies_at_every_first_load_ends_the_worker() -> None:
    world = World()
    for _ in range(3):
        world.tick(5)
        assert world.slots[0].running
        world.die(how="signal 11, SIGSEGV")
    assert isinstance(world.error, EngineError)
    assert "SIGSEGV" in world.error.message


def test_a_setting_that_became_wrong_ends_a_worker_that_had_worked() -> None:
    world = ready_world()
    world.die()
    world.tick(1)
    world.child(0, [pack_envelope(wire.FAILED), encode(failed(ConfigError("no such device")))])
    world.die()
    assert isinstance(world.error, ConfigError)


def test_both_sides_beat() -> None:
    world = ready_world()
    world.give(1)
    world.begin()
    world.heard()
    world.tick(1.0)
    beat = world.last()
    assert beat.name == "HEARTBEAT"
    free, warm, progressed, stats = beat.header
    assert (free, warm, progressed) == (0, [], [bytes(15) + b"\1"])
    assert stats["jobs_done"] == 0
    assert stats["restarts"] == 0
    world.broker(wire.HEARTBEAT)
    world.tick(1.0)
    assert world.last().header[2] == []  # no progress since


def test_learning_a_voice_counts_as_progress_for_a_while() -> None:
    """A broker takes jobs from a worker without progress; a voice may take longer than that to learn."""
    world = ready_world()
    world.give(1, ms=3_600_000)
    world.begin()
    world.child(0, control.message(control.LEARNING))

    def progressed_after(seconds: int) -> bool:
        for _ in range(seconds):
            world.tick(1.0)
            world.broker(wire.HEARTBEAT)
        return bool(world.last().header[2])

    assert progressed_after(90)
    assert not progressed_after(220)
    world.child(0, control.message(control.LEARNING))
    assert progressed_after(2)
    world.child(0, control.message(control.REPORT, control.Report(["amber"])))
    assert not progressed_after(2)


def test_a_silent_broker_is_given_up_and_told_nothing_of_what_was_lost() -> None:
    """Found by the simulator: a broker that was started again had given out the same numbers meanwhile."""
    world = ready_world()
    world.give(1)
    world.give(2)
    world.begin()
    world.tick(2.9)
    assert world.sockets[0]
    world.heard(beats=True)
    world.tick(0.1)
    assert not world.sockets[0]
    assert world.slots[0].cancelled
    world.chunk()
    world.fail(0, Cancelled())
    assert world.sent[0] == []
    world.tick(0.2)
    assert world.heard() == ["READY"]
    world.welcome()
    assert world.sent[0] == []
    world.give(3)
    assert world.slots[0].job == ((3).to_bytes(16, "big"), 1)


def test_the_loss_of_a_broker_is_logged_once() -> None:
    world = ready_world()
    world.tick(60)
    assert sum("does not answer" in line for line in world.log) == 1
    assert world.heard().count("READY") > 3


def test_what_a_broker_forgot_is_stopped_and_never_taken_for_what_it_gives_out_anew() -> None:
    """Caught: a broker killed and started again within a beat gave attempt 1 out anew; the worker refused it
    as here already, which the client got as protocol_error, or went on in the middle of the old one."""
    world = ready_world(slots=2)
    world.give(1)
    world.begin()
    world.heard()
    world.broker(wire.REREGISTER)
    world.broker(wire.REREGISTER)
    assert world.heard() == ["READY"]
    assert world.slots[0].cancelled
    world.chunk()
    world.welcome()
    world.chunk()
    world.give(1)
    assert world.heard() == ["RETURN"]
    world.fail(0, Cancelled())
    assert world.heard() == []
    world.give(1, attempt=2)
    world.begin()
    world.finish()
    assert world.heard() == ["STARTED", "DONE"]


def test_the_same_attempt_of_two_brokers_goes_back_to_the_second() -> None:
    """Caught: a client that failed over asks both under one id, and each counts attempts from 1."""
    world = ready_world(brokers=2, slots=2)
    world.give(1, link=0)
    world.give(1, link=1)
    assert world.heard(link=1) == ["RETURN"]
    world.cancel(1, link=1)
    assert not world.slots[0].cancelled
    world.begin()
    world.finish()
    assert world.heard(link=0) == ["STARTED", "DONE"]


def test_an_attempt_that_has_not_begun_is_given_back_when_asked_for() -> None:
    world = ready_world()
    world.give(1)
    world.give(2)
    world.heard()
    for job in (2, 1, 3):
        world.broker(wire.CANCEL, job=key(job), attempt=1, flags=wire.UNBEGUN)
    assert [(message.name, message.job) for message in world.sent[0]] == [("RETURN", key(2))]
    assert not world.slots[0].cancelled


def test_one_goodbye_means_the_broker_left_two_in_answer_to_ready_that_we_are_replaced() -> None:
    world = ready_world()
    world.broker(wire.GOODBYE)
    assert not world.sockets[0]
    world.tick(1)
    world.broker(wire.GOODBYE)
    assert world.exit is None
    world.tick(2)
    world.broker(wire.GOODBYE)
    assert world.slots[0].killed
    world.die()
    assert isinstance(world.error, Conflict)
    assert "--id" in world.error.message


def test_a_worker_goes_on_for_those_that_let_it_in() -> None:
    world = ready_world(brokers=2, slots=2)
    world.give(1, link=0)
    world.give(1, link=1)
    world.do(world.core.refused, 0, Unauthorized("revoked"), world.now)
    assert world.exit is None
    assert not world.slots[0].killed
    assert world.log.count("revoked") == 1
    world.tick(60)
    world.do(world.core.refused, 0, Unauthorized("revoked"), world.now)
    assert world.log.count("revoked") == 1, "said once, however often it is tried"
    assert world.exit is None


def test_a_worker_that_is_let_in_nowhere_ends() -> None:
    world = World(brokers=2)
    world.loaded()
    world.do(world.core.refused, 0, Unauthorized("not here"), world.now)
    assert world.exit is None
    world.do(world.core.refused, 1, Unauthorized("nor here"), world.now)
    world.die(0)
    assert isinstance(world.error, Unauthorized)
    assert world.error.message == "nor here"


def test_stop_returns_what_waits_finishes_what_runs_and_exits() -> None:
    world = ready_world()
    world.give(1)
    world.give(2)
    world.begin()
    world.heard()
    world.do(world.core.stop, world.now)
    assert world.heard() == ["DRAIN", "RETURN"]
    world.give(3)
    assert world.heard() == ["RETURN"]
    world.chunk()
    world.finish()
    assert world.heard() == ["CHUNK", "DONE", "DRAINED"]
    assert world.slots[0].told_to_go
    world.die(how="exit code 0")
    assert world.error is None


def test_an_engine_that_does_not_end_is_ended() -> None:
    world = ready_world()
    world.do(world.core.stop, world.now)
    world.tick(2.9)
    assert not world.slots[0].killed
    world.tick(0.2)
    assert world.slots[0].killed


def test_a_process_that_cannot_even_be_killed_is_left_behind() -> None:
    """A process inside a hanging driver ignores SIGKILL; the worker must come to its end all the same."""
    world = ready_world(slots=2)
    world.give(1)
    world.do(world.core.stop_now, world.now)
    world.die(1)
    assert world.slots[0].killed
    world.slots[0].running = False  # as far as the world is concerned
    world.tick(2.9)
    assert world.exit is None
    world.tick(0.2)
    assert world.error is None
    assert "cannot be ended" in world.log[-1]


def test_a_second_stop_is_immediate() -> None:
    world = ready_world()
    world.give(1)
    world.begin()
    world.heard()
    world.do(world.core.stop, world.now)
    world.do(world.core.stop_now, world.now)
    assert world.heard() == ["DRAIN", "GOODBYE"]
    assert world.slots[0].killed
    world.die()
    assert world.exit is not None


def test_a_broker_may_drain_the_worker() -> None:
    world = ready_world()
    world.give(1)
    world.give(2)
    world.broker(wire.DRAIN)
    assert world.heard() == ["RETURN"]
    world.finish()
    assert world.heard() == ["DONE", "DRAINED"]
    world.die()
    assert world.error is None


def test_two_brokers_share_the_slots_and_one_drain_leaves_the_other() -> None:
    world = World(brokers=2, slots=3)
    for slot in range(3):
        world.loaded(slot)
    assert [world.last(link).header[4] for link in (0, 1)] == [2, 1]
    world.welcome(0)
    world.welcome(1)
    world.broker(wire.DRAIN, link=1)
    assert world.heard(link=1)[-1] == "DRAINED"
    assert world.core.links[1].state is LinkState.LEFT
    assert not world.core.leaving
    world.give(1)
    assert world.slots[0].job is not None


def test_a_lost_broker_leaves_its_share_to_the_others_until_it_is_back() -> None:
    world = ready_world(brokers=2, slots=4)
    world.tick(2)
    world.broker(wire.HEARTBEAT)
    world.heard(beats=True)
    world.tick(1.05)
    assert not world.sockets[1]
    ready = [message for message in world.sent[0] if message.name == "READY"]
    assert ready[-1].header[4] == 4
    world.tick(1.0)
    world.welcome(1)
    ready = [message for message in world.sent[0] if message.name == "READY"]
    assert ready[-1].header[4] == 2
    assert world.sent[1][-1].header[4] == 2


def test_jobs_of_a_live_broker_run_while_another_is_away() -> None:
    world = ready_world(brokers=2, slots=1)
    world.give(1, link=1)
    world.begin()
    world.tick(1)
    world.broker(wire.HEARTBEAT)
    world.tick(2)
    assert not world.sockets[1]
    world.give(2, link=0)
    world.fail(0, Cancelled())
    assert world.slots[0].job == ((2).to_bytes(16, "big"), 1)


@pytest.mark.parametrize(
    "frames",
    [
        [b"short"],
        [b"VB2" + bytes(29)],
        [pack_envelope(wire.SUBMIT), b"\x90", b"text"],
        [pack_envelope(wire.JOB, b"j" * 16, 1)],
        [pack_envelope(wire.JOB, bytes(16), 1), b"\x90", b"text"],
        [pack_envelope(wire.WELCOME), b"\xc1"],
        [pack_envelope(wire.HEARTBEAT), b"\x90"],
        [pack_envelope(0x77), b"\x90", b"", b""],
    ],
)
def test_a_malformed_message_is_answered_counted_and_changes_nothing(frames: list[bytes]) -> None:
    world = ready_world()
    world.do(world.core.broker_message, 0, frames, world.now)
    assert world.heard() == ["FAILED"]
    assert world.core.tally.malformed == 1
    assert world.core.links[0].state is LinkState.REGISTERED
    assert not world.core.desk.jobs


def test_a_broken_complaint_is_not_answered() -> None:
    world = ready_world()
    world.do(world.core.broker_message, 0, [pack_envelope(wire.FAILED), b"\xc1"], world.now)
    assert world.heard() == []
    assert world.core.tally.malformed == 1


def test_the_same_attempt_twice_is_a_protocol_error_and_runs_once() -> None:
    world = ready_world()
    world.give(1)
    world.give(1)
    assert world.last().header[0] == "protocol_error"
    assert len(world.core.desk.jobs) == 1


def test_an_engine_process_that_garbles_its_words_is_ended_and_the_agent_goes_on() -> None:
    world = ready_world()
    world.give(1)
    world.child(0, [pack_envelope(wire.DONE, bytes(15) + b"\1", 1), b"\xc1"])
    assert world.slots[0].killed
    world.die()
    assert world.last().header[0] == "worker_lost"
    world.tick(1)
    assert world.slots[0].running


def test_warm_voices_travel_with_beats() -> None:
    world = ready_world()
    world.child(0, control.message(control.REPORT, control.Report(["amber", "basil"])))
    world.tick(1)
    assert world.last().header[1] == ["amber", "basil"]


def test_an_illegal_move_raises_in_tests_and_counts_in_production() -> None:
    core = ready_world().core
    slot = core.crew[0]
    with pytest.raises(IllegalMove):
        slot.move(SlotState.GONE)
    core.referee.strict = False
    slot.move(SlotState.GONE)
    assert core.referee.illegal == 2


def test_a_change_of_slots_is_told_as_one_so_that_a_broker_which_forgot_us_says_so() -> None:
    """Found by the simulator: READY reached a broker's next start, and the worker spoke on for the last."""
    world = ready_world(2, slots=2)
    world.broker(wire.GOODBYE, link=1)
    ready = world.last(0)
    assert (ready.name, ready.header[4], ready.header[-1]) == ("READY", 2, True)
    world.tick(10.0)
    assert [message.header[-1] for message in world.sent[1] if message.name == "READY"][:1] == [False]


def test_what_was_abandoned_takes_no_credit() -> None:
    """Found by the simulator: a job was handed back as often as it was given until an engine was ended."""
    world = ready_world()
    world.give(1)
    world.give(2)
    world.tick(3.0)  # silence: the broker takes both for lost
    world.tick(0.2)
    world.welcome()
    world.heard()
    world.give(3)
    world.give(4)
    assert world.heard() == []


# Several jobs in one engine, and engines that sleep.


def test_an_engine_that_speaks_jobs_together_gets_as_many_and_offers_as_many_slots() -> None:
    world = World(slots=2, batch=3)
    world.loaded(0)
    assert world.last().header[4] == 6
    world.welcome()
    world.loaded(1)
    for job in range(1, 8):
        world.give(job)
    assert [len(slot.jobs) for slot in world.slots] == [3, 3]
    world.finish(0)
    assert [len(slot.jobs) for slot in world.slots] == [3, 3]  # the seventh has its place
    world.tick(1.0)
    assert world.last().header[0] == 0
    world.finish(1)
    world.tick(1.0)
    assert world.last().header[0] == 1


def test_no_more_slots_are_offered_than_a_ready_may_name() -> None:
    """A broker would refuse it over and over, and the worker would never say why."""
    world = World(slots=40, batch=32)
    world.loaded(0)
    assert world.last().header[4] == MAX_SLOTS


def test_jobs_go_to_the_engine_that_has_the_fewest() -> None:
    """Two engines with two rows each are through sooner than one with four."""
    world = ready_world(slots=2, batch=3)
    for job in range(1, 5):
        world.give(job)
    assert [len(slot.jobs) for slot in world.slots] == [2, 2]


def test_a_job_that_was_tried_before_has_its_engine_to_itself() -> None:
    """It may be what killed the last one: eight jobs died three times with it, and all were called poison."""
    world = ready_world(batch=3)
    world.give(1)
    world.give(2, attempt=2)
    world.give(3)
    assert world.slots[0].jobs == [(key(1), 1)]
    world.finish()
    assert world.slots[0].jobs == [(key(2), 2)]
    world.finish()
    assert world.slots[0].jobs == [(key(3), 1)]


@pytest.mark.parametrize("how", ["cancelled", "expired"])
def test_jobs_behind_one_that_needed_an_engine_to_itself_go_on_when_it_is_gone(how: str) -> None:
    """The simulator found them waiting for the engine's next end although it had room."""
    world = ready_world(batch=3)
    world.give(1)
    world.give(2, attempt=2, ms=1500)
    world.give(3)
    if how == "cancelled":
        world.cancel(2, attempt=2)
    else:
        world.tick(2)
    assert world.slots[0].jobs == [(key(1), 1), (key(3), 1)]


def test_a_process_that_dies_loses_all_its_jobs_and_says_so_of_each() -> None:
    world = ready_world(batch=3)
    for job in (1, 2, 3):
        world.give(job)
    world.begin()
    world.die()
    assert world.heard() == ["STARTED", "FAILED", "FAILED", "FAILED"]
    assert not world.core.desk.jobs


def test_one_of_several_that_does_not_stop_when_told_costs_the_process() -> None:
    world = ready_world(batch=2)
    world.give(1)
    world.give(2)
    world.cancel(1)
    world.tick(4.9)
    world.broker(wire.HEARTBEAT)
    assert not world.slots[0].killed
    world.tick(0.2)
    assert world.slots[0].killed


def test_one_of_several_that_stops_when_told_costs_nothing() -> None:
    world = ready_world(batch=2)
    world.give(1)
    world.give(2)
    world.cancel(1)
    world.fail(0, Cancelled())
    for _ in range(6):
        world.broker(wire.HEARTBEAT)
        world.tick(1.0)
    assert not world.slots[0].killed


def test_an_engine_with_nothing_to_do_sleeps_and_the_next_job_wakes_it() -> None:
    world = ready_world(idle_s=2.0)
    world.give(1)
    world.finish()
    world.tick(1.9)
    assert not world.slots[0].told_to_go
    world.broker(wire.HEARTBEAT)
    world.tick(0.2)
    assert world.slots[0].told_to_go
    world.give(2)  # it comes while the process ends
    world.die(how="exit code 0")
    assert world.slots[0].running
    assert world.slots[0].jobs == []
    world.loaded()
    assert world.slots[0].jobs == [(key(2), 1)]
    world.finish()
    assert world.heard()[-1] == "DONE"


def test_a_job_that_waits_for_an_engine_to_wake_counts_as_progress() -> None:
    """Loading takes longer than half a lease: the broker took the job back, and gave it again, for ever."""
    world = ready_world(idle_s=2.0)
    world.tick(2.1)
    world.die(how="exit code 0")
    world.broker(wire.HEARTBEAT)
    world.give(1)
    world.tick(1.0)
    beat = world.last()
    assert beat.name == "HEARTBEAT"
    assert beat.header[2] == [key(1)]


def test_a_sleeping_worker_offers_its_slots_and_leaves_at_once() -> None:
    world = ready_world(slots=2, idle_s=1.0)
    world.tick(1.1)
    for slot in (0, 1):
        world.die(slot, "exit code 0")
    world.broker(wire.HEARTBEAT)
    world.tick(1.0)
    assert world.last().header[0] == 2
    assert world.last().header[3]["unloads"] == 2
    world.do(world.core.stop, world.now)
    assert world.error is None


def test_figures_of_engines_are_summed_and_outlive_them() -> None:
    world = ready_world(slots=2)
    for slot, calls in ((0, 3), (1, 4)):
        figures: dict[str, int | float] = {"calls": calls, "device_bytes": 1000}
        world.child(slot, control.message(control.REPORT, control.Report([], figures)))
    world.tick(1.0)
    stats = world.last().header[3]
    assert (stats["calls"], stats["device_bytes"]) == (7, 2000)
    world.die(0)
    world.broker(wire.HEARTBEAT)
    world.tick(1.0)
    stats = world.last().header[3]
    assert (stats["calls"], stats["device_bytes"]) == (7, 1000), (
        "what it counted stays, what it held does not"
    )


@pytest.mark.parametrize(
    "frames",
    [
        [b"VB1"],
        [b""],
        [pack_envelope(control.LOADED)],
        [pack_envelope(wire.BUNDLE), b"\xc1"],
        [pack_envelope(wire.DONE, bytes(16), 1), b"", b""],
        [pack_envelope(wire.READY), b""],
    ],
)
def test_an_engine_process_that_says_what_is_no_message_is_ended(frames: list[bytes]) -> None:
    """Fuzzing found that a frame too few ended the agent instead, and with it all its engines."""
    world = ready_world()
    out: Actions = []
    world.core.child_message(0, list(frames), world.now, out)
    assert KillChild(0) in out
    assert world.core.tally.malformed == 1
