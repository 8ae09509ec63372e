"""What the edge answers to, said once: a table drives the router, the limits and the OpenAPI document.

A route that is in a table is served, counted and described; there is no other way to add one, so the
description cannot fall behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
from aiohttp.typedefs import Handler

from ..common.errors import (
    BadRequest,
    BusError,
    EngineError,
    Forbidden,
    Overloaded,
    RateLimited,
    Unauthorized,
)
from .problems import BodyTooLarge, RequestTimeout, Shape, UnsupportedMediaType

if TYPE_CHECKING:
    from ..common.apikeys import Scope

JSON: Final = "application/json"
FORM: Final = "multipart/form-data"


@dataclass(frozen=True, slots=True)
class Answer:
    """One way a route answers well."""

    about: str
    media_types: tuple[str, ...] = (JSON,)
    type: Any = None
    "Of a JSON body; None: bytes, or nothing at all without a media type."
    status: int = 200


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path."""

    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    answers: tuple[Answer, ...]
    errors: tuple[type[BusError], ...] = ()
    "Those of its own; what every route of its kind can answer is added in `all_errors`."
    body: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    form: type[msgspec.Struct] | None = None
    about: str = ""
    counted: bool = True
    "Whether it counts against the limits of requests."
    speaks: bool = False
    "Whether it takes one of the places for what is done at once."
    streams: bool = False
    "Whether its body is written as it comes, so that HEAD has no answer."
    door: Literal["key", "open", "own"] = "key"
    """Who is let in, where keys are asked for. `key`: whoever has one with the scope; `open`: everybody,
    though the handler may tell more to a key with the scope; `own`: the handler looks for the key itself."""
    scope: Scope | None = None
    "What a key must have been made for; None: any key will do."
    shape: Shape = "problem"
    "How its clients read errors."
    described: bool = True
    "Whether it is in the OpenAPI document: not a WebSocket, nor a path that is another one with a slash."

    @property
    def all_errors(self) -> tuple[type[BusError], ...]:
        """Everything that can go wrong, each once."""
        errors = [*self.errors]
        if self.body is not None or self.form is not None:
            errors += [BadRequest, RequestTimeout, BodyTooLarge, UnsupportedMediaType, Overloaded]
        if self.query is not None or "{" in self.path:
            errors.append(BadRequest)
        if self.door != "open":
            errors.append(Unauthorized)
            if self.scope is not None:
                errors.append(Forbidden)
        if self.counted:
            errors.append(RateLimited)
        if self.speaks:
            errors.append(Overloaded)
        return tuple(dict.fromkeys([*errors, EngineError]))
