"""The Celery application that client and worker share. Its servers are told by the environment.

Results come back over Redis' publish-subscribe, which is how the Redis backend waits: nothing is polled.
Events, acknowledgement after the task and the result's extended fields stay off, as in Celery's defaults.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from .celery_tasks import REDIS
from .plan import WINDOW, answer_of

app = Celery("bench", broker=os.environ[REDIS], backend=os.environ[REDIS])
app.conf.update(
    worker_prefetch_multiplier=WINDOW,
    result_expires=60,
    task_serializer="json",
    result_serializer="json",
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


def _speak(text: str) -> str:
    return answer_of(text.encode()).decode()


speak: Any = app.task(_speak, name="speak")
