"""Very many people judged by Ray's workers: how fast, in how much memory, and the same numbers whatever dies.

    python -m experiments.many_people --people 10000 --out /tmp/people
    python -m experiments.many_judged /tmp/people --out /tmp/judged [--few 600] [--first 200]

Four things on this machine, kept in OUT/found.json; what is there already is not done again:

    equal    the first --first people by this process alone and by two workers: every number the same
    ratio    --few people by one worker, then by two; the policies are fitted before the clock starts
    all      everybody by two workers: seconds, and the largest resident set of a worker
    killed   everybody by two nodes of one core each (on this machine), one of which is killed half-way: every
             number as before

Only `ratio` needs a machine that does nothing else. Nothing listens but on the loopback.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from env.errors import InputError, run_main
from env.sources import load_timelines
from env.splits import chrono
from rlmemo.evaluation.evaluate import Evaluation, Setting, evaluate
from rlmemo.evaluation.ray_crew import PEOPLE, RayCrew
from rlmemo.options import Parser
from rlmemo.policies.registry import make_policies
from rlmemo.runs.atomic import write_atomic

TIMES = ("decisions_per_second", "p50_ms", "p95_ms", "peak_rss_mb")
"""What differs from one run to the next."""


def numbers(found: Evaluation) -> Any:
    """All that an evaluation says, but for times."""

    def stripped(x: Any) -> Any:
        if isinstance(x, dict):
            return {k: stripped(v) for k, v in x.items() if k not in TIMES}
        return [stripped(v) for v in x] if isinstance(x, list) else x

    return stripped(json.loads(json.dumps(found.as_json())))


class Fitted:
    """A policy that is fitted already, so that fitting, which one process does, is not on the clock."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_policy":
            raise AttributeError(name)
        return getattr(self._policy, name)

    def fit(self, *_: Any, **__: Any) -> None:
        """It is."""


def judged(policies: Sequence[Any], people: Sequence[Any], crew: Any = None) -> tuple[Evaluation, float]:
    """(what was found, seconds)."""
    began = time.perf_counter()
    setting = Setting(budgets=(8.0,), latency_decisions=2)
    found = evaluate(policies, people, chrono(people), setting=setting, crew=crew)
    return found, time.perf_counter() - began


@contextmanager
def watched(sizes: list[int]) -> Iterator[None]:
    """Notes the largest resident set of Ray's workers, in bytes, four times a second."""
    import psutil

    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.25):
            for one in psutil.Process().children(recursive=True):
                try:
                    if one.cmdline()[0].startswith("ray::"):
                        sizes.append(one.memory_info().rss)
                except (psutil.Error, IndexError):
                    continue

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield
    over.set()
    watcher.join()


def with_workers(
    policies: Sequence[Any], people: Sequence[Any], workers: int
) -> tuple[Evaluation, float, int, int]:
    """(what was found, seconds, MB of the largest worker, parts that were waited for). What workers load and
    compile once, for a few people, is not on the clock."""
    crew, sizes, got = RayCrew(workers=workers), [0], [0]
    try:
        judged(policies, people[: 2 * PEOPLE * workers], crew)
        crew.progress = lambda done, of: got.append(got.pop() + 1)
        with watched(sizes):
            found, seconds = judged(policies, people, crew)
    finally:
        crew.close()
    return found, seconds, round(max(sizes) / 2**20), got[0]


def with_a_killed_node(
    policies: Sequence[Any], people: Sequence[Any], after: int
) -> tuple[Evaluation, float]:
    """(what was found, seconds) by two nodes of which one is killed when so many parts were waited for."""
    from ray.cluster_utils import Cluster

    RayCrew(workers=1).close()  # what Ray starts from here on listens on the loopback alone
    node: dict[str, Any] = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 2**29}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    second = cluster.add_node(**node)
    crew, got = RayCrew(cluster.address), [0]

    def kill(*_: int) -> None:
        got[0] += 1
        if got[0] == after:
            cluster.remove_node(second, allow_graceful=False)

    crew.progress = kill
    try:
        found = judged(policies, people, crew)
    finally:
        crew.close()
        cluster.shutdown()
    assert got[0] > after, "nothing was killed on the way"
    return found


@dataclass
class Kept:
    """What was found, by its name, in a folder. asked: what it was found of. Raises InputError for a folder
    in which something else was asked."""

    folder: Path
    asked: dict[str, Any]
    found: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "found.json"
        if path.exists():
            self.found = json.loads(path.read_text())
            if self.found["asked"] != self.asked:
                raise InputError(f"{path}: something else was asked there; give another folder as --out")
        for line in self.found.items():
            print(json.dumps(line), flush=True)
        self.found["asked"] = self.asked

    def say(self, what: str, **found: Any) -> None:
        """One more."""
        self.found[what] = found
        write_atomic(self.folder / "found.json", json.dumps(self.found, indent=1))
        print(json.dumps([what, found]), flush=True)


def main() -> int:
    """Run the command line."""
    p: argparse.ArgumentParser = Parser(prog="python -m experiments.many_judged", description=__doc__)
    p.add_argument("people", metavar="FOLDER", type=Path, help="written by experiments.many_people")
    p.add_argument("--out", metavar="OUT", type=Path, required=True, help="folder for what is found")
    p.add_argument("--policies", default="markov1,gbdt,base", metavar="A,B", help="default: %(default)s")
    p.add_argument("--few", type=int, default=600, metavar="N", help="for ratio (default: %(default)s)")
    p.add_argument("--first", type=int, default=200, metavar="N", help="for equal (default: %(default)s)")
    args = p.parse_args()
    asked = {name: getattr(args, name) for name in ("policies", "few", "first")}
    kept = Kept(args.out, {"people": str(args.people.resolve()), **asked})
    everybody = load_timelines(str(args.people)).timelines
    few, first = everybody[: args.few], everybody[: args.first]

    if "equal" not in kept.found:
        alone, _ = judged(make_policies(args.policies), first)
        shared, *_ = with_workers(make_policies(args.policies), first, 2)
        kept.say("equal", people=len(first), equal=numbers(alone) == numbers(shared))

    if "ratio" not in kept.found:
        known = make_policies(args.policies)
        for policy in known:
            policy.fit(few, chrono(few), seed=0)
        fitted = [Fitted(x) for x in known]
        _, one, *_ = with_workers(fitted, few, 1)
        _, two, *_ = with_workers(fitted, few, 2)
        kept.say(
            "ratio", people=len(few), one_s=round(one, 1), two_s=round(two, 1), ratio=round(one / two, 2)
        )

    if "all" not in kept.found:
        found, seconds, most, got = with_workers(make_policies(args.policies), everybody, 2)
        write_atomic(args.out / "all.json", json.dumps(numbers(found)))
        scores = {k: round(v.metrics["hr@1"].value, 4) for k, v in found.policies.items()}
        kept.say(
            "all", people=len(everybody), opens=sum(map(len, everybody)), judged=found.n_events,
            seconds=round(seconds), worker_mb=most, parts=got, hr1=scores,
        )  # fmt: skip

    if "killed" not in kept.found:
        half = kept.found["all"]["parts"] // 2
        survived, seconds = with_a_killed_node(make_policies(args.policies), everybody, half)
        before = json.loads((args.out / "all.json").read_text())
        kept.say(
            "killed", people=len(everybody), seconds=round(seconds), after_parts=half,
            equal=numbers(survived) == before,
        )  # fmt: skip
    return 0


if __name__ == "__main__":
    run_main(main)
