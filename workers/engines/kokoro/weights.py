"""Read tensors out of a PyTorch checkpoint without PyTorch and without trusting it.

A `.pt` file is pickled, and a pickle may call anything when it is loaded. Here the unpickler knows a
handful of names, all of them about rebuilding a tensor from stored numbers; any other name is refused.
Both containers are read: the ZIP layout that PyTorch writes since 1.6 and the plain stream from before. What
is read takes no more memory than the file does on disk: members are not packed, and tensors do not claim more
numbers than are stored.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

_DTYPES: Final[dict[str, str]] = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}
_LEGACY_MAGIC: Final = 0x1950A86A20F9469CFC6C


@dataclass(slots=True)
class _Storage:
    """A run of numbers that tensors point into; of the old stream it is filled after the tensors are made."""

    dtype: str
    count: int
    data: NDArray[Any] | None = None


@dataclass(slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self) -> FloatArray:
        data = self.storage.data
        if data is None:
            raise pickle.UnpicklingError("a tensor refers to numbers that the file does not hold")
        if math.prod(self.shape) > data.size or min(self.shape, default=0) < 0:
            raise pickle.UnpicklingError("a tensor claims more numbers than are stored")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        if self.offset < 0 or min(self.stride, default=0) < 0 or last >= data.size:
            raise pickle.UnpicklingError("a tensor reaches outside its stored numbers")
        strides = [s * data.itemsize for s in self.stride]
        view = np.lib.stride_tricks.as_strided(data[self.offset :], self.shape, strides, writeable=False)
        return np.ascontiguousarray(view, dtype=np.float32)


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(stride))


def _rebuild_parameter(tensor: _Tensor, *_: object) -> _Tensor:
    return tensor


_ALLOWED: Final[dict[tuple[str, str], object]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}


@dataclass(slots=True)
class _Storages:
    """Answers the pickle's references to storages and remembers each by its key."""

    fill: Callable[[str, _Storage], None] | None = None
    by_key: dict[str, _Storage] = field(default_factory=dict[str, _Storage])

    def find(self, reference: object) -> _Storage:
        if not isinstance(reference, tuple):
            raise pickle.UnpicklingError("the file refers to something other than a tensor's numbers")
        kind, dtype, key, _location, count, *_view = cast("tuple[Any, ...]", reference)
        if kind != "storage" or not isinstance(dtype, str):
            raise pickle.UnpicklingError("the file refers to something other than a tensor's numbers")
        if key not in self.by_key:
            self.by_key[str(key)] = storage = _Storage(dtype, int(count))
            if self.fill is not None:
                self.fill(str(key), storage)
        return self.by_key[str(key)]


class _TensorUnpickler(pickle.Unpickler):
    """Rebuilds tensors and plain containers, nothing else."""

    def __init__(self, stream: BinaryIO, storages: _Storages) -> None:
        super().__init__(stream, encoding="latin1")
        self._storages = storages

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"the file asks for {module_name}.{global_name}") from None

    def persistent_load(self, pid: object) -> _Storage:
        return self._storages.find(pid)


def _read_zip(archive: zipfile.ZipFile) -> object:
    if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
        raise pickle.UnpicklingError("its members are packed, which those of checkpoints are not")
    index = next((name for name in archive.namelist() if name.endswith("/data.pkl")), "/data.pkl")
    root = index[: -len("data.pkl")]

    def fill(key: str, storage: _Storage) -> None:
        storage.data = np.frombuffer(archive.read(f"{root}data/{key}"), dtype=storage.dtype)

    return _TensorUnpickler(io.BytesIO(archive.read(index)), _Storages(fill)).load()


def _read_stream(stream: BinaryIO) -> object:
    storages = _Storages()
    if _TensorUnpickler(stream, storages).load() != _LEGACY_MAGIC:
        raise pickle.UnpicklingError("the file is no PyTorch checkpoint")
    _TensorUnpickler(stream, storages).load()  # protocol number
    _TensorUnpickler(stream, storages).load()  # sizes of the writer's C types; little-endian is all we take
    content = _TensorUnpickler(stream, storages).load()
    for key in _TensorUnpickler(stream, storages).load():
        storage = storages.by_key[str(key)]
        (count,) = struct.unpack("<q", stream.read(8))
        raw = stream.read(count * np.dtype(storage.dtype).itemsize)
        storage.data = np.frombuffer(raw, dtype=storage.dtype)
    return content


def read_tensors(path: Path, entry: str) -> dict[str, FloatArray]:
    """Return the tensors of the state dict stored under `entry`, as float32 arrays by name.

    Raises `ValueError` naming the file where it is damaged, asks for anything but tensors or has no such
    entry, and `OSError` where it cannot be opened.
    """
    with path.open("rb") as stream:
        try:
            if zipfile.is_zipfile(stream):
                with zipfile.ZipFile(stream) as archive:
                    content = _read_zip(archive)
            else:
                stream.seek(0)
                content = _read_stream(stream)
            state = cast("Mapping[str, Mapping[str, object]]", content)[entry]
            return {name: value.array() for name, value in state.items() if isinstance(value, _Tensor)}
        except pickle.UnpicklingError as error:
            raise ValueError(f"{path} is refused: {error}") from error
        except Exception as error:  # a pickle's words may be put together in any way, and stumble anywhere
            raise ValueError(f"{path} is damaged ({type(error).__name__}: {error})") from error
