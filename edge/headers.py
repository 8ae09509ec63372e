"""What every answer says of itself, whatever made it: how it may be kept, and where it may appear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..common.config import Edge

ID: Final = "X-Request-Id"
POLICY: Final = (
    "default-src 'none'; media-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of what is no page: opened as one it can load nothing and be framed by nobody."""


def common_headers(edge: Edge) -> Mapping[str, str]:
    """Of an answer that says nothing else."""
    headers = {
        "Server": "voicebus",
        "X-Content-Type-Options": "nosniff",
        # Speech is somebody's. And a shared cache does not know that an answer to `xi-api-key` is private.
        "Cache-Control": "no-store",
        "Content-Security-Policy": POLICY,
        "Referrer-Policy": "no-referrer",
    }
    if not edge.cors_origins:
        # Else a page elsewhere could have an <audio> element fetch what this browser may, and learn from its
        # events which voices there are and how long they are. SillyTavern's page, on another port of the same
        # machine, does so in earnest.
        headers["Cross-Origin-Resource-Policy"] = "same-site"
    if edge.certificate is not None:
        # Only where TLS ends here: the promise of HTTPS is for whoever has the certificate to make.
        headers["Strict-Transport-Security"] = f"max-age={edge.hsts_max_age_s}"
    return headers
