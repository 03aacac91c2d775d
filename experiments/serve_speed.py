"""How long a device waits for a plan from a server on this machine, over an invented person's opens.

python -m experiments.serve_speed base
python -m experiments.serve_speed markov1 --events 1000
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from env.errors import run_main
from env.sources import load_timelines
from env.timeline import Event, Timeline, collapse
from rlmemo.live.elsewhere import reach
from rlmemo.live.mind import Minding
from rlmemo.options import Parser, add_world
from rlmemo.serve.client import Server, ServerAway
from rlmemo.store.database import open_store
from rlmemo.store.live_ledger import LiveLedger, Seen

WARM_UP = 20
FIRST_S = 120.0


class Timed(Server):
    """A client that notes how long its requests took (seconds)."""

    took: list[float]

    def ask(self, method: str, path: str, *given: Any, **more: Any) -> dict[str, Any]:
        began = time.perf_counter()
        try:
            return super().ask(method, path, *given, **more)
        finally:
            self.took.append(time.perf_counter() - began)


def begun(policy: str, port: int, folder: Path, *more: str) -> subprocess.Popen[bytes]:
    """A server that answers. more: of its options."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rlmemo.serve", "--policy", policy, "--port", str(port),
         "--db", str(folder / "serve.db"), *more],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    until = time.monotonic() + FIRST_S
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            Server(f"http://127.0.0.1:{port}", folder).ask("GET", "/v1/about")
            return process
        except (OSError, ServerAway):
            time.sleep(0.1)
    process.kill()
    raise SystemExit("the server does not come up; see above")


def main(argv: list[str] | None = None) -> int:
    p = Parser(prog="python -m experiments.serve_speed", description=__doc__)
    p.add_argument("policy")
    p.add_argument("--events", type=int, default=1000)
    p.set_defaults(threshold=None, names=False)
    add_world(p, run=True)
    args: argparse.Namespace = p.parse_args(argv)
    folder = Path(tempfile.mkdtemp())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    policy, args.policy = args.policy, f"http://127.0.0.1:{port}"
    process = begun(policy, port, folder)
    try:
        made = load_timelines("demo").timelines[0]
        events = [Event(e.t, e.target, e.kind) for _, e in zip(range(args.events), made, strict=False)]
        person = collapse(Timeline.from_events("me", events, tz="UTC", tz_known=True))
        far = reach(args, folder / "live.db")
        timed = Timed(args.policy, folder)
        timed.took = []
        object.__setattr__(far, "server", timed)
        with open_store(folder / "live.db") as store:
            ledger = LiveLedger(store, "me", "UTC")
            ledger.add([Seen(f"{k}", e) for k, e in enumerate(person)], at=0.0)
            mind = far.minding(Minding(far.setup, "me", "UTC", 1600.0, "here")).mind()
            whole = []
            for row in list(ledger.rows()):
                began = time.perf_counter()
                mind.think(row)
                whole.append(time.perf_counter() - began)
        memory = psutil.Process(process.pid).memory_info().rss / 1e6
    finally:
        process.kill()
    for what, seconds in (("a request", timed.took), ("from event to plan", whole)):
        ms = 1000.0 * np.array(seconds[WARM_UP:])
        print(f"{what}: p50 {np.median(ms):.1f} ms, p95 {np.quantile(ms, 0.95):.1f} ms, n {len(ms)}")
    print(f"server: {memory:.0f} MB; load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    run_main(main)
