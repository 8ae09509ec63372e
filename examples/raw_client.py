"""VB1 spoken with nothing but pyzmq and msgpack: one text in, one WAV out.

Read it beside docs/protocol.md to write a client in another language. It knows nothing of the
voicebus package.

    python examples/raw_client.py --text "Hello." --voice amber -o hello.wav
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
import time
import wave
from typing import Any

import msgpack
import zmq

ENVELOPE = struct.Struct("!3sB16sHHII")  # magic, kind, job id, attempt, flags, sequence, value
SUBMIT, ACCEPTED, STARTED, CHUNK, DONE, FAILED, CANCEL, PING, PONG = range(1, 10)
STREAM, SEGMENT_END = 0x0001, 0x0002
INTERVAL_S, SILENT_INTERVALS = 1.0, 3


mp: Any = msgpack  # it carries no types
# What a header's items are when they are missing at its end (section 4).
ACCEPTED_ITEMS = ("", 0)
STARTED_ITEMS = ("", "", 0, 0)
DONE_ITEMS = (0, 0, 0.0, 1)
FAILED_ITEMS: tuple[Any, ...] = ("engine_error", "", None, [])


def items(header: bytes, defaults: tuple[Any, ...]) -> list[Any]:
    """A header's items: further ones are ignored, missing ones take their defaults."""
    found: list[Any] = mp.unpackb(header)
    return (found + list(defaults[len(found) :]))[: len(defaults)]


class SpeechError(Exception):
    """The job failed, or no broker answered."""


class RawClient:
    """One connection, one job at a time."""

    def __init__(self, address: str, key_file: str | None = None) -> None:
        self.address = address
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 200
        if key_file is not None:  # section 1a
            with open(key_file, encoding="utf-8") as file:
                key: dict[str, str] = json.load(file)
            self.socket.curve_serverkey = key["server"].encode()
            self.socket.curve_publickey = key["public"].encode()
            self.socket.curve_secretkey = key["secret"].encode()
        self.socket.connect(address)

    def speak(self, text: str, header: list[Any], deadline_s: float) -> tuple[bytes, int]:
        """Return the PCM and its rate in Hz. Raises `SpeechError`."""
        job = os.urandom(16)
        envelope = ENVELOPE.pack(b"VB1", SUBMIT, job, 0, 0, 0, int(deadline_s * 1000))
        self.socket.send_multipart([envelope, mp.packb(header), text.encode()])
        try:
            return self.listen(job, time.monotonic() + deadline_s)
        except BaseException:
            self.socket.send_multipart([ENVELOPE.pack(b"VB1", CANCEL, job, 0, 0, 0, 0)])
            raise

    def listen(self, job: bytes, deadline: float) -> tuple[bytes, int]:
        """Collect the job's audio until its one DONE or FAILED."""
        attempt, rate_hz, silent = 0, 0, 0
        chunks: list[tuple[int, bytes]] = []  # (segment, PCM)
        expected = 0
        while True:
            if time.monotonic() > deadline:
                raise SpeechError("deadline_exceeded: no answer in time")
            if not self.socket.poll(int(INTERVAL_S * 1000)):
                silent += 1
                if silent > SILENT_INTERVALS:
                    raise SpeechError(f"broker_unreachable: nothing answers at {self.address}")
                self.socket.send_multipart([ENVELOPE.pack(b"VB1", PING, bytes(16), 0, 0, silent, 0)])
                continue
            silent = 0
            frames: list[bytes] = self.socket.recv_multipart()
            if len(frames[0]) != ENVELOPE.size:
                continue
            magic, kind, of_job, of_attempt, flags, sequence, value = ENVELOPE.unpack(frames[0])
            if magic != b"VB1" or of_job != job or kind == PONG:
                continue
            if kind == ACCEPTED:
                engine, queued_ahead = items(frames[1], ACCEPTED_ITEMS)
                print(f"accepted by {engine}, {queued_ahead} jobs ahead")
            elif kind == STARTED and of_attempt >= attempt:
                worker, engine, rate_hz, _segments = items(frames[1], STARTED_ITEMS)
                # Not the first STARTED? Then a worker was lost: this and later segments are spoken again.
                chunks = [chunk for chunk in chunks if chunk[0] < sequence]
                attempt, expected = of_attempt, 0
                print(f"attempt {attempt} started on {worker} ({engine}, {rate_hz} Hz) at segment {sequence}")
            elif kind == CHUNK and of_attempt == attempt:
                if sequence != expected:
                    raise SpeechError(f"protocol_error: chunk {sequence} came instead of {expected}")
                expected += 1
                chunks.append((value, frames[1]))
                end = ", the segment's last" if flags & SEGMENT_END else ""
                print(f"chunk {sequence}: {len(frames[1]) // 2} samples of segment {value}{end}")
            elif kind == DONE and of_attempt == attempt:
                announced, _samples, engine_s, attempts = items(frames[1], DONE_ITEMS)
                if announced != expected:
                    raise SpeechError(f"protocol_error: {expected} chunks came of {announced}")
                print(f"done after {attempts} attempt(s), {engine_s:.3f} s of the engine")
                return b"".join(pcm for _, pcm in chunks), rate_hz
            elif kind == FAILED:
                code, message, _retry_after_s, _history = items(frames[1], FAILED_ITEMS)
                raise SpeechError(f"{code}: {message}")


def main() -> None:
    """Read the command line, speak, write the WAV."""
    parser = argparse.ArgumentParser(description="Speak VB1 with only pyzmq and msgpack.")
    parser.add_argument("--broker", default="tcp://127.0.0.1:5555")
    parser.add_argument("--key", help="a key file, where the broker asks for one")
    parser.add_argument(
        "--text", default="This was spoken over a protocol of thirty-two bytes and a few arrays."
    )
    parser.add_argument("--voice", default="")
    parser.add_argument("--engine", default="")
    parser.add_argument("--language", default="")
    parser.add_argument("--deadline", type=float, default=60.0, help="seconds")
    parser.add_argument("-o", "--output", default="raw.wav")
    arguments = parser.parse_args()
    # SUBMIT's header, item by item (section 4); those left out at the end take their defaults.
    header = [arguments.engine, arguments.voice, arguments.language, "interactive", "", len(arguments.text)]
    try:
        pcm, rate_hz = RawClient(arguments.broker, arguments.key).speak(
            arguments.text, header, arguments.deadline
        )
    except SpeechError as error:
        sys.exit(f"raw_client: {error}")
    with wave.open(arguments.output, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(pcm)
    print(f"{arguments.output}: {len(pcm) / 2 / rate_hz:.2f} s")


if __name__ == "__main__":
    main()
