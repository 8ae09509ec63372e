"""zmq.proxy: the transport alone, without a queue of its own, credit, liveness or an answer that is promised.

It is the limit that a broker written over pyzmq is held against, not a competitor: nothing is lost by it only
because nothing fails here.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from ..processes import free_port
from .dealer import Dealer
from .install import Place
from .load import ANSWER_S, in_bursts, play, take
from .plan import Assignment, answer_of, number_of
from .systems import READY, Started, System, own_end, run_end


def proxy(frontend: str, backend: str) -> None:
    """The process in the middle."""
    import zmq

    context = zmq.Context.instance()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    front.bind(frontend)
    back.bind(backend)
    print(READY, flush=True)
    zmq.proxy(front, back)


def worker(address: str) -> None:
    """Echo in bursts. A message is the client's routing id and the text."""
    dealer = Dealer(address, lambda first: 1, 3600)
    print(READY, flush=True)
    while True:
        for client, text in dealer.burst():
            dealer.send(client, answer_of(text))


class Client:
    """A message is the text alone; its answer tells its number."""

    def __init__(self, address: str) -> None:
        self._dealer = Dealer(address, lambda first: 0, ANSWER_S)

    def ask(self, texts: Sequence[tuple[int, bytes]]) -> None:
        """Send a burst."""
        for _, text in texts:
            self._dealer.send(text)

    def answers(self) -> list[tuple[int, bytes]]:
        """A burst of answers."""
        found = [(number_of(answer), answer) for (answer,) in self._dealer.burst()]
        if not found:
            raise TimeoutError("no answer came through the proxy")
        return found


def client(assignment: str) -> None:
    """The client process."""
    given = Assignment.from_json(assignment)
    take(given, in_bursts(Client(given.address)))


def start(stack: ExitStack, place: Place) -> Started:
    """Proxy, then worker."""
    front, back = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    middle = run_end(stack, own_end("proxy", "proxy", front, back))
    end = run_end(stack, own_end("proxy", "worker", back))
    return Started(own_end("proxy", "client"), front, [middle.pid], [end.pid])


SYSTEM = System("zmq.proxy", "transport only: no queue, credit or liveness", start, quick=True)

if __name__ == "__main__":
    play({"proxy": proxy, "worker": worker, "client": client})
