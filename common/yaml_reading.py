"""YAML from people and from elsewhere, read so that it fails in one way only.

PyYAML's safe loader makes no objects, but what a tag or a number that it cannot read raises is whatever its
own code stumbles over: KeyError for `!!bool x`, AttributeError for `!!timestamp x`, IndexError for `!!int ""`
and RecursionError for brackets in brackets. A configuration is refused with a sentence, whatever is in it.

It makes a hundred aliases one object, but whoever walks what it made (to check it, to send it on) walks that
object a hundred times: nine lines of nine aliases each are 400 million strings. So what a document amounts to
is counted before anything is made of it. A key that stands twice, of which YAML's readers take the last, is
refused: one of both is a mistake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from yaml.nodes import Node

_STUMBLES: Final = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip
MAX_SAID: Final = 300
MAX_VALUES: Final = 100_000
"""Values in a document, each counted as often as it is meant."""


def read_yaml(text: str | bytes) -> Any:
    """What a YAML document says. Raises `ValueError` with one line that says what is wrong with it."""
    import yaml

    try:
        loader: Any = yaml.SafeLoader(text)  # its types are incomplete
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _values(node, {}) > MAX_VALUES:
                raise yaml.YAMLError(f"its aliases make it more than {MAX_VALUES:,} values")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:MAX_SAID]) from None
    except _STUMBLES as error:
        raise ValueError(
            f"a value in it cannot be read ({type(error).__name__}: {error})"[:MAX_SAID]
        ) from None


def _values(node: Node, known: dict[int, int]) -> int:
    """How many values a node stands for. Raises `YAMLError` where it stands within itself."""
    from yaml import YAMLError
    from yaml.nodes import MappingNode, ScalarNode, SequenceNode

    if not isinstance(node, MappingNode | SequenceNode):
        return 1
    counted = known.get(id(node))
    if counted == 0:
        raise YAMLError("an alias in it stands for what it is in")
    if counted is None:
        known[id(node)] = 0
        inner: list[Any] = node.value
        if isinstance(node, MappingNode):
            keys = [(key.tag, key.value) for key, _ in inner if isinstance(key, ScalarNode)]
            if len(set(keys)) < len(keys):
                twice = next(name for tag, name in keys if keys.count((tag, name)) > 1)
                raise YAMLError(f"it says {twice[:80]!r} twice")
            inner = [part for pair in inner for part in pair]
        counted = known[id(node)] = 1 + sum(_values(part, known) for part in inner)
    return counted
