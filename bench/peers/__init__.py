"""Other systems that carry a request to a worker and its answer back, each started for real, beside voicebus.

    python -m bench.peers [--quick] [--only NAME]…

Every system has one client process and one worker process, both in Python, doing the same work: 200 bytes
of text in, 200 bytes or 200 KB out, one at a time or 64 under way. All are measured in turn in one pass,
several times over, because only ratios from one pass mean anything on a shared machine. `runner.measure` is
the whole pass, `report.headline` the ratios. Each system has a module of its own, which is both what starts
it and, run in its own process, its ends; this package therefore imports nothing by itself.
"""
