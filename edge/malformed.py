"""What is no HTTP, answered in the words of everything else: aiohttp refuses it before any handler sees it.

aiohttp's own answer is a line of plain text with a piece of what was sent, and its log has that piece too,
which may be somebody's key. Here the answer is a problem with the stable code, and the log has the kind of
mistake.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import (
    ContentLengthError,
    HttpProcessingError,
    LineTooLong,
    TransferEncodingError,
)

from ..common.errors import BadRequest, EngineError
from .headers import ID
from .problems import answer
from .requests import new_id

log = logging.getLogger(__name__)

BROKEN: Final = "this is no HTTP request that can be understood"
WHY: Final[Mapping[type[BaseException], str]] = {
    LineTooLong: "a line of the request or of its header is too long",
    ContentLengthError: "the body's length is not what the header says",
    TransferEncodingError: "the body is not encoded as the header says",
}


class Handler(web.RequestHandler):
    """aiohttp's protocol for one connection."""

    __slots__ = ("_headers",)

    def __init__(self, manager: web.Server, headers: Mapping[str, str], **options: Any) -> None:
        super().__init__(manager, **options)
        self._headers = headers

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Somebody's torn body is no fault here and needs no traceback."""
        if isinstance(kw.get("exc_info"), web.RequestPayloadError | HttpProcessingError):
            log.info("a body broke off, or was not encoded as its header said")
        else:
            super().log_exception(*args, **kw)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never came to a handler, or was raised past all of them; then close the connection."""
        id = new_id()
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is on its way already")
        if status >= 500:
            log.error("request %s failed outside of all handlers", id, exc_info=exc)
            error = EngineError(f"something went wrong here; the log has more under {id}")
        else:
            said = next((why for kind, why in WHY.items() if isinstance(exc, kind)), BROKEN)
            log.info("%s sent what is no request (%s) id=%s", request.remote, type(exc).__name__, id)
            error = BadRequest(said)
        made = answer(error, id)
        made.headers.update(self._headers)
        made.headers[ID] = id
        made.force_close()
        return made
