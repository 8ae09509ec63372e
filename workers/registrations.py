"""All brokers a worker serves: opening, registering, sharing out the slots, losing and leaving.

What a link's end means for the jobs that came over it is the core's affair; here are only the links.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..common import wire
from ..common.messages import Welcome
from ..common.wire import pack_envelope
from .actions import INFO, WARNING, Actions, Beat, CloseLink, Frames, Log, OpenLink, ToBroker
from .links import Link, Timing, shares
from .states import LinkState, Referee


class Registrations:
    """The links, in the order the brokers were given. `offer(slots, renews)` makes a READY's header.

    `places()` is how many jobs the engines speak at once, which is known once one is loaded.
    """

    def __init__(
        self,
        brokers: Sequence[str],
        places: Callable[[], int],
        offer: Callable[[int, bool], bytes],
        timing: Timing,
        referee: Referee,
        random: Callable[[], float],
    ) -> None:
        self.links = [Link(index, address, timing, referee, random) for index, address in enumerate(brokers)]
        self.ever_registered = False
        "Whether any broker has ever taken this worker."
        self._places = places
        self._offer = offer

    def __iter__(self) -> Iterator[Link]:
        return iter(self.links)

    def __getitem__(self, index: int) -> Link:
        return self.links[index]

    @property
    def is_registered(self) -> bool:
        """Whether any broker counts on this worker."""
        return any(link.state is LinkState.REGISTERED for link in self.links)

    @property
    def all_left(self) -> bool:
        """Whether nothing is to be expected of any broker any more."""
        return all(link.state is LinkState.LEFT for link in self.links)

    def send(self, link: Link, frames: Frames, out: Actions) -> None:
        """Send a message, if there is a socket."""
        if link.is_open:
            out.append(ToBroker(link.index, frames))

    def open(self, link: Link, now: float, out: Actions) -> None:
        """Connect and register."""
        out.append(OpenLink(link.index))
        link.connect(now)
        self._ready(link, shares(self.links, self._places(), link)[link.index], out)

    def open_idle(self, now: float, out: Actions) -> None:
        """Connect those that waited for an engine: all of them first, so that each hears its right share."""
        idle = [link for link in self.links if link.state is LinkState.IDLE]
        for link in idle:
            out.append(OpenLink(link.index))
            link.connect(now)
        for link in idle:
            self._ready(link, shares(self.links, self._places(), link)[link.index], out)

    def _ready(self, link: Link, slots: int, out: Actions, *, renews: bool = False) -> None:
        link.slots = slots
        link.most_slots = max(link.most_slots, slots)
        self.send(link, [pack_envelope(wire.READY), self._offer(slots, renews)], out)

    def welcome(self, link: Link, header: Welcome, now: float, out: Actions) -> bool:
        """Take a WELCOME; return whether the link was not registered before."""
        news = link.state is LinkState.CONNECTING
        link.welcome(header, now)
        if news:
            self.ever_registered = True
            out.append(Log(INFO, f"registered with broker {header.broker} at {link.address}"))
            self.rebalance(out)
        return news

    def rebalance(self, out: Actions) -> None:
        """Tell each registered broker its share of the slots where it has changed."""
        for index, slots in shares(self.links, self._places()).items():
            link = self.links[index]
            if link.state is LinkState.REGISTERED and link.slots != slots:
                self._ready(link, slots, out, renews=True)

    def register_again(self, link: Link, now: float, out: Actions) -> None:
        """Introduce the worker to a broker that has forgotten it, over the same socket."""
        out.append(Log(INFO, f"{link.address} does not know this worker: registering again"))
        link.connect(now)
        self._ready(link, shares(self.links, self._places(), link)[link.index], out)

    def lose(self, link: Link, why: str, now: float, out: Actions) -> None:
        """Give the socket up and try again later."""
        if link.failures == 0:  # once per change of state, not once per try
            out.append(Log(WARNING, f"the broker at {link.address} {why}: trying again until it is there"))
        out.append(CloseLink(link.index, flush=False))
        link.lose(now)
        self.rebalance(out)

    def close(self, link: Link, kind: int, state: LinkState, out: Actions) -> None:
        """Say the last word, if there is a socket, and close it."""
        if link.is_open:
            self.send(link, [pack_envelope(kind)], out)
            out.append(CloseLink(link.index, flush=True))
        link.move(state)

    def tick(self, now: float, heartbeat: Callable[[Link, float], bytes], out: Actions) -> list[Link]:
        """Beat and reconnect where it is time; return the links whose broker has fallen silent."""
        silent: list[Link] = []
        for link in self.links:
            if link.is_silent(now):
                silent.append(link)
            elif link.state is LinkState.LOST and now >= link.retry_at:
                self.open(link, now, out)
            elif link.is_open and link.state is not LinkState.CONNECTING and now >= link.beat_at:
                link.beat_at = now + link.interval_s
                out.append(Beat(link.index, [pack_envelope(wire.HEARTBEAT), heartbeat(link, now)]))
        return silent

    def next_deadline(self) -> float:
        """When `tick` has something to do."""
        return min(link.next_deadline() for link in self.links)
