"""Who asks: a caller by their key, where the operator has given out any.

OpenAI's clients send `Authorization: Bearer`, ElevenLabs's `xi-api-key`. A browser can set neither on a
WebSocket, so there the key may come as a subprotocol, which unlike a query does not end in logs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..common.apikeys import ApiKeys
from ..common.errors import Unauthorized

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..common.config import Edge

IN_SUBPROTOCOL: Final = "voicebus.key."


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may ask. `key` is their key's id, `rpm` its quota."""

    key: str = ""
    tenant: str = ""
    rpm: int | None = None


NOBODY: Final = Caller()
"""Somebody where no keys are asked for."""


class Keys:
    """The keys of an edge; without a file of them everybody is let in."""

    def __init__(self, edge: Edge) -> None:
        self._keys = ApiKeys(edge.api_keys) if edge.api_keys is not None else None

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Who has sent these headers. Raises `Unauthorized`."""
        if self._keys is None:
            return NOBODY
        return self.holder(key_in(headers))

    def holder(self, key: str) -> Caller:
        """Whose key this is. Raises `Unauthorized`."""
        if self._keys is None:
            return NOBODY
        if not key:
            raise Unauthorized("an API key is needed: send it as `Authorization: Bearer KEY`")
        found = self._keys.find(key)
        if found is None:
            raise Unauthorized("this API key is not known here, or was revoked")
        return Caller(found.id, found.tenant, found.rpm)


def key_in(headers: Mapping[str, str]) -> str:
    """The key that a request carries, or nothing."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    if named := headers.get("xi-api-key", "").strip():
        return named
    for protocol in headers.get("Sec-WebSocket-Protocol", "").split(","):
        if protocol.strip().startswith(IN_SUBPROTOCOL):
            return protocol.strip().removeprefix(IN_SUBPROTOCOL)
    return ""
