"""The cores as targets: conversations of strangers, with a look at all tables after every message."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from tests.fuzz import capture, client_stage, worker_stage
from tests.fuzz import steps as steps_of
from tests.fuzz.broker_stage import CLIENTS_SAY, PATIENCE_S, WORKERS_SAY, BrokerStage
from tests.fuzz.capture import FROM_CLIENT, FROM_WORKER, TO_CLIENT, TO_WORKER
from tests.fuzz.client_stage import ClientStage
from tests.fuzz.samples import JOBS, message_of
from tests.fuzz.steps import Changes, Step, conversation, packed, unpacked
from tests.fuzz.target import Target, require
from tests.fuzz.worker_stage import WorkerStage
from voicebus.common import bundles, messages, wire
from voicebus.workers import control

HONEST_EVERY: Final = 4


def run_broker(data: bytes) -> None:
    """A broker's core."""
    stage = BrokerStage()
    for number, step in enumerate(unpacked(data, 2)):
        stage.play(step)
        if number % HONEST_EVERY == 0:
            stage.submit()
    stage.wait(PATIENCE_S)
    require(stage.ended > 0, "honest work gets done")


def run_worker(data: bytes) -> None:
    """A worker's core, with a stranger for a broker."""
    stage = WorkerStage()
    _work(stage, data, 1)
    require(stage.over or stage.answered > 0, "honest work gets done")


def run_engine(data: bytes) -> None:
    """A worker's core, with engines that garble as well."""
    _work(WorkerStage(garbles=True), data, 2)


def _work(stage: WorkerStage, data: bytes, sides: int) -> None:
    stage.give()
    for number, step in enumerate(unpacked(data, sides)):
        if stage.over:
            return
        stage.play(step)
        if number % HONEST_EVERY == 0:
            stage.give()
    if not stage.over:
        stage.wait(worker_stage.PATIENCE_S)


def run_client(data: bytes) -> None:
    """A client's core."""
    stage = ClientStage()
    stage.ask()
    stage.ask()
    for number, step in enumerate(unpacked(data, 2)):
        stage.play(step)
        if number % 2 == 0:
            stage.ask()
    stage.finish()


def _durable(job: bytes) -> list[bytes]:
    header = messages.encode(messages.Submit("tone", durable=True))
    return [wire.pack_envelope(wire.SUBMIT, job), header, b"A few words."]


def _broker_seeds() -> Iterable[bytes]:
    def says(kind: int, job: int = 0, attempt: int = 1) -> list[bytes]:
        return message_of(kind, JOBS[job], attempt)

    spoken = [(1, 0, says(kind)) for kind in (wire.STARTED, wire.CHUNK, wire.DONE)]
    ready = (1, 0, says(wire.READY))
    yield conversation(ready, (0, 0, says(wire.SUBMIT)), *spoken, (0, 1, says(wire.FETCH)))
    yield conversation(
        ready, (0, 0, _durable(JOBS[0])), *spoken, (0, 0, says(wire.FETCH)), (0, 1, says(wire.FETCH))
    )
    yield conversation(
        ready, (0, 0, says(wire.SUBMIT)), (0, 1, says(wire.SUBMIT)), (1, 0, says(wire.STARTED)), (1, 0,
        says(wire.CHUNK)),
        (1, 0, says(wire.FAILED)), (1, 0, says(wire.STARTED, 0, 2)), (0, 0, says(wire.CANCEL)), (0, 2,
        says(wire.ADMIN)),
    )  # fmt: skip
    yield conversation(
        (0, 0, says(wire.SUBMIT, 1)), (0, 0, says(wire.SUBMIT, 2)), (0, 0, _durable(JOBS[3])), ready,
        (1, 0, says(wire.SPOKEN, 1)), (1, 0, says(wire.RETURN, 2)), (1, 0, says(wire.HEARTBEAT)), (1, 0,
        says(wire.DRAIN)),
        (1, 1, says(wire.READY)), (1, 1, says(wire.SPOKEN, 2)), (1, 1, says(wire.GOODBYE)), (0, 0,
        says(wire.PING)),
    )  # fmt: skip
    yield packed(
        step._replace(wait_ms=900)
        for step in unpacked(conversation(ready, (0, 0, says(wire.SUBMIT)), *spoken), 2)
    )


def _worker_seeds() -> Iterable[bytes]:
    def says(kind: int, job: int = 0, attempt: int = 1) -> tuple[int, int, list[bytes]]:
        return 0, 0, message_of(kind, JOBS[job], attempt)

    yield conversation(
        says(wire.WELCOME), says(wire.JOB), says(wire.CANCEL), says(wire.JOB, 1), says(wire.HEARTBEAT)
    )
    yield conversation(
        says(wire.WELCOME), says(wire.JOB), says(wire.DRAIN), says(wire.JOB, 2), says(wire.FAILED)
    )
    yield conversation(
        says(wire.WELCOME), *(says(wire.JOB, number) for number in range(4)), says(wire.REREGISTER)
    )
    yield conversation(says(wire.WELCOME), says(wire.JOB, 0, 2), says(wire.GOODBYE))


def _engine_seeds() -> Iterable[bytes]:
    yield from _worker_seeds()
    jobs = [(0, 0, message_of(kind)) for kind in (wire.WELCOME, wire.JOB)]
    yield conversation(*jobs, *((1, 0, message_of(kind)) for kind in worker_stage.ENGINES_SAY))
    report = control.message(control.REPORT, control.Report(["amber"], {"jobs": 1}))
    yield conversation(
        *jobs, (1, 0, control.message(control.LEARNING)), (1, 1, control.message(control.PROGRESS))
    )
    yield conversation((1, 0, report), (1, 1, [b"VB1"]), (1, 0, [wire.pack_envelope(control.LOADED)]))


def _client_seeds() -> Iterable[bytes]:
    def says(kind: int, job: int, attempt: int = 1) -> tuple[int, int, list[bytes]]:
        return 0, 0, message_of(kind, JOBS[job], attempt)

    up = (0, 0, message_of(wire.PONG))
    for job in range(3):
        yield conversation(
            up, says(wire.ACCEPTED, job), says(wire.STARTED, job), says(wire.CHUNK, job), says(wire.DONE,
            job),
            says(wire.SPOKEN, job + 1), says(wire.FAILED, job + 2),
        )  # fmt: skip
        yield conversation(
            up, says(wire.STARTED, job), says(wire.CHUNK, job), says(wire.STARTED, job, 2),
            says(wire.CHUNK, job, 2),
            (1, 0, [b"gone"]), up, says(wire.DONE, job, 2),
        )  # fmt: skip


def _captured(ways: tuple[int, ...]) -> Iterable[bytes]:
    """What was said these ways in each captured conversation, their job ids by the samples' names."""
    for heard in capture.conversations().values():
        names: dict[bytes, bytes] = {wire.NO_JOB: wire.NO_JOB}
        steps: list[Step] = []
        before_ms = 0
        for at_ms, way, peer, frames in heard:
            for envelope in _envelopes(frames):
                names.setdefault(envelope[4:20], JOBS[(len(names) - 1) % len(JOBS)])
            if way in ways:
                wait_ms = min(at_ms - before_ms, steps_of.MAX_WAIT_MS)
                steps.append(
                    Step(
                        wait_ms,
                        ways.index(way),
                        peer % steps_of.PEERS,
                        [_named(frame, names) for frame in frames],
                    )
                )
                before_ms = at_ms
        yield packed(steps[: steps_of.MAX_STEPS])


def _envelopes(frames: list[bytes]) -> list[bytes]:
    if frames[0][3] != wire.BUNDLE:
        return [frames[0]]
    return [envelope for envelope, _, _ in bundles.unpack(frames[1])]


def _named(frame: bytes, names: dict[bytes, bytes]) -> bytes:
    for job, name in names.items():
        if job != wire.NO_JOB:
            frame = frame.replace(job, name)
    return frame


def _with(made: Callable[[], Iterable[bytes]], *ways: int) -> Callable[[], Iterable[bytes]]:
    return lambda: [*made(), *_captured(ways)]


TARGETS: Final = (
    Target(
        "broker-core",
        "its tables agree, nobody hears of others' jobs, an honest client gets its own audio, once, in time",
        run_broker, _with(_broker_seeds, FROM_CLIENT, FROM_WORKER), Changes((CLIENTS_SAY, WORKERS_SAY)),
        65_536, 5.0,
    ),
    Target(
        "worker-core",
        "its tables agree, a stranger for a broker costs no other its jobs, and every audio is its own",
        run_worker, _with(_worker_seeds, TO_WORKER), Changes((worker_stage.BROKERS_SAY,)), 65_536, 5.0,
    ),
    Target(
        "worker-engine",
        "its tables agree whatever an engine process says",
        run_engine, _engine_seeds, Changes((worker_stage.BROKERS_SAY, worker_stage.ENGINES_SAY)), 65_536, 5.0,
    ),
    Target(
        "client-core",
        "its tables agree, nothing raises, every task ends once, and an honest broker's answer is its audio",
        run_client, _with(_client_seeds, TO_CLIENT), Changes((client_stage.BROKERS_SAY, (wire.PONG,))),
        65_536, 5.0,
    ),
)  # fmt: skip
