"""Keys and values of a batch's tokens, in buffers that a decoding step writes into.

A DynamicCache copies all it holds at each step to append one token; here a step writes in place,
and a buffer grows by doubling:

    row 0  a b c d e | f g . .        columns up to `length` are in use, the rest is room
    row 1  - - a b c | d e . .        -: left padding, zero
"""

from typing import Any

import torch
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

_SPARE_COLUMNS = 64  # columns, at least, that a buffer has beyond what it was made for


class BufferedLayer(DynamicLayer):
    """The keys and values of one attention layer, `(rows, heads, columns, width)`.

    `keys` and `values` are the buffers; the first `length` columns of them are in use. Layers of a
    sliding window keep all columns too: the mask hides what the window has left behind.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.length = 0

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.length

    def reserve(self, rows: int, columns: int, like: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Have room for `columns`, in tensors like these keys and values; what is there stays."""
        if self.is_initialized and self.keys.shape[2] >= columns:
            return
        size = max(columns, 2 * self.length) + _SPARE_COLUMNS
        buffers = []
        for name, tensor in zip(("keys", "values"), like, strict=True):
            buffer = tensor.new_empty(rows, tensor.shape[1], size, tensor.shape[3])
            if self.is_initialized:
                buffer[:, :, : self.length] = getattr(self, name)[:, :, : self.length]
            buffers.append(buffer)
        self.keys, self.values = buffers
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append columns to all rows; returns all keys and values, as views."""
        end = self.length + key_states.shape[2]
        self.reserve(key_states.shape[0], end, (key_states, value_states))
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def compact(self, rows: torch.Tensor, first_column: int) -> None:
        """Keep these rows, without the columns before `first_column`, which are padding in all."""
        self.keys = self.keys[rows, :, first_column:]
        self.values = self.values[rows, :, first_column:]
        self.length -= first_column


def buffered_cache(model: PreTrainedModel) -> Cache | None:
    """An empty cache of buffers for `model`; None where its layers keep more than keys and values
    (linear attention, convolution states), which a DynamicCache serves.
    """
    layers = DynamicCache(config=model.config).layers
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        return None
    return Cache(layers=[BufferedLayer() for _ in layers])


def collecting_cache(cache: Cache) -> Cache:
    """An empty cache that keeps all keys and values of a row, for `copy_into_rows` of `cache`."""
    return Cache(layers=[DynamicLayer() for _ in cache.layers])


def copy_into_rows(
    cache: Cache,
    collected: Cache,
    rows: int,
    columns: int,
    places: list[tuple[int, int, int, int]],
    room: int = 0,
) -> None:
    """Copy spans of a collected row into the rows of a cache of buffers; before them is padding.

    Args:
        cache: of `rows` rows, of which `columns` columns are then in use.
        collected: keys and values of one row.
        rows: of the cache.
        columns: of the cache.
        places: (row, column to begin at, start and stop in the collected row).
        room: columns that will be in use soon.
    """
    for layer, row in zip(cache.layers, collected.layers, strict=True):
        keys, values = getattr(row, "keys", None), getattr(row, "values", None)
        if keys is None or values is None:  # it reads another layer's
            continue
        assert isinstance(layer, BufferedLayer)  # as `buffered_cache` made it
        layer.reserve(rows, max(columns, room), (keys, values))
        for place, column, start, stop in places:
            end = column + stop - start
            layer.keys[place, :, column:end] = keys[0, :, start:stop]
            layer.values[place, :, column:end] = values[0, :, start:stop]
            # A masked column counts nothing only as long as it holds no NaN.
            layer.keys[place, :, :column] = 0
            layer.values[place, :, :column] = 0
        layer.length = columns


def bytes_per_token(model: PreTrainedModel) -> int:
    """What the keys and values of one token take."""
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize
