"""The I/O thread over real sockets, against a scripted ROUTER: life, death, threads and forks."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from time import monotonic
from typing import Any

import msgpack
import pytest
import zmq

from voicebus.client import AsyncClient, Client
from voicebus.client.launch import ANY_PORT
from voicebus.common import bundles, wire
from voicebus.common.errors import BadRequest, BrokerUnreachable, BusError, Cancelled
from voicebus.common.messages import Accepted, AdminReply, Done, Started, encode

Frames = list[bytes]
PCM = b"\x01\x00" * 100


class Router:
    """A broker that answers by script: every text is one chunk of 100 samples."""

    def __init__(self, answer: Callable[[Router, Frames], None] | None = None) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.linger = 0
        # This one does not look after slow peers: at the high-water mark a ROUTER would drop without a word.
        self.socket.sndhwm = 0
        self.socket.bind(ANY_PORT)
        self.address = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.seen: list[int] = []
        self._more = threading.Condition()
        self._answer = answer or Router.speak
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def speak(self, frames: Frames) -> None:
        peer, envelope = frames[:2]
        kind, job = envelope[3], envelope[4:20]
        if kind == wire.PING:
            self.socket.send_multipart([peer, wire.pack_envelope(wire.PONG, sequence=1)])
        elif kind == wire.ADMIN:
            body = b"\x81\xa7engines\x81\xa4tone\x83\xa9max_chars\xcd\x01\x90\xa7workers\x01\xa5slots\x01"
            self.socket.send_multipart([peer, envelope, encode(AdminReply(ok=True)), body])
        elif kind == wire.SUBMIT:
            for out in (
                [wire.pack_envelope(wire.ACCEPTED, job), encode(Accepted("tone"))],
                [wire.pack_envelope(wire.STARTED, job, 1), encode(Started("w", "tone", 24_000))],
                [wire.pack_envelope(wire.CHUNK, job, 1, wire.SEGMENT_END), PCM],
                [wire.pack_envelope(wire.DONE, job, 1), encode(Done(1, 100))],
            ):
                self.socket.send_multipart([peer, *out])

    def sees(self, kind: int, times: int = 1) -> bool:
        """Wait for a kind of message to come."""
        with self._more:
            return self._more.wait_for(lambda: self.seen.count(kind) >= times, 20)

    def stop(self) -> None:
        self._stop.set()

    def close(self) -> None:
        self.stop()
        self._thread.join()
        self.socket.close()
        self._context.term()

    def _run(self) -> None:
        while not self._stop.is_set():
            if self.socket.poll(20):
                frames = self.socket.recv_multipart()
                for message in self._messages(frames):
                    with self._more:
                        self.seen.append(message[1][3])
                        self._more.notify_all()
                    self._answer(self, message)

    @staticmethod
    def _messages(frames: Frames) -> list[Frames]:
        if frames[1][3] != wire.BUNDLE:
            return [frames]
        found = bundles.unpack(frames[2])
        return [[frames[0], *(frame for frame in message if frame is not None)] for message in found]


@pytest.fixture
def router() -> Iterator[Router]:
    broker = Router()
    yield broker
    broker.close()


def test_many_threads_share_one_client_and_each_gets_its_own_answers(router: Router) -> None:
    wrong: list[object] = []
    with Client(router.address) as bus:

        def talk(number: int) -> None:
            results = list(bus.map([f"{number} {line}" for line in range(200)], engine="tone"))
            wrong.extend(
                r for at, r in enumerate(results) if r.index != at or r.error or r.item != f"{number} {at}"
            )
            jobs = [bus.submit("later", engine="tone") for _ in range(50)]
            wrong.extend(job for job in jobs if job.result(30).pcm != PCM)

        threads = [threading.Thread(target=talk, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_the_asynchronous_verbs_give_the_same_answers(router: Router) -> None:
    async def late_lines() -> AsyncIterator[str]:
        for line in ("one", "two", ""):
            await asyncio.sleep(0)
            yield line

    async def run() -> None:
        async with AsyncClient(router.address) as bus:
            said = await asyncio.gather(*(bus.say("Hi.", engine="tone") for _ in range(20)))
            assert {speech.pcm for speech in said} == {PCM}
            assert [chunk.pcm async for chunk in bus.stream("Hi.", engine="tone")] == [PCM]
            results = [result async for result in bus.map(late_lines(), engine="tone")]
            assert [result.index for result in results] == [0, 1, 2]
            assert isinstance(results[2].error, BadRequest)
            job = await bus.submit("Hi.", engine="tone")
            assert (await job.result(10)).worker == "w"
            assert (await bus.status())["engines"]["tone"]["max_chars"] == 400

    asyncio.run(run())


def test_a_closed_client_refuses_and_what_was_under_way_is_cancelled() -> None:
    silent = Router(lambda broker, frames: None if frames[1][3] == wire.SUBMIT else broker.speak(frames))
    try:
        bus = Client(silent.address)
        job = bus.submit("Hi.", engine="tone")
        failed: list[BaseException] = []

        def wait() -> None:
            try:
                bus.say("Hi.", engine="tone")
            except BusError as error:
                failed.append(error)

        waiter = threading.Thread(target=wait)
        waiter.start()
        assert silent.sees(wire.SUBMIT, times=2)
        bus.close()
        bus.close()
        waiter.join(10)
        assert not waiter.is_alive(), "closing must not leave anyone waiting for ever"
        assert isinstance(failed[0], Cancelled)
        with pytest.raises(Cancelled):
            job.result(1)
        with pytest.raises(BadRequest, match="closed"):
            bus.say("Hi.")
    finally:
        silent.close()


def test_a_fault_in_the_thread_reaches_the_caller_as_an_error(router: Router) -> None:
    """It left the caller waiting for ever."""

    def fault(*_arguments: object) -> None:
        raise ZeroDivisionError

    with Client(router.address) as bus:
        bus.say("Hi.", engine="tone")
        bus._link._core.receive = fault  # type: ignore[method-assign] # the fault
        with pytest.raises(BrokerUnreachable, match="ZeroDivisionError"):
            bus.say("Hi.", engine="tone")
        with pytest.raises(BrokerUnreachable, match="make a new client"):
            bus.say("Hi.", engine="tone")


def test_a_long_text_is_one_speech_and_does_not_flood_the_bus(router: Router) -> None:
    with Client(router.address) as bus:
        speech = bus.say("This is a sentence. " * 500, engine="tone")
        pauses = round(499 * 0.12 * 24_000)
        assert len(speech.samples) == 500 * 100 + pauses
        assert router.seen.count(wire.SUBMIT) == 500


def test_leaving_a_stream_early_cancels_its_job() -> None:
    def only_begin(broker: Router, frames: Frames) -> None:
        peer, envelope = frames[:2]
        if envelope[3] != wire.SUBMIT:
            broker.speak(frames)
            return
        job = envelope[4:20]
        header = encode(Started("w", "tone", 24_000))
        broker.socket.send_multipart([peer, wire.pack_envelope(wire.STARTED, job, 1), header])
        broker.socket.send_multipart([peer, wire.pack_envelope(wire.CHUNK, job, 1), PCM])

    slow = Router(only_begin)
    try:
        with Client(slow.address) as bus:
            stream = bus.stream("Hi.", engine="tone")
            assert bytes(next(stream)) == PCM
            stream.close()  # type: ignore[attr-defined] # the iterator is a generator
            assert slow.sees(wire.CANCEL)
    finally:
        slow.close()


def test_a_thousand_submissions_do_not_cost_a_wake_up_each(router: Router) -> None:
    with Client(router.address) as bus:
        bus.say("Hi.", engine="tone")
        link = bus._link
        rings = 0
        ring = link._ring

        def counted() -> None:
            nonlocal rings
            rings += 1
            ring()

        link._ring = counted  # type: ignore[method-assign] # a counter on one instance
        jobs = [bus.submit("Hi.", engine="tone") for _ in range(1000)]
        for job in jobs:
            job.result(30)
    assert rings < 900


def test_messages_with_too_few_or_too_many_frames_are_passed_over() -> None:
    """Reading as many frames as the kind promises would take the next message apart."""

    def forge(broker: Router, frames: Frames) -> None:
        peer, job = frames[0], frames[1][4:20]
        if frames[1][3] == wire.SUBMIT:
            for bad in ([b""], [b"", b"", b"", b""], [wire.pack_envelope(wire.DONE, job, 1)]):
                broker.socket.send_multipart([peer, *bad])
            broker.socket.send_multipart([peer, wire.pack_envelope(wire.CHUNK, job, 1), PCM, PCM, PCM])
        broker.speak(frames)

    forger = Router(forge)
    try:
        with Client(forger.address) as bus:
            assert bus.say("Hi.", engine="tone").pcm == PCM
            assert bus._link._core.errors >= 3
    finally:
        forger.close()


def test_answers_that_came_before_the_connection_broke_are_not_lost() -> None:
    """Only the first burst of them was read, and the rest asked for again of a broker that was gone."""
    held: list[Frames] = []

    def all_at_once(broker: Router, frames: Frames) -> None:
        if frames[1][3] != wire.SUBMIT:
            broker.speak(frames)
            return
        held.append(frames)
        if len(held) == 500:
            for submission in held:
                broker.speak(submission)
            broker.socket.close(linger=20_000)
            broker.stop()

    leaving = Router(all_at_once)
    with Client(leaving.address, connect_timeout_s=1) as bus:
        jobs = [bus.submit("Hi.", engine="tone") for _ in range(500)]
        assert {job.result(30).pcm for job in jobs} == {PCM}
    leaving.close()


def test_nobody_there_is_told_within_the_time_given() -> None:
    begun_at = monotonic()
    with Client("tcp://127.0.0.1:1", connect_timeout_s=0.5) as bus:
        with pytest.raises(BrokerUnreachable, match=r"tcp://127\.0\.0\.1:1"):
            bus.say("Hi.")
        results = list(bus.map(["a"]) if monotonic() < begun_at else [])
    assert results == []


@pytest.mark.parametrize("address", ["", "nonsense", "tcp://127.0.0.1", "http://127.0.0.1:80", ["", ","]])
def test_an_address_that_is_none_is_refused_at_once(address: str | list[str]) -> None:
    with pytest.raises(BadRequest):
        Client(address)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_told_to_make_its_own_client(router: Router) -> None:
    """Threads do not survive a fork: without the check the child waits for ever."""
    with Client(router.address) as bus:
        bus.say("Hi.", engine="tone")
        child = os.fork()
        if child == 0:
            try:
                bus.say("Hi.")
            except BadRequest as error:
                os._exit(42 if "fork" in error.message else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


def test_the_client_is_light() -> None:
    """`vc` and every program with a client starts with this; numpy alone would cost more than all of it."""
    code = (
        "import sys; from voicebus.client import Client; "
        "bad = {'numpy', 'torch', 'aiohttp', 'onnxruntime', 'soundfile', 'sentencex', 'rich', 'asyncio'}; "
        "print(sorted(bad & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_jobs_are_listed_over_all_brokers_and_their_pages(caplog: pytest.LogCaptureFixture) -> None:
    def lister(first: int) -> Callable[[Router, Frames], None]:
        def answer(broker: Router, frames: Frames) -> None:
            if frames[1][3] != wire.ADMIN:
                broker.speak(frames)
                return
            command, state, offset = msgpack.unpackb(frames[2])
            assert (command, state) == ("jobs", "done")
            # The last of a page comes again on the next: a job has ended in between.
            ids = range(first + offset, first + offset + 3)
            body = msgpack.packb({"jobs": [{"id": f"{id}", "state": "done"} for id in ids]})
            reply = encode(AdminReply(ok=True, next_offset=0 if offset else 2))
            broker.socket.send_multipart([frames[0], frames[1], reply, body])

        return answer

    one, two = Router(lister(0)), Router(lister(10))
    try:
        with Client([one.address, two.address]) as bus:
            assert [int(job["id"]) for job in bus.jobs("done")] == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
            with pytest.raises(BadRequest, match="queued"):
                bus.jobs("lost")
            two.close()
            with pytest.raises(BadRequest):
                bus.job("nonsense")
        with Client([one.address, two.address], connect_timeout_s=0.3) as bus:
            assert len(bus.jobs("done")) == 5
        assert f"{two.address} did not answer in time" in caplog.text
    finally:
        one.close()


def test_only_durable_lines_may_be_named(router: Router) -> None:
    with Client(router.address) as bus, pytest.raises(BadRequest, match="durable"):
        bus.map(["a"], naming=lambda line, piece, header, text: b"n" * 16)
