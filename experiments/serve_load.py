"""What live clients of `rlmemo.serve --ray` wait beside a batch that saturates, and when a replica is killed.

    python -m experiments.serve_load --seconds 150
    python -m experiments.serve_load --seconds 60 --clients 100 --replicas 1

200 invented people open something once a minute each, at their own second of it; a wait is counted from that
second on. Beside them some batch clients replay recordings, many events a request, the next one as soon as
the last is answered. Four times: no batch; a batch that says it can wait (`Priority: u=7`); the same without
saying so, which is first come, first served; and with priority again while a replica is killed by SIGKILL.
In the end every answer is compared with what one mind says alone. Everything stays on this machine.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import run_main
from env.timeline import Event, Timeline
from experiments.many_people import people
from experiments.serve_speed import begun
from rlmemo.kept_connection import KeptConnection
from rlmemo.options import Parser
from rlmemo.policies.registry import to_follow
from rlmemo.serve.client import TOKEN_FILE
from rlmemo.serve.minds import maker
from rlmemo.serve.told import ToldMind
from rlmemo.store.live_ledger import NOT_YET, LiveRow

KNOWN = 30
"""Events of every live client that are known before anything is measured."""
ANSWER_S = 120.0
SATURATED_S = 3.0
"""After which a batch has the server busy."""
MINUTE = 60.0
TRIES = 20
WAITS = {"Priority": "u=7"}


@dataclass
class Asker:
    """A client with a connection of its own."""

    port: int
    token: str
    connection: KeptConnection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = KeptConnection("127.0.0.1", self.port)

    def ask(
        self, method: str, path: str, body: bytes | None = None, **more: str
    ) -> tuple[dict[str, Any], int]:
        """(what is answered, how often it was asked again)."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", **more}
        for again in range(TRIES):
            try:
                status, answer = self.connection.ask(method, path, headers, body, timeout=ANSWER_S)
            except (OSError, HTTPException):
                time.sleep(0.5)
                continue
            if status == 200:
                found: dict[str, Any] = json.loads(answer)
                return found, again
            if status != 503:
                raise SystemExit(f"{path}: {status} {answer[:200]!r}")
            time.sleep(2.0)
        raise SystemExit(f"{path}: no answer")


def body_of(events: list[Event], first: int) -> bytes:
    """A request with events, by their numbers."""
    sent = [
        {"id": f"{first + k}", "t": e.t, "target": e.target, "kind": e.kind} for k, e in enumerate(events)
    ]
    return json.dumps({"tz": "UTC", "events": sent}).encode()


def whole_ms(person: Timeline) -> list[Event]:
    """Its events, in whole milliseconds."""
    return [Event(round(e.t, 3), e.target, e.kind) for e in person]


@dataclass
class Client(Asker):
    """Somebody who opens something once a minute, and what they were told."""

    name: str = ""
    events: list[Event] = field(default_factory=list)
    offset: float = 0.0
    done: int = 0
    told: dict[int, Any] = field(default_factory=dict)

    def take(self, count: int, **more: str) -> int:
        """Send the next events; how often that had to be asked again."""
        body = body_of(self.events[self.done : self.done + count], self.done)
        answer, again = self.ask("POST", f"/v1/people/{self.name}/events", body, **more)
        self.done += count
        self.told[self.done - 1] = answer["plan"]
        return again


@dataclass(frozen=True)
class Phase:
    """What was measured. waits: (since the phase began, wait), in s, of every live request; events: that the
    batch got through, per second; again: how often a live request was asked again, at most."""

    waits: list[tuple[float, float]]
    events: float
    again: int
    seconds: float

    def quantile(self, q: float, after: float = 0.0) -> float:
        """In ms."""
        found = [wait for at, wait in self.waits if at >= after]
        return 1000.0 * float(np.quantile(found, q))


def live(clients: list[Client], began: float, seconds: float) -> tuple[list[tuple[float, float]], int]:
    """Everybody's requests of a phase."""
    due = sorted(
        (c.offset + MINUTE * k, n)
        for n, c in enumerate(clients)
        for k in range(int(seconds // MINUTE) + 1)
        if c.offset + MINUTE * k < seconds
    )
    waits: list[tuple[float, float]] = []
    again = [0]

    def one(at: float, client: Client) -> None:
        tried = client.take(1)
        waits.append((at, time.perf_counter() - began - at))
        again.append(tried)

    with ThreadPoolExecutor(64) as pool:
        asked = []
        for at, n in due:
            time.sleep(max(0.0, began + at - time.perf_counter()))
            asked.append(pool.submit(one, at, clients[n]))
        for x in asked:
            x.result()
    return waits, max(again)


@dataclass(frozen=True)
class Replaying:
    """A batch. name: of the people that are replayed; clients, size: so many, each with so many events a
    request; headers: of their requests."""

    name: str
    clients: int
    size: int
    headers: dict[str, str]


def replay(port: int, token: str, how: Replaying, going: Any, until: Any, told: Any) -> None:
    """In a process of its own, so that live requests do not wait for it in the one that sends them: clients
    that replay recordings as fast as they are answered, until told; how many events they got through."""
    askers = [Asker(port, token) for _ in range(how.clients)]
    sent = [
        [
            (len(events[k : k + how.size]), body_of(events[k : k + how.size], k))
            for k in range(0, len(events), how.size)
        ]
        for events in map(whole_ms, people(how.clients, 20 * how.size, 900))
    ]
    going.set()

    def one(k: int) -> int:
        events, times = 0, 0
        while True:
            name, times = f"{how.name}-{k}-{times}", times + 1
            for count, body in sent[k]:
                if until.is_set():
                    return events
                askers[k].ask("POST", f"/v1/people/{name}/events", body, **how.headers)
                events += count

    with ThreadPoolExecutor(how.clients) as pool:
        told.put(sum(pool.map(one, range(how.clients))))


def phase(
    clients: list[Client], how: Replaying | None, seconds: float, meanwhile: Callable[[], None] = lambda: None
) -> Phase:
    """One of them. how: what is replayed beside it; meanwhile: called when it begins."""
    if how is None:
        waits, again = live(clients, time.perf_counter(), seconds)
        return Phase(waits, 0.0, again, seconds)
    apart = multiprocessing.get_context("spawn")
    going, until, told = apart.Event(), apart.Event(), apart.Queue()
    one = clients[0]
    beside = apart.Process(target=replay, args=(one.port, one.token, how, going, until, told))
    beside.start()
    going.wait()
    time.sleep(SATURATED_S)
    meanwhile()
    began = time.perf_counter()
    waits, again = live(clients, began, seconds)
    until.set()
    took = time.perf_counter() - began + SATURATED_S
    events = told.get()
    beside.join()
    return Phase(waits, events / took, again, seconds)


def wrong(policy: str, clients: list[Client]) -> tuple[int, int]:
    """(answers that are not what one mind says alone, answers)."""
    import torch

    torch.set_num_threads(1)  # as replicas do: two sum in another order, and a last digit may differ
    make, different, count = maker(to_follow(policy), "", None), 0, 0
    for client in clients:
        rows = [LiveRow(k + 1, e, 0.0, NOT_YET) for k, e in enumerate(client.events[: client.done])]
        mind = ToldMind(make(client.name, "UTC", None))
        for k, thought in enumerate(mind.think_all(rows, [None] * len(rows))):
            if k not in client.told:
                continue
            plan, told = thought.plan, client.told[k]
            alone = [[p.target, p.delay_s] for p in plan.plan], list(plan.let_go), dict(plan.probabilities)
            said = (
                [[p["target"], p["delay_s"]] for p in told["prewarms"]],
                told["let_go"],
                told["probabilities"],
            )
            different += alone != said
            count += 1
    return different, count


def back(found: Phase, killed: float, usual: float) -> float:
    """Seconds after a replica was killed from which on no more live requests waited longer than `usual` ms,
    their p99 before, than chance would have (one in a hundred; more only in one case of twenty)."""
    from scipy.stats import binom

    after = [(at - killed, wait) for at, wait in found.waits if at >= killed]
    for since in sorted({0.0, *(at for at, _ in after)}):
        rest = [wait for at, wait in after if at >= since]
        if sum(1000.0 * x > usual for x in rest) <= binom.ppf(0.95, len(rest), 0.01):
            return since
    return float("nan")


def report(found: dict[str, Phase]) -> Iterator[str]:
    """The table."""
    alone = found["no batch"].quantile(0.99)
    yield "| live requests | n | p50, ms | p99, ms | p99 / without | batch, events/s |"
    yield "|---|---|---|---|---|---|"
    for what, x in found.items():
        p50, p99 = x.quantile(0.5), x.quantile(0.99)
        yield f"| {what} | {len(x.waits)} | {p50:.0f} | {p99:.0f} | {p99 / alone:.1f} | {x.events:.0f} |"


def main(argv: list[str] | None = None) -> int:
    p = Parser(prog="python -m experiments.serve_load", description=__doc__)
    p.add_argument("--policy", default="base", help="who plans (default: base)")
    p.add_argument("--seconds", type=float, default=150.0, help="of each phase (default: 150)")
    p.add_argument("--clients", type=int, default=200, help="live ones (default: 200)")
    p.add_argument("--batch", type=int, default=8, help="clients that replay (default: 8)")
    p.add_argument("--size", type=int, default=200, help="events in a request of theirs (default: 200)")
    p.add_argument("--replicas", type=int, default=2, help="default: 2")
    args = p.parse_args(argv)
    folder, dice = Path(tempfile.mkdtemp()), random.Random(0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    held = args.clients + 8 * args.batch
    process = begun(
        args.policy, port, folder, "--ray", "local", "--replicas", str(args.replicas), "--people-in-memory",
        str(held),
    )  # fmt: skip
    try:
        token = (folder / TOKEN_FILE).read_text().strip()
        opens = 2 * (KNOWN + 5 * (int(args.seconds // MINUTE) + 1))
        clients = [
            Client(port, token, x.user, whole_ms(x), dice.uniform(0.0, MINUTE))
            for x in people(args.clients, opens, 800)
        ]
        for client in clients:
            client.take(KNOWN, **WAITS)
        boss = Asker(port, token)
        found = {"no batch": phase(clients, None, args.seconds)}
        for name, headers in (("a batch, live first", WAITS), ("a batch, first come first served", {})):
            how = Replaying(f"replay{len(found)}", args.batch, args.size, headers)
            found[name] = phase(clients, how, args.seconds)
        before = boss.ask("GET", "/v1/replicas")[0]
        at, victim = args.seconds / 3.0, before["replicas"][0]["pid"]
        killer = threading.Timer(at, os.kill, (victim, signal.SIGKILL))
        how = Replaying("replay3", args.batch, args.size, WAITS)
        killed = phase(clients, how, args.seconds, killer.start)
        found["a batch, live first, a replica killed"] = killed
        stands = boss.ask("GET", "/v1/replicas")[0]
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
    for line in report(found):
        print(line)
    usual = found["a batch, live first"].quantile(0.99)
    different, count = wrong(args.policy, clients)
    print(f"\nwrong answers: {different} of {count}")
    print(
        f"a replica killed after {at:.0f} s: {stands['retried'] - before['retried']} requests asked again by "
        f"the server, by a live client {killed.again} times at most; p99 back after "
        f"{back(killed, at, usual):.1f} s ({killed.quantile(0.99, at + 30.0):.0f} ms from 30 s on); the "
        f"slowest live request {killed.quantile(1.0, at):.0f} ms"
    )
    memory = ", ".join(str(x["memory_mb"]) for x in stands["replicas"])
    passes, errands = (sum(x[name] for x in stands["replicas"]) for name in ("passes", "errands"))
    print(f"replicas: {memory} MB, {errands / max(1, passes):.1f} people in a pass")
    print(f"load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    run_main(main)
