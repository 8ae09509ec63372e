"""All targets by name."""

from __future__ import annotations

from itertools import chain
from typing import Final

from tests.fuzz import core_targets, document_targets, edge_targets, speech_targets, wire_targets
from tests.fuzz.target import Target

TARGETS: Final[dict[str, Target]] = {
    target.name: target
    for target in chain(
        wire_targets.TARGETS,
        core_targets.TARGETS,
        document_targets.TARGETS,
        edge_targets.TARGETS,
        speech_targets.TARGETS,
    )
}
