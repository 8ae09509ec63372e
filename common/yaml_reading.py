"""YAML from people and from elsewhere, read so that it fails in one way only.

PyYAML's safe loader makes no objects, but what a tag or a number that it cannot read raises is whatever its
own code stumbles over: KeyError for `!!bool x`, AttributeError for `!!timestamp x`, IndexError for `!!int ""`
and RecursionError for brackets in brackets. A configuration is refused with a sentence, whatever is in it.
"""

from __future__ import annotations

from typing import Any, Final

_STUMBLES: Final = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip
MAX_SAID: Final = 300


def read_yaml(text: str | bytes) -> Any:
    """What a YAML document says. Raises `ValueError` with one line that says what is wrong with it."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:MAX_SAID]) from None
    except _STUMBLES as error:
        raise ValueError(
            f"a value in it cannot be read ({type(error).__name__}: {error})"[:MAX_SAID]
        ) from None
