"""zmq.proxy between a ROUTER and a DEALER: libzmq's own forwarding, in C, with no policy at all.

What comes from clients goes to the connected workers in turn, however busy they are. That makes it the limit
of the transport, and no broker: it knows no free worker, no lost one, and no request.

With `--curve` both sides are encrypted, under a key that is made now and printed.
"""

from __future__ import annotations

import sys

import zmq

ANY_PORT = "tcp://127.0.0.1:*"


def main() -> None:
    """Forward until a signal ends the process."""
    context = zmq.Context()
    public_key, secret_key = zmq.curve_keypair()
    curve = "--curve" in sys.argv[1:]
    frontend, backend = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    addresses: list[str] = []
    for socket in (frontend, backend):
        if curve:
            socket.curve_server = True
            socket.curve_secretkey = secret_key
        socket.bind(ANY_PORT)
        addresses.append(socket.getsockopt_string(zmq.LAST_ENDPOINT))
    key = f" key={public_key.decode()}" if curve else ""
    print(f"ready frontend={addresses[0]} backend={addresses[1]}{key}", flush=True)
    zmq.proxy(frontend, backend)


if __name__ == "__main__":
    main()
