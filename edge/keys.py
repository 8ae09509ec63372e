"""Who asks: a caller by their key, where the operator has given out any, and what they may do.

OpenAI's clients send `Authorization: Bearer`, ElevenLabs's `xi-api-key`. A browser can set neither on a
WebSocket, so there the key may come as a subprotocol, which unlike a query does not end in logs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..common.apikeys import SCOPES, ApiKeys, has_expired
from ..common.errors import Forbidden, Unauthorized

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..common.apikeys import ApiKey, Scope
    from ..common.config import Edge

IN_SUBPROTOCOL: Final = "voicebus.key."


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may ask. `key` is their key's id, `rpm` and `chars_per_day` its quotas."""

    key: str = ""
    name: str = ""
    tenant: str = ""
    rpm: int | None = None
    chars_per_day: int | None = None
    scopes: tuple[Scope, ...] = ()

    def need(self, scope: Scope | None) -> None:
        """Raise `Forbidden` where their key was not made for this."""
        if scope is not None and scope not in self.scopes:
            raise Forbidden(
                f"this API key lacks the scope {scope!r}: ask for one that is made with --scope {scope}"
            )


NOBODY: Final = Caller(scopes=SCOPES)
"""Somebody where no keys are asked for: they may do everything."""
STRANGER: Final = Caller()
"""Somebody without a key, where keys are asked for."""


class Keys:
    """The keys of an edge; without a file of them everybody is let in."""

    def __init__(self, edge: Edge) -> None:
        self._keys = ApiKeys(edge.api_keys) if edge.api_keys is not None else None

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Who has sent these headers. Raises `Unauthorized`."""
        if self._keys is None:
            return NOBODY
        return self.holder(key_in(headers))

    def caller_or_stranger(self, headers: Mapping[str, str]) -> Caller:
        """The same for what is open to everybody, and tells more to those who are known."""
        try:
            return self.caller(headers)
        except Unauthorized:
            return STRANGER

    def holder(self, key: str) -> Caller:
        """Whose key this is. Raises `Unauthorized`."""
        if self._keys is None:
            return NOBODY
        if not key:
            raise Unauthorized("an API key is needed: send it as `Authorization: Bearer KEY`")
        found = self._keys.find(key)
        if found is None:
            raise Unauthorized("this API key is not known here, or was revoked")
        _refuse_expired(found)
        return Caller(found.id, found.name, found.tenant, found.rpm, found.chars_per_day, found.scopes)

    def still(self, caller: Caller) -> None:
        """Raise `Unauthorized` where a key that was good when a connection began is good no more."""
        if self._keys is None or not caller.key:
            return
        found = self._keys.get(caller.key)
        if found is None:
            raise Unauthorized("this API key was revoked")
        _refuse_expired(found)


def _refuse_expired(key: ApiKey) -> None:
    """Only a key's holder gets so far: to all others an expired key is one that is not known."""
    if key.expires is not None and has_expired(key):
        raise Unauthorized(f"this API key expired at {key.expires:%Y-%m-%dT%H:%M:%SZ}: ask for a new one")


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
