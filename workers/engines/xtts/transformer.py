"""GPT-2 as XTTS uses it, with keys and values that are written in place.

Transformers' own forward pass appends to its cache by making it anew at each step, which at eight rows moves
as many bytes as a fifth of the weights, and its shapes change with every token, so that no step can be
recorded on a GPU. Here a row's keys and values stay where they are. The weights are those of coqui's module,
and so is what is computed; only the steps between are ours. Transformers' `StaticCache` would serve as well,
but lets no row leave, and the names by which its models take a cache change between releases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from .. import coqui

GROWTH: Final = 128
"""Positions that a cache grows by when it is full."""


class Cache:
    """Keys and values of the positions that each row has heard, and which of these are padding."""

    def __init__(self, transformer: Transformer, rows: int, length: int = 0) -> None:
        """Make room for rows of `length` positions; more is made as it is needed."""
        self._torch = coqui.torch()
        self._shape = (transformer.layers, transformer.heads, transformer.size)
        self._options: dict[str, Any] = {"dtype": transformer.dtype, "device": transformer.device}
        self.rows = rows
        self.filled = 0
        self._room = self._make(rows, length)
        self.open: Any = self._torch.zeros(rows, length, dtype=self._torch.bool, device=transformer.device)
        "Rows × positions: whether there is something to hear. What was padded, or is to come, is not."
        self.padded = False

    @property
    def length(self) -> int:
        """Positions that there is room for."""
        return int(self._room.shape[4])

    def reserve(self, length: int) -> None:
        """Have room for so many positions."""
        if length <= self.length:
            return
        torch, old, filled = self._torch, self._room, self.filled
        more = max(length, self.length + GROWTH)
        self._room = self._make(self.rows, more)
        self._room[..., :filled, :] = old[:, :, : self.rows, :, :filled]
        opened = torch.zeros(self.rows, more, dtype=torch.bool, device=self.open.device)
        opened[:, :filled] = self.open[: self.rows, :filled]
        self.open = opened

    def begin(self, lengths: Sequence[int]) -> None:
        """Forget all; what is heard first will be rows of these lengths, padded on the left."""
        longest = max(lengths)
        self.reserve(longest)
        self.rows, self.filled = len(lengths), 0
        self.open.zero_()
        self.padded = min(lengths) < longest
        for row, length in enumerate(lengths):
            self.open[row, longest - length : longest] = True

    def layers(self, rows: int, length: int) -> list[tuple[Any, Any]]:
        """Each layer's keys and values, rows × heads × positions × size: the memory itself, no copies."""
        return [(keys[:rows, :, :length], values[:rows, :, :length]) for keys, values in self._room]

    def keep(self, places: Sequence[int]) -> None:
        """Go on with these rows alone, which are in order."""
        for new, old in enumerate(places):
            if new != old:
                self._room[:, :, new, :, : self.filled] = self._room[:, :, old, :, : self.filled]
                self.open[new] = self.open[old]
        self.rows = len(places)

    def wipe(self) -> None:
        """Leave nothing behind that is not a number: what is hidden is weighed with nothing, and added."""
        self._room.zero_()

    def _make(self, rows: int, length: int) -> Any:
        layers, heads, size = self._shape
        return self._torch.empty(layers, 2, rows, heads, length, size, **self._options)


class Transformer:
    """The layers of a `GPT2Model`."""

    def __init__(self, gpt: Any) -> None:
        """Take the module as it is: on its device and in its precision."""
        first = gpt.h[0].attn
        weight = first.c_attn.weight
        self._functional = coqui.module("torch.nn.functional")
        self._blocks: list[Any] = list(gpt.h)
        self._last_norm = gpt.ln_f
        self.dtype = weight.dtype
        self.device = weight.device
        self.layers = len(self._blocks)
        self.heads = int(first.num_heads)
        self.size = int(first.head_dim)

    def hear(self, heard: Any, cache: Cache) -> Any:
        """Hear rows × positions × channels after what is in the cache, and return the same shape."""
        begin, end = cache.filled, cache.filled + int(heard.shape[1])
        cache.reserve(end)
        if begin:
            cache.open[: cache.rows, begin:end] = True
        layers = cache.layers(cache.rows, end)

        def put(room: Any, new: Any) -> None:
            room[:, :, begin:] = new

        out = self.run(heard, layers, put, self._mask(cache, begin, end))
        cache.filled = end
        return out

    def run(
        self, heard: Any, layers: Sequence[tuple[Any, Any]], put: Callable[[Any, Any], None], mask: Any
    ) -> Any:
        """Compute all layers. `put` writes new keys or values to their places in a layer's memory."""
        rows, length, channels = heard.shape
        attend, gelu = self._functional.scaled_dot_product_attention, self._functional.gelu
        shape = (rows, length, 3, self.heads, self.size)
        for block, (keys, values) in zip(self._blocks, layers, strict=True):
            parts = block.attn.c_attn(block.ln_1(heard)).view(shape).permute(2, 0, 3, 1, 4)
            put(keys, parts[1])
            put(values, parts[2])
            seen = attend(parts[0], keys, values, attn_mask=mask)
            heard = heard + block.attn.c_proj(seen.transpose(1, 2).reshape(rows, length, channels))
            wide = gelu(block.mlp.c_fc(block.ln_2(heard)), approximate="tanh")
            heard = heard + block.mlp.c_proj(wide)
        return self._last_norm(heard)

    def _mask(self, cache: Cache, begin: int, end: int) -> Any:
        """What may be looked at: one position looks at all that is there, several each at those before."""
        torch = coqui.torch()
        seen = cache.open[: cache.rows, None, None, :end]
        if end - begin == 1:
            return seen if cache.padded else None
        places = torch.arange(end, device=self.device)
        own = places[begin:, None]
        # A padded position looks at itself: looking at nothing is not a number, and that would spread.
        return (seen & (places <= own)) | (places == own)
