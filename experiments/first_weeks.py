"""Who foresees best in somebody's first weeks, and what names are worth to a model that reads them.

    python -m experiments.first_weeks --recordings webtrackr,gesis --opens 100,300,1000,3000
        --policies markov1,backoff3,gbdt,base,smollm2,runs/smollm2 [--shots 4] [--people 4] [--decisions 200]

Every person of the recordings is cut to their first opens (whoever has fewer is left out) and split in time
order. Policies that learn learn from that person's training part alone; a run folder brings what it learned
elsewhere. All are asked for the same decisions of the test part, the last --decisions of each person. With
--shuffled every policy is asked once more of the same people with their targets' names dealt out anew among
targets of one kind, which changes nothing but what a name says. --shots asks untrained text models with as
many examples, in addition. Prints one Markdown row a policy, with the difference of hr@1 to the first policy,
paired, with an interval over sessions.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from env.errors import InputError, run_main
from env.ranking import decisions
from env.sources import load_timelines
from env.splits import chrono
from env.timeline import Timeline
from rlmemo.evaluation.metrics import places, rank_scores
from rlmemo.options import Parser
from rlmemo.policies.endpoint_options import Asking
from rlmemo.policies.registry import make_policy

SESSION_S = 1800.0
METRICS = ("hr@1", "hr@5", "mrr@5")


def shuffled(timeline: Timeline, seed: int) -> Timeline:
    """The same with every name at another target of its kind."""
    rng, names = np.random.default_rng([seed, 23]), list(timeline.names)
    kind = np.zeros(len(names), np.int8)
    targets, first = np.unique(timeline.target, return_index=True)
    kind[targets] = timeline.kind[first]
    for one in np.unique(kind):
        mine = rng.permutation(np.flatnonzero(kind == one))
        for here, there in zip(mine, np.roll(mine, 1), strict=True):
            names[here] = timeline.names[there]
    return replace(timeline, names=tuple(names))


def scores(name: str, people: Sequence[Timeline], most: int, shots: int) -> dict[str, np.ndarray]:
    """What every decision counts for, float64 [D], of all people."""
    found: list[dict[str, np.ndarray]] = []
    for timeline in people:
        split = chrono([timeline])
        policy = make_policy(name, Asking(shots=shots))
        policy.fit([timeline], split)
        asked = decisions(split.test[0])[-most:]
        found.append(rank_scores(places(policy.rank(timeline, asked), timeline.target[asked + 1])))
    return {metric: np.concatenate([one[metric] for one in found]) for metric in METRICS}


def sessions(people: Sequence[Timeline], most: int) -> np.ndarray:
    """The session of every decision, int64 [D]."""
    out, base = [], 0
    for timeline in people:
        ids = np.cumsum(np.diff(timeline.t, prepend=timeline.t[0]) >= SESSION_S)
        out.append(base + ids[decisions(chrono([timeline]).test[0])[-most:]])
        base += int(ids[-1]) + 1
    return np.unique(np.concatenate(out), return_inverse=True)[1]


def interval(gap: np.ndarray, session: np.ndarray) -> tuple[float, float]:
    """95 % of the mean of differences [D], sessions drawn anew."""
    n = int(session.max()) + 1
    total, count = np.bincount(session, gap, n), np.bincount(session, minlength=n)
    drawn = np.random.default_rng(0).integers(0, n, (2000, n))
    low, high = np.quantile(total[drawn].sum(1) / count[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    """Run the command line."""
    top: argparse.ArgumentParser = Parser(prog="python -m experiments.first_weeks", description=__doc__)
    top.add_argument("--recordings", default="webtrackr,gesis", help="whose opens")
    top.add_argument("--opens", default="100,300,1000,3000", help="of each person, the first")
    top.add_argument("--policies", default="markov1,backoff3,gbdt,base", help="the first is compared with")
    top.add_argument("--shots", type=int, default=0, help="examples, for untrained text models")
    top.add_argument("--people", type=int, help="of each recording at most")
    top.add_argument("--decisions", type=int, default=10**9, help="of each person at most")
    top.add_argument("--shuffled", action="store_true", help="with other names, too")
    args = top.parse_args()
    head = ("recording", "opens", "people", "decisions", "policy", "names", *METRICS, "hr@1 to the first")
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * 10)
    asked = False
    for recording in args.recordings.split(","):
        everybody = load_timelines(recording).timelines
        for opens in map(int, args.opens.split(",")):
            people = [x.take(np.arange(opens)) for x in everybody if len(x) >= opens][: args.people]
            if not people:
                continue
            asked, session, first = True, sessions(people, args.decisions), None
            for way in ("their own", "shuffled") if args.shuffled else ("their own",):
                world = people if way == "their own" else [shuffled(x, k) for k, x in enumerate(people)]
                for name in args.policies.split(","):
                    for shots in (0, args.shots) if args.shots and name == "smollm2" else (0,):
                        found = scores(name, world, args.decisions, shots)
                        first = found if first is None else first
                        gap = found["hr@1"] - first["hr@1"]
                        low, high = interval(gap, session)
                        said = name + (f" {shots}-shot" if shots else "")
                        row = [recording, opens, len(people), len(gap), said, way]
                        row += [f"{found[metric].mean():.3f}" for metric in METRICS]
                        row += [f"{gap.mean():+.3f} [{low:+.3f}, {high:+.3f}]"]
                        print("| " + " | ".join(map(str, row)) + " |", flush=True)
    if not asked:
        raise InputError("nobody has as many opens; give fewer with --opens")


if __name__ == "__main__":
    run_main(main)
