"""Who may say what: the roles that keys are bound to, the door each comes in by, and what is said there.

There are two doors, a socket each. A key is let in only where its role belongs, so a client's key cannot
register as a worker and a worker's cannot submit; which kinds of message a door takes is a table. What is
left to tell apart at the clients' door is ADMIN: its commands are bound to roles, and a key that is bound to
a tenant submits for that one alone and sees no other's jobs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..common import wire
from ..common.errors import Forbidden
from ..common.keyring import Role
from ..common.messages import Submit

CLIENTS: Final = "voicebus.clients"
WORKERS: Final = "voicebus.workers"
"""The doors, by their names as ZAP domains."""

LET_IN: Final[dict[str, frozenset[Role]]] = {
    CLIENTS: frozenset({Role.CLIENT, Role.ADMIN}),
    WORKERS: frozenset({Role.WORKER}),
}
SAID: Final[dict[str, frozenset[int]]] = {
    CLIENTS: frozenset({wire.SUBMIT, wire.PING, wire.CANCEL, wire.FETCH, wire.ADMIN, wire.BUNDLE}),
    WORKERS: frozenset({
        wire.READY, wire.HEARTBEAT, wire.STARTED, wire.CHUNK, wire.DONE, wire.SPOKEN, wire.FAILED,
        wire.RETURN, wire.DRAIN, wire.DRAINED, wire.GOODBYE, wire.BUNDLE,
    }),
}  # fmt: skip
"""The kinds of message that each door takes."""
COMMANDS: Final[dict[str, frozenset[Role]]] = {
    "status": frozenset({Role.CLIENT, Role.ADMIN}),
    "jobs": frozenset({Role.CLIENT, Role.ADMIN}),
    "job": frozenset({Role.CLIENT, Role.ADMIN}),
    "cancel": frozenset({Role.CLIENT, Role.ADMIN}),
    "drain": frozenset({Role.ADMIN}),
}
"""The commands of ADMIN, and who may give them."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What a connection may do. `tenant` None: it speaks for any. `holder` is a worker's key, if any."""

    role: Role
    tenant: str | None = None
    holder: str = ""

    def check_command(self, command: str) -> None:
        """Raise `Forbidden` for a command of ADMIN that is another role's."""
        roles = COMMANDS.get(command)
        if roles is not None and self.role not in roles:
            needed = " or ".join(sorted(roles))
            raise Forbidden(
                f"a key with the role {self.role} may not {command}: use one with the role {needed}"
            )

    def check_submit(self, submit: Submit) -> None:
        """Raise `Forbidden` for a job of another tenant."""
        if self.tenant is not None and submit.tenant != self.tenant:
            raise Forbidden(f"this key speaks for the tenant {self.tenant!r}, not for {submit.tenant!r}")

    def sees(self, tenant: str) -> bool:
        """Whether jobs of this tenant may be listed and cancelled."""
        return self.tenant is None or tenant == self.tenant


EVERYTHING: Final = Rights(Role.ADMIN)
"""What everybody may where no keys are asked for."""
