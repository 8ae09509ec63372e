"""What holds for all tests.

How long an example takes says nothing on a machine with other work. And where the tests run in the background
of a script, they inherit that Ctrl-C is ignored; so would every process whose Ctrl-C is tested.
"""

from __future__ import annotations

import signal

from hypothesis import settings

settings.register_profile("voicebus", deadline=None)
settings.load_profile("voicebus")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
