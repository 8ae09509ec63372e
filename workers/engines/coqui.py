"""The one door through which torch and coqui's TTS package come into voicebus.

Both are optional, large and untyped. Every engine that needs them asks here, so that the rest of the tree
imports, type-checks and is tested without them. A package that is not installed shows as the
`ModuleNotFoundError` it is: the engine host names the extra that brings it. Weights are read here too,
always as plain tensors: a checkpoint from somewhere must not be able to run code. No setting lifts that, for
no checkpoint of these engines needs more.
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import re
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from zipfile import ZIP_STORED, BadZipFile, ZipFile, is_zipfile

from ...common.errors import ConfigError, ModelMissing
from ..engine import is_out_of_memory

NOISY: Final = ("TTS", "trainer", "transformers", "numba", "matplotlib", "jieba", "fsspec", "torchaudio")
"""Loggers that tell a worker's operator nothing."""
SAFE_READER: Final = (2, 10)
"""From this release on PyTorch reads plain tensors safely: before 2.6 a file could run code all the same
(CVE-2025-32434), before 2.10 overwrite memory (CVE-2026-24747)."""

_prepared = False


def torch() -> Any:
    """Return the module torch."""
    return importlib.import_module("torch")


def prepare() -> None:
    """Make `import TTS` work and keep quiet; costs nothing the second time."""
    global _prepared
    if _prepared:
        return
    # It sets its own loggers' level when it is first imported, whatever that was before.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    # Deprecations inside other people's packages: nobody who runs a worker can do anything about them.
    for package in ("torch", "TTS", "torchaudio", "transformers", "librosa", "jieba", "pkg_resources"):
        warnings.filterwarnings("ignore", module=rf"{package}(\.|$)")
    torch()
    _import_torchaudio()
    _prepared = True


def module(name: str) -> Any:
    """Return one of coqui's modules, or torchaudio."""
    prepare()
    return importlib.import_module(name)


def device(wanted: str) -> Any:
    """Return a torch device: 'auto' is the first GPU where there is one, else the CPU.

    Raises `ConfigError` for a device this machine does not have.
    """
    lib = torch()
    found = _devices(lib)
    if wanted == "auto":
        return lib.device("cuda:0" if "cuda:0" in found else "cpu")
    try:
        chosen = lib.device(wanted)
    except RuntimeError:
        chosen = None
    if chosen is not None:
        if chosen.type == "cuda" and chosen.index is None and "cuda:0" in found:
            return lib.device("cuda:0")
        name = "cpu" if chosen.type == "cpu" else str(chosen)
        if name in found:
            return lib.device(name)
    raise ConfigError(f"there is no device {wanted!r} here; set device to auto or one of: {', '.join(found)}")


def set_threads(count: int) -> None:
    """Bound the threads one operation on the CPU takes."""
    torch().set_num_threads(count)


def device_figures(device: Any) -> dict[str, int | float]:
    """What this process holds of a GPU's memory, for a worker's figures; nothing where it is no GPU."""
    if device.type != "cuda":
        return {}
    return {"device_bytes": int(torch().cuda.memory_reserved(device))}


def limit_device_memory(device: Any, mib: int | None) -> None:
    """Take no more of a GPU's memory than this; asking for more is running out of it."""
    lib = torch()
    if device.type == "cuda" and mib is not None:
        total = lib.cuda.get_device_properties(device).total_memory
        lib.cuda.set_per_process_memory_fraction(min(1.0, mib * 2**20 / total), device)


def load_weights(path: Path) -> Any:
    """Read a checkpoint onto the CPU, tensors and plain containers alone.

    Raises `ModelMissing` for a file that is damaged or holds anything else, and `ConfigError` where this
    PyTorch cannot tell.
    """
    lib = torch()
    _check_reader(str(lib.__version__))
    try:
        _check_members(path)
        return lib.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelMissing(
            f"{path} is refused: it is damaged, or holds Python objects besides weights, which could run code"
        ) from error
    except (EOFError, BadZipFile, RuntimeError, ValueError, KeyError) as error:
        if is_out_of_memory(error):
            raise
        if "weights_only" in str(error):
            raise ModelMissing(
                f"{path} is refused: it holds a program (TorchScript) or objects (tar) besides weights"
            ) from error
        raise ModelMissing(f"{path} is damaged: fetch it again ({_first_line(error)})") from error
    except OSError as error:
        raise ModelMissing(f"{path} cannot be read: {error.strerror or error}") from error


def _check_reader(version: str) -> None:
    release = re.match(r"(\d+)\.(\d+)", version)
    if release is None or (int(release[1]), int(release[2])) < SAFE_READER:
        least = ".".join(map(str, SAFE_READER))
        raise ConfigError(f"PyTorch {version} lets a file of weights run code: install {least} or later")


def _check_members(path: Path) -> None:
    """Refuse an archive that is larger inside than outside: PyTorch packs nothing.

    Raises `ModelMissing`, and what a damaged archive leads to.
    """
    with path.open("rb") as file:
        if not is_zipfile(file):
            return
        with ZipFile(file) as archive:
            members = archive.infolist()
    whole_bytes = path.stat().st_size
    if sum(member.file_size for member in members) > whole_bytes or any(
        member.compress_type != ZIP_STORED for member in members
    ):
        raise ModelMissing(f"{path} is refused: its members are packed, which those of checkpoints are not")


def _devices(lib: Any) -> list[str]:
    found = ["cpu"]
    if lib.cuda.is_available():
        found += [f"cuda:{index}" for index in range(int(lib.cuda.device_count()))]
    mps = getattr(lib.backends, "mps", None)
    if mps is not None and mps.is_available():
        found.append("mps")
    return found


def _import_torchaudio() -> None:
    """Import torchaudio, and without its native part where that cannot be loaded.

    PyPI's torchaudio is linked against CUDA, which a torch for the CPU does not bring. What coqui needs of
    it (resampling, mel spectra) is plain Python.
    """
    try:
        importlib.import_module("torchaudio")
    except OSError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
    else:
        return
    extension: Any = ModuleType("torchaudio._extension")
    extension._IS_TORCHAUDIO_EXT_AVAILABLE = False
    extension._IS_ALIGN_AVAILABLE = False
    extension._check_cuda_version = _nothing
    extension.fail_if_no_align = _unchanged
    extension.__path__ = []
    extension.utils = ModuleType("torchaudio._extension.utils")
    sys.modules["torchaudio._extension"] = extension
    sys.modules["torchaudio._extension.utils"] = extension.utils
    importlib.import_module("torchaudio")


def _nothing() -> None:
    """There is no CUDA build whose version could be wrong."""


def _unchanged(function: Any) -> Any:
    return function


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
