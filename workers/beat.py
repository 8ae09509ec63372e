"""What a worker says of itself with each beat: how much more it takes, what went on, and its figures."""

from __future__ import annotations

from typing import Final

from ..common.messages import Done, Heartbeat, encode
from .crew import Crew
from .desk import Desk
from .links import Link
from .states import JobState, Referee

MAX_WARM_VOICES: Final = 100
MAX_PROGRESSED: Final = 256


class Tally:
    """What a worker counts, from its start on."""

    def __init__(self, referee: Referee) -> None:
        self._referee = referee
        self.gauges: dict[str, int | float | str] = {}
        "Figures that the loop measures, such as memory; they go out with each beat."
        self.jobs_done = self.malformed = self.fenced = 0
        self.audio_s = self.engine_s = 0.0

    def done(self, done: Done, rate_hz: int) -> None:
        """Count a job that was spoken to its end."""
        self.jobs_done += 1
        self.engine_s += done.engine_s
        self.audio_s += done.samples / rate_hz

    def figures(self, crew: Crew) -> dict[str, int | float | str]:
        """These, and what the engines count."""
        return (
            crew.figures
            | self.gauges
            | {
                "jobs_done": self.jobs_done,
                "audio_s": round(self.audio_s, 3),
                "engine_s": round(self.engine_s, 3),
                "restarts": crew.restarts,
                "unloads": crew.unloads,
                "voices": len(crew.warm_voices),
                "malformed": self.malformed,
                "fenced": self.fenced,
                "illegal_moves": self._referee.illegal,
            }
        )


def beat(link: Link, crew: Crew, desk: Desk, tally: Tally, now: float) -> bytes:
    """The header of a HEARTBEAT to one broker. Progress is told once: the next beat tells what is new.

    A job that waits for its engine to be loaded again makes progress too, or its broker would take it away.
    """
    waking = crew.is_waking
    progressed = [
        job
        for job in desk.of(link)
        if job.progressed or now < job.patient_until or (waking and job.state is JobState.QUEUED)
    ][:MAX_PROGRESSED]
    for job in progressed:
        job.progressed = False
    warm = crew.warm_voices[-MAX_WARM_VOICES:]
    return encode(Heartbeat(crew.free, warm, [job.job for job in progressed], tally.figures(crew)))
