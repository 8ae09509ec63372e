"""Which engines are installed: the entry point group `voicebus.engines`, read without importing any of them.

Any installed package may add an engine under a name; `pip install` is all it takes.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points, metadata
from typing import TYPE_CHECKING, Any, Final, cast

from ..common.errors import ConfigError

if TYPE_CHECKING:
    from .engine import Engine

GROUP: Final = "voicebus.engines"


def installed() -> list[str]:
    """Names of all engines, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def find(name: str) -> EntryPoint:
    """Return the entry point of an engine; raise `ConfigError` naming those that are installed."""
    for point in entry_points(group=GROUP):
        if point.name == name:
            return point
    known = ", ".join(installed()) or "none"
    raise ConfigError(f"no engine is called {name!r}: installed are {known}")


def remedy(name: str) -> str:
    """What to do when an engine lacks a package: ours are extras of voicebus, others must say themselves."""
    extras = metadata("voicebus").get_all("Provides-Extra") or []
    if name.replace("_", "-") in {extra.replace("_", "-") for extra in extras}:
        return f"install it with pip install 'voicebus[{name}]'"
    return "install what this engine's documentation asks for"


def create(name: str) -> Engine[Any]:
    """Import an engine's module and make the engine, not yet loaded.

    Raises `ConfigError` for an unknown name, and for a module that cannot be imported.
    """
    from .engine import Engine

    point = find(name)
    try:
        cls: object = point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"engine {name!r} cannot be imported ({error}): {remedy(name)}") from error
    if not (isinstance(cls, type) and issubclass(cls, Engine)):
        raise ConfigError(f"the entry point {point.value!r} of engine {name!r} is not a subclass of Engine")
    return cast("type[Engine[Any]]", cls)()
