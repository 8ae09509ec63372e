"""voicebus itself, as its users meet it and as the other systems' thin clients meet theirs.

The broker is started as `vc-broker` starts, with every production option on. `Client.map` and `Client.say`
are the real client, with its thread, retries, failover and promises. The bare client is a socket and a
window, as the ends of the other systems are; without bundles, it also shows what bundles bring. `tone` is
the real worker, agent and engine in processes of their own: what users get, where the thin worker only
echoes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from ..processes import until
from .install import Place
from .load import Tally, in_bursts, play, take
from .plan import Assignment
from .systems import READY, Started, System, family, own_end, run_end, scratch
from .vb1 import ENGINE, BareClient, EchoWorker

if TYPE_CHECKING:
    from voicebus.client import Client

TONE: Final = {"seconds_per_char": 0.001, "sample_rate": 10_000}
"""Twenty bytes a character, so that ten of them are spoken in 200 bytes."""
TONE_CHARS: Final = 10
REGISTER_S: Final = 5.0


def worker(backend: str, bundled: str) -> None:
    """The thin worker."""
    echo = EchoWorker(backend, bundled == "bundled")
    print(READY, flush=True)
    echo.serve()


def bare(assignment: str) -> None:
    """The bare client."""
    given = Assignment.from_json(assignment)
    take(given, in_bursts(BareClient(given.address, bool(given.options["bundled"]))))


def client(assignment: str) -> None:
    """The real client."""
    from voicebus.client import Client

    given = Assignment.from_json(assignment)
    engine = str(given.options["engine"])
    speak: Callable[[bytes], tuple[str, bytes | None]] = _digits() if engine == "tone" else _echoed
    with Client(given.address) as bus:
        take(given, partial(_through_client, bus, engine, speak, bool(given.options["own_window"])))


def _echoed(text: bytes) -> tuple[str, bytes | None]:
    return text.decode(), None


def _digits() -> Callable[[bytes], tuple[str, bytes]]:
    """How `tone` speaks a request's number: put together from what the engine makes of each digit here."""
    from voicebus.common.audio import to_s16
    from voicebus.common.voices import VoiceStore
    from voicebus.workers.engine import Reference, Request
    from voicebus.workers.engines.tone import ToneEngine

    engine = ToneEngine()
    engine.load(TONE)
    recording = VoiceStore().reference("amber")
    voice = engine.voice(Reference("amber", recording.samples, recording.rate_hz, recording.sha256))
    spoken = {
        digit: b"".join(to_s16(part).tobytes() for part in engine.speak(Request(digit, "en"), voice))
        for digit in "0123456789"
    }

    def speak(text: bytes) -> tuple[str, bytes]:
        number = text[6 : 6 + TONE_CHARS].decode()
        return number, b"".join(spoken[digit] for digit in number)

    return speak


def _through_client(
    bus: Client,
    engine: str,
    speak: Callable[[bytes], tuple[str, bytes | None]],
    own_window: bool,
    tally: Tally,
) -> None:
    """A phase with the verb that fits: `map` for a window, `say` one at a time."""
    if tally.phase.window == 1:
        while tally.open:
            number, text = tally.request()
            spoken, expected = speak(text)
            try:
                tally.answered(number, bus.say(spoken, engine=engine).pcm, expected)
            except Exception as error:
                tally.failed(number, repr(error))
        return
    under_way: dict[int, tuple[int, bytes | None]] = {}

    class Lines:
        """As the lines of a list: they say that there are more, so that nobody waits for the next one."""

        index = 0

        def __iter__(self) -> Iterator[str]:
            return self

        def __length_hint__(self) -> int:
            return int(tally.open)

        def __next__(self) -> str:
            if not tally.open:
                raise StopIteration
            number, text = tally.request()
            spoken, expected = speak(text)
            under_way[self.index] = number, expected
            self.index += 1
            return spoken

    window = None if own_window else tally.phase.window
    for result in bus.map(Lines(), engine=engine, window=window):
        number, expected = under_way.pop(result.index)
        if result.speech is None:
            tally.failed(number, repr(result.error))
        else:
            tally.answered(number, result.speech.pcm, expected)


def _start(
    stack: ExitStack,
    place: Place,
    *,
    role: str,
    engine: str = ENGINE,
    bundled: bool = True,
    own_window: bool = False,
) -> Started:
    """Broker, then worker, registered."""
    from voicebus.client import Client
    from voicebus.client.launch import Bus

    config = {"broker": {"journal": str(scratch(stack)), "default_engine": engine}}
    bus = stack.enter_context(Bus(engines={}, config=config))
    if engine == ENGINE:
        kind = "bundled" if bundled else "plain"
        thin = run_end(stack, own_end("voicebus_rows", "worker", bus.backend, kind))
        workers = [thin.pid]
        with Client(bus.frontend) as asking:

            def registered() -> bool:
                thin.check()
                return bool(asking.status()["workers"])

            until(registered, REGISTER_S, "the thin worker's registration")
    else:
        bus.start_worker(engine, settings=TONE)
        workers = family(bus.workers[0].pid)
    middle = [bus.broker.pid] if bus.broker else []
    options = {"engine": engine, "bundled": bundled, "own_window": own_window}
    return Started(own_end("voicebus_rows", role), bus.frontend, middle, workers, options)


SYSTEMS: Final = (
    System(
        "voicebus",
        "Client.map and Client.say, a thin worker",
        partial(_start, role="client"),
        quick=True,
    ),
    System(
        "voicebus-bare",
        "a bare client in bundles, a thin worker",
        partial(_start, role="bare"),
        quick=True,
    ),
    System(
        "voicebus-adapting",
        "Client.map with the window that it finds for itself, from 64 on",
        partial(_start, role="client", own_window=True),
    ),
    System(
        "voicebus-unbundled",
        "a bare client and a thin worker that know no bundles",
        partial(_start, role="bare", bundled=False),
    ),
    System(
        "voicebus-tone",
        "Client.map and Client.say, the real worker with the engine tone in a process of its own",
        partial(_start, role="client", engine="tone"),
        large=False,
    ),
)

if __name__ == "__main__":
    play({"worker": worker, "bare": bare, "client": client})
