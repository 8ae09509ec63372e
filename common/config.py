"""config.yaml as frozen types: one place that says what may be set, and refuses everything else at start.

Three sources, later ones win: the defaults below, the YAML file, and `VOICEBUS_SECTION__KEY` environment
variables (whose values are read as YAML). A wrong key or type stops the process with one sentence that
names the path in the file and what is allowed there: a typing error must not become a default.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct, field

from .errors import ConfigError
from .messages import VOICE_PATTERN
from .yaml_reading import read_yaml

DEFAULT_FILE: Final = "config.yaml"
ENV_PREFIX: Final = "VOICEBUS_"
MAX_CONFIG_BYTES: Final = 1024 * 1024

S = TypeVar("S", bound=Struct)
Strategy = Literal["lru", "round_robin", "least_load", "random"]
Endpoint = Annotated[str, Meta(pattern=r"^(tcp|ipc|inproc)://.+$")]
Positive = Annotated[float, Meta(gt=0, le=86_400)]
MIB: Final = 1024 * 1024
Bytes = Annotated[int, Meta(ge=65_536)]
_DEVICE: Final = r"(auto|cpu|cuda(:[0-9]+)?|mps)"
DEVICES_PATTERN: Final = rf"^{_DEVICE}(\s*,\s*{_DEVICE})*$"


class Broker(Struct, frozen=True, forbid_unknown_fields=True):
    """The broker: where it listens, how it chooses workers, when it gives up."""

    name: Annotated[str, Meta(max_length=128)] = "broker"
    nice: Annotated[int, Meta(ge=-20, le=19)] = -5
    "Relative to how it was started, as far as the system allows it: see `urgency.py`."
    frontend: Endpoint = "tcp://127.0.0.1:5555"
    backend: Endpoint = "tcp://127.0.0.1:5556"
    strategy: Strategy = "lru"
    default_engine: Annotated[str, Meta(min_length=1, max_length=128)] = "kokoro"
    heartbeat_interval_s: Annotated[float, Meta(ge=0.05, le=60)] = 1.0
    liveness: Annotated[int, Meta(ge=1, le=100)] = 3
    client_timeout_s: Positive = 10.0
    default_deadline_s: Positive = 600.0
    progress_lease_s: Positive = 60.0
    max_attempts: Annotated[int, Meta(ge=1, le=16)] = 3
    max_jobs: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    max_jobs_per_client: Annotated[int, Meta(ge=1, le=10_000_000)] = 20_000
    max_queued_bytes: Bytes = 256 * MIB
    max_queued_bytes_per_client: Bytes = 64 * MIB
    max_unsent_bytes: Bytes = 256 * MIB
    max_unsent_bytes_per_client: Bytes = 64 * MIB
    result_cache_bytes: Annotated[int, Meta(ge=0)] = 64 * MIB
    result_cache_s: Positive = 120.0
    retry_ratio: Annotated[float, Meta(ge=0, le=1)] = 0.2
    retry_floor: Annotated[int, Meta(ge=1, le=100_000)] = 10
    affinity_wait_s: Annotated[float, Meta(ge=0, le=600)] = 2.0
    ageing_s: Positive = 15.0
    journal: str | None = "state"
    journal_max_bytes: Bytes = 10 * 1024 * MIB
    durable_deadline_s: Positive = 86_400.0
    keep_results_s: Annotated[float, Meta(gt=0, le=31_536_000)] = 7 * 86_400.0
    keep_fetched_s: Annotated[float, Meta(gt=0, le=31_536_000)] = 3600.0
    no_worker_grace_s: Annotated[float, Meta(ge=0, le=86_400)] = 30.0
    drain_timeout_s: Positive = 60.0


class Worker(Struct, frozen=True, forbid_unknown_fields=True):
    """One engine's workers on this machine: how many agents, how many engines each, on what device."""

    count: Annotated[int, Meta(ge=0, le=1024)] = 1
    slots: Annotated[int, Meta(ge=1, le=1024)] = 1
    device: Annotated[str, Meta(pattern=DEVICES_PATTERN)] = "auto"
    "One, or a list with commas: the slots take turns at it."
    heartbeat_interval_s: Annotated[float, Meta(ge=0.05, le=60)] = 1.0
    nice: Annotated[int, Meta(ge=0, le=19)] = 0
    "Of the engines while they speak for listeners; for batch jobs they are nicer."
    agent_nice: Annotated[int, Meta(ge=-20, le=19)] = -5
    "The agent only moves messages. Both are relative to how it was started."
    idle_unload_s: Annotated[float, Meta(gt=0, le=31_536_000)] | None = None
    "How long an engine with nothing to do stays loaded; None keeps it for good."
    accept_cpml: bool = False
    "The operator's word that they agree to the Coqui Public Model Licence of XTTS-v2's weights."
    settings: dict[str, Any] = field(default_factory=dict[str, Any])


OPENAI_VOICES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("alloy", "coral", "fable", "marin", "nova", "sage", "shimmer"), "amber"),
    **dict.fromkeys(("ash", "ballad", "cedar", "echo", "onyx", "verse"), "basil"),
}
"""The thirteen names that OpenAI's clients let through, and the shipped voices that answer to them."""


def _openai_voices() -> dict[str, str]:
    return dict(OPENAI_VOICES)


class Edge(Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP edge: where it listens, who may use it, and how much."""

    enabled: bool = True
    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    wyoming_port: Annotated[int, Meta(ge=0, le=65_535)] | None = None
    "Home Assistant's; None: closed. Its protocol knows no keys."
    global_rpm: Annotated[int, Meta(ge=1)] = 1000
    ip_rpm: Annotated[int, Meta(ge=1)] = 100
    concurrency: Annotated[int, Meta(ge=1)] = 50
    redis: Annotated[str, Meta(pattern=r"^(redis|rediss|unix)://.+$")] | None = None
    "Where several edges count together; None: each in its own memory."
    trusted_proxies: tuple[str, ...] = ()
    "Addresses and networks whose X-Forwarded-For is believed."
    cors_origins: tuple[str, ...] = ()
    'Of pages elsewhere that may call; "*" is every one.'
    host_names: tuple[str, ...] = ()
    'Names it is called by, beside addresses and local ones; "*" is any, as it is where keys are asked for.'
    api_keys: str | None = None
    "A file that `vc keys api` keeps; None: no keys are asked for."
    allow_without_keys: bool = False
    "True lets the edge listen beyond loopback without keys."
    certificate: str | None = None
    "PEM, with its chain; files that are renewed are taken up without a restart."
    certificate_key: str | None = None
    "PEM, not encrypted; None: it is in the certificate's file."
    hsts_max_age_s: Annotated[int, Meta(ge=0, le=315_360_000)] = 31_536_000
    "With a certificate, for how long browsers keep to HTTPS; 0 has them forget it."
    default_models: tuple[str, ...] = (
        "tts-1",
        "tts-1-hd",
        "gpt-4o-mini-tts",
        "gpt-4o-mini-tts-*",
        "eleven_*",
    )
    "Names of models that mean the broker's default engine; `*` is any row of signs."
    aliases: dict[str, Annotated[str, Meta(pattern=VOICE_PATTERN)]] = field(default_factory=_openai_voices)
    "Names of voices elsewhere, and the voices here that answer to them."
    max_chars: Annotated[int, Meta(ge=1, le=1_000_000)] = 16_384
    "Of one request; longer texts are jobs."
    max_body_bytes: Bytes = 8 * MIB
    max_sample_bytes: Bytes = 10 * MIB
    "Of a recording that is sent in as a voice."
    max_connections: Annotated[int, Meta(ge=1)] = 1000
    max_connections_per_ip: Annotated[int, Meta(ge=1)] = 200
    header_timeout_s: Positive = 10.0
    body_timeout_s: Positive = 30.0
    stall_timeout_s: Positive = 30.0
    "How long a client may take no audio."
    jobs: str = "state/edge"
    "Folder of the jobs of POST /v1/jobs and their sound."
    max_jobs: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    keep_jobs_s: Annotated[float, Meta(gt=0, le=31_536_000)] = 7 * 86_400.0


class Voices(Struct, frozen=True, forbid_unknown_fields=True):
    """Where voices are kept: a folder, or any fsspec URL."""

    path: Annotated[str, Meta(min_length=1)] = "voices"
    default: Annotated[str, Meta(pattern=VOICE_PATTERN)] = "amber"
    cache_dir: str | None = None


class Logging(Struct, frozen=True, forbid_unknown_fields=True):
    """One log for all processes of a machine, rotated."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    file: str | None = "logs/voicebus.log"
    format: Literal["text", "json"] = "text"
    max_bytes: Annotated[int, Meta(ge=10_000)] = 10_000_000
    backups: Annotated[int, Meta(ge=0, le=1000)] = 5


class Security(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may reach the bus, and what is written down of those who did."""

    keys: Annotated[str, Meta(min_length=1)] | None = None
    "Folder of `vc keys`; None: the bus is as open as its addresses."
    key: Annotated[str, Meta(min_length=1)] | None = None
    "The key that this process shows to brokers; None: the folder's one for its role."
    allow_insecure_bind: bool = False
    "True lets the broker listen beyond loopback without keys."
    audit: Annotated[str, Meta(min_length=1)] | None = "state/audit.jsonl"
    "File of who added or removed a voice or an API key; None: none is kept."


def _default_workers() -> dict[str, Worker]:
    return {"kokoro": Worker()}


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """All of config.yaml."""

    broker: Broker = Broker()
    workers: dict[str, Worker] = field(default_factory=_default_workers)
    edge: Edge = Edge()
    voices: Voices = Voices()
    logging: Logging = Logging()
    security: Security = Security()


def load_config(
    path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None
) -> Config:
    """Read the configuration; `path` None means ./config.yaml if there is one, else the defaults.

    Relative folders in the file are meant from the file's own folder. Raises `ConfigError`.
    """
    file = Path(path) if path is not None else Path(DEFAULT_FILE)
    raw: dict[str, Any] = {}
    if path is not None or file.is_file():
        raw = _read(file)
    _apply_environment(raw, os.environ if environ is None else environ)
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        source = f"{file} or the environment" if file.is_file() else "the environment"
        raise ConfigError(f"{source}: {_explain(str(error))}") from None
    return _anchor(config, file.parent)


def _read(file: Path) -> dict[str, Any]:
    try:
        with open(file, "rb") as stream:
            # Not by its size, which a pipe or a device does not tell.
            data = stream.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise ConfigError(f"{file}: larger than {MAX_CONFIG_BYTES:,} bytes, this is no configuration")
        raw: object = read_yaml(data.decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{file}: not valid YAML: {error}") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):  # pyright: ignore[reportUnknownVariableType]
        raise ConfigError(f"{file}: expected sections such as `broker:` at the top")
    return msgspec.convert(raw, dict[str, Any], strict=False)


def _apply_environment(raw: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Lay VOICEBUS_SECTION__KEY[__KEY…] over the file; names without `__` are not ours to judge."""
    for name in sorted(environ):
        if not name.startswith(ENV_PREFIX) or "__" not in name:
            continue
        *parents, last = name.removeprefix(ENV_PREFIX).lower().split("__")
        node = raw
        for parent in parents:
            child: Any = node.setdefault(parent, {})
            if type(child) is not dict:
                raise ConfigError(f"{name}: `{parent}` is not a section")
            node = cast("dict[str, Any]", child)
        try:
            node[last] = read_yaml(environ[name])
        except ValueError:
            raise ConfigError(f"{name}: its value is not valid YAML") from None


def _explain(message: str) -> str:
    """Turn msgspec's message into one that names the dotted path and what is allowed there."""
    match = re.match(r"(?s)(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<path>[^`]*)`)?$", message)
    what, path = (match["what"], match["path"] or "") if match else (message, "")
    path = path.replace("[...]", ".*")
    kind: Any = Config
    for step in filter(None, path.split(".")):
        kind = _step(kind, step)
    where = f"{path}: " if path else ""
    allowed = _allowed(kind)
    return f"{where}{what[:1].lower()}{what[1:]}" + (f" (allowed: {allowed})" if allowed else "")


def _step(kind: Any, name: str) -> Any:
    if get_origin(kind) is dict:
        return get_args(kind)[1]
    if isinstance(kind, type) and issubclass(kind, Struct):
        return get_type_hints(kind, include_extras=True).get(name)
    return None


def _allowed(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Struct):
        return ", ".join(kind.__struct_fields__)
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is Annotated:
        base, *metas = get_args(kind)
        words = [getattr(base, "__name__", str(base))]
        for meta in metas:
            if isinstance(meta, Meta):
                bounds = {">=": meta.ge, ">": meta.gt, "<=": meta.le, "<": meta.lt, "pattern": meta.pattern}
                words += [f"{sign} {bound}" for sign, bound in bounds.items() if bound is not None]
        return " ".join(words)
    return ""


def _anchor(config: Config, folder: Path) -> Config:
    """Make relative folders absolute, so that a process started elsewhere finds the same ones."""
    replace = msgspec.structs.replace
    broker, edge, voices, logging = config.broker, config.edge, config.voices, config.logging
    if broker.journal is not None:
        broker = replace(broker, journal=str((folder / broker.journal).absolute()))
    edge = _anchored(edge, folder, "jobs", "api_keys", "certificate", "certificate_key")
    security = _anchored(config.security, folder, "keys", "key", "audit")
    if "://" not in voices.path:
        voices = replace(voices, path=str((folder / voices.path).absolute()))
    if logging.file:
        logging = replace(logging, file=str((folder / logging.file).absolute()))
    return replace(config, broker=broker, edge=edge, voices=voices, logging=logging, security=security)


def _anchored(section: S, folder: Path, *names: str) -> S:
    found = {name: getattr(section, name) for name in names}
    return msgspec.structs.replace(
        section,
        **{name: str((folder / file).absolute()) for name, file in found.items() if file is not None},
    )
