"""What becomes of a job whose attempt was lost: tried again, or answered.

Execution is at least once, answers are exactly one. An attempt is lost when its worker dies, falls silent,
wedges, or says itself that it could not (a retryable code). Deterministic failures never come here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.errors import BusError, PoisonJob, WorkerLost
from ..common.wire import STREAM

if TYPE_CHECKING:
    from .tables import Job


def verdict(job: Job, max_attempts: int) -> BusError | None:
    """None to try the job again; otherwise the error that answers it.

    A listener has heard what was forwarded: if that ends inside a segment, speaking again would repeat words
    and going on would skip some, so a streamed job fails cleanly there. A job nobody listens to yet is
    spoken again from its last whole segment.
    """
    if job.flags & STREAM and job.mid_segment:
        return WorkerLost(
            "the worker was lost inside a segment that had been heard in part; submit the rest again"
        )
    if job.losses >= max_attempts:
        return PoisonJob(
            f"the job brought down {job.losses} workers: {'; '.join(job.history[-max_attempts:])}"
        )
    return None
