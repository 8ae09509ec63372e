"""The error tree: one small class per thing that can go wrong, with one code for all surfaces.

A failure keeps its code wherever it shows: in a FAILED message on the wire, in an HTTP body, and in
the single line a command prints. The code is the contract; the sentence is for people and says what
to do. `retryable` tells a caller whether trying again unchanged can help; the broker and the client
obey it. Every class registers itself by code, so a code read off the wire becomes the same class.
"""

from __future__ import annotations

from typing import ClassVar


class BusError(Exception):
    """Base of every error voicebus raises on purpose.

    `message` is one sentence for a person. `retry_after_s` is set where waiting helps.
    """

    code: ClassVar[str] = "engine_error"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    by_code: ClassVar[dict[str, type[BusError]]] = {}

    def __init__(self, message: str = "", *, retry_after_s: float | None = None) -> None:
        self.message = message or (type(self).__doc__ or self.code).splitlines()[0]
        self.retry_after_s = retry_after_s
        super().__init__(self.message)

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        BusError.by_code.setdefault(cls.code, cls)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def __reduce__(self) -> tuple[object, ...]:
        return error_from_code, (self.code, self.message, self.retry_after_s)


class BadRequest(BusError):
    """The request itself is wrong."""

    code = "bad_request"
    http_status = 400


class ProtocolError(BusError):
    """A message does not follow VB1."""

    code = "protocol_error"
    http_status = 400


class Unauthorized(BusError):
    """No valid credentials came with the request."""

    code = "unauthorized"
    http_status = 401


class KeyRefused(Unauthorized):
    """A broker does not take the key that was shown to it, or asks for one."""


class Forbidden(BusError):
    """The credentials do not allow this."""

    code = "forbidden"
    http_status = 403


class UnknownVoice(BusError):
    """No voice has this id."""

    code = "unknown_voice"
    http_status = 404


class UnknownEngine(BusError):
    """No worker ever registered this engine."""

    code = "unknown_engine"
    http_status = 404


class UnknownJob(BusError):
    """No job has this id."""

    code = "unknown_job"
    http_status = 404


class Conflict(BusError):
    """The id is already used for something else."""

    code = "conflict"
    http_status = 409


class TextTooLong(BusError):
    """The text is longer than the limit."""

    code = "text_too_long"
    http_status = 413


class RateLimited(BusError):
    """Too many requests."""

    code = "rate_limited"
    http_status = 429
    retryable = True


class Cancelled(BusError):
    """The job was cancelled."""

    code = "cancelled"
    http_status = 499


class ClientLost(BusError):
    """The client was silent for too long, and its jobs were given up."""

    code = "client_lost"
    http_status = 499
    retryable = True


class StorageError(BusError):
    """What has to be kept cannot be written or read."""

    code = "storage_error"
    http_status = 507
    retryable = True


class EngineError(BusError):
    """The engine failed on this job."""

    code = "engine_error"
    http_status = 500


class PoisonJob(BusError):
    """The job brought down every worker that tried it."""

    code = "poison_job"
    http_status = 500


class ModelMissing(BusError):
    """The engine's model files are not on this machine."""

    code = "model_missing"
    http_status = 503


class WorkerLost(BusError):
    """The worker vanished after part of the audio had been delivered."""

    code = "worker_lost"
    http_status = 502
    retryable = True


class Overloaded(BusError):
    """The bus has more work than it may hold."""

    code = "overloaded"
    http_status = 503
    retryable = True


class NoWorker(BusError):
    """No worker for this engine is connected."""

    code = "no_worker"
    http_status = 503
    retryable = True


class BrokerUnreachable(BusError):
    """No broker answers at this address."""

    code = "broker_unreachable"
    http_status = 503
    retryable = True


class DeadlineExceeded(BusError):
    """The job did not finish within its deadline."""

    code = "deadline_exceeded"
    http_status = 504


class ConfigError(BusError):
    """The configuration is wrong; nothing was started."""

    code = "config_error"
    http_status = 500


def error_from_code(code: str, message: str, retry_after_s: float | None = None) -> BusError:
    """Rebuild the error a peer sent. An unknown code becomes an `EngineError` naming it."""
    cls = BusError.by_code.get(code)
    if cls is None:
        return EngineError(f"[{code}] {message}", retry_after_s=retry_after_s)
    return cls(message, retry_after_s=retry_after_s)
