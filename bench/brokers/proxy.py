"""zmq.proxy between a ROUTER and a DEALER: libzmq's own forwarding, in C, with no policy at all.

What comes from clients goes to the connected workers in turn, however busy they are. That makes it the limit
of the transport, and no broker: it knows no free worker, no lost one, and no request.
"""

from __future__ import annotations

import zmq

ANY_PORT = "tcp://127.0.0.1:*"


def main() -> None:
    """Forward until a signal ends the process."""
    context = zmq.Context()
    frontend, backend = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    addresses: list[str] = []
    for socket in (frontend, backend):
        socket.bind(ANY_PORT)
        addresses.append(socket.getsockopt_string(zmq.LAST_ENDPOINT))
    print(f"ready frontend={addresses[0]} backend={addresses[1]}", flush=True)
    zmq.proxy(frontend, backend)


if __name__ == "__main__":
    main()
