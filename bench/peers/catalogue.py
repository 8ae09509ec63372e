"""All systems, in the order in which they are measured and shown."""

from __future__ import annotations

from typing import Final

from . import (
    celery_tasks,
    http_gateway,
    ipyparallel_tasks,
    nats_requests,
    proxy,
    rabbitmq_rpc,
    ray_actor,
    redis_lists,
    voicebus_rows,
)
from .systems import System

SYSTEMS: Final[tuple[System, ...]] = (
    *voicebus_rows.SYSTEMS,
    proxy.SYSTEM,
    *nats_requests.SYSTEMS,
    *redis_lists.SYSTEMS,
    rabbitmq_rpc.SYSTEM,
    ray_actor.SYSTEM,
    *ipyparallel_tasks.SYSTEMS,
    celery_tasks.SYSTEM,
    *http_gateway.SYSTEMS,
)
