"""The cores as targets: conversations of strangers, whose every message is followed by a look at all tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tests.fuzz.broker_stage import CLIENTS_SAY, PATIENCE_S, WORKERS_SAY, BrokerStage
from tests.fuzz.samples import JOBS, message_of
from tests.fuzz.steps import Changes, conversation, packed, unpacked
from tests.fuzz.target import Target, require
from voicebus.common import messages, wire

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


def _durable(job: bytes) -> list[bytes]:
    header = messages.encode(messages.Submit("tone", durable=True))
    return [wire.pack_envelope(wire.SUBMIT, job), header, b"A few words."]


def _broker_seeds() -> Iterable[bytes]:
    def says(kind: int, job: int = 0, attempt: int = 1) -> list[bytes]:
        return message_of(kind, JOBS[job], attempt)

    spoken = [(1, 0, says(kind)) for kind in (wire.STARTED, wire.CHUNK, wire.DONE)]
    ready = (1, 0, says(wire.READY))
    yield conversation(ready, (0, 0, says(wire.SUBMIT)), *spoken, (0, 1, says(wire.FETCH)))
    yield conversation(ready, (0, 0, _durable(JOBS[0])), *spoken, (0, 0, says(wire.FETCH)), (0, 1, says(wire.FETCH)))
    yield conversation(
        ready, (0, 0, says(wire.SUBMIT)), (0, 1, says(wire.SUBMIT)), (1, 0, says(wire.STARTED)), (1, 0, says(wire.CHUNK)),
        (1, 0, says(wire.FAILED)), (1, 0, says(wire.STARTED, 0, 2)), (0, 0, says(wire.CANCEL)), (0, 2, says(wire.ADMIN)),
    )  # fmt: skip
    yield conversation(
        (0, 0, says(wire.SUBMIT, 1)), (0, 0, says(wire.SUBMIT, 2)), (0, 0, _durable(JOBS[3])), ready,
        (1, 0, says(wire.SPOKEN, 1)), (1, 0, says(wire.RETURN, 2)), (1, 0, says(wire.HEARTBEAT)), (1, 0, says(wire.DRAIN)),
        (1, 1, says(wire.READY)), (1, 1, says(wire.SPOKEN, 2)), (1, 1, says(wire.GOODBYE)), (0, 0, says(wire.PING)),
    )  # fmt: skip
    yield packed(step._replace(wait_ms=900) for step in unpacked(conversation(ready, (0, 0, says(wire.SUBMIT)), *spoken), 2))


TARGETS: Final = (
    Target(
        "broker-core",
        "its tables agree, nobody hears of others' jobs, and an honest client gets its own audio, once, in time",
        run_broker, _broker_seeds, Changes((CLIENTS_SAY, WORKERS_SAY)), 65_536, 5.0,
    ),
)  # fmt: skip
