"""Base models of several sizes beside each other: what each reads on people it has never seen.

    python -m experiments.compare_bases rlmemo/base /tmp/tiny /tmp/small --timelines webtrackr

One line of JSON a base (as `experiments/pretrain_base.py` writes them): parameters, examples and processor
time of its pre-training, its letter loss on held-out invented people, and on the validation part of a
recording, with no fine-tuning, hr@1/3/5 and log loss of its ranking alone (`POOL` 0) and as the product
ranks (pooled with the shipped scorer), the scorer alone (`POOL` 1), and decisions per second against the
first base. Differences in log loss are paired over events, with a 95 % interval. The test part is not read.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np


def given(ranking: Any, opened: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(place of what was opened, int64 [D], 99 where it is not listed; log-probability given to it or to
    none, float64 [D])."""
    right = ranking.targets == opened[:, None]
    place = np.where(right.any(1), right.argmax(1), 99)
    rows = np.arange(len(place))
    p = np.where(place < 99, ranking.probability[rows, np.minimum(place, right.shape[1] - 1)], ranking.none)
    return place, np.log(np.maximum(p.astype(np.float64), 1e-6))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bases", nargs="+", type=Path, help="folders of base models")
    parser.add_argument("--timelines", default="webtrackr", help="whose validation part judges")
    args = parser.parse_args()

    from env.sources import load_timelines
    from env.splits import chrono
    from rlmemo.policies import language

    loaded = load_timelines(args.timelines, seed=0)
    split = chrono(loaded.timelines)
    parts = [
        (timeline, np.arange(int(e[0]) - 1, int(e[-1]), dtype=np.int64))
        for timeline, e in zip(loaded.timelines, (e[e > 0] for e in split.validation), strict=True)
        if len(e)
    ]
    pool, first, rate = language.POOL, {}, None
    for folder in args.bases:
        policy = language.RankedLanguagePolicy(language.load_adapted(str(folder), None))
        known = json.loads((folder / "pretraining.json").read_text())
        line: dict[str, Any] = {
            "base": folder.name,
            "timelines": args.timelines,
            "parameters": sum(p.numel() for p in policy.model.parameters()),
            "pretraining": {
                k: known[k] for k in ("size", "examples", "minutes", "loss_letter", "warm_start")
            },
        }
        for name, weight in (("alone", 0.0), ("pooled", pool), ("scorer", 1.0)):
            language.POOL = weight
            began = time.process_time()
            made = [given(policy.rank(t, i), t.target[i + 1]) for t, i in parts]
            took = time.process_time() - began
            place, log_p = (np.concatenate(x) for x in zip(*made, strict=True))
            line[name] = {f"hr@{k}": round(float((place < k).mean()), 4) for k in (1, 3, 5)}
            line[name]["log_loss"] = round(float(-log_p.mean()), 4)
            if name in first:
                d = first[name] - log_p
                half = 1.96 * float(d.std()) / len(d) ** 0.5
                line[name]["log_loss_change"] = [
                    round(float(x), 4) for x in (d.mean(), d.mean() - half, d.mean() + half)
                ]
            first.setdefault(name, log_p)
            if name == "pooled":
                per_second = len(place) / took
                rate = rate or per_second
                line["decisions_per_second_ratio"] = round(per_second / rate, 2)
        line["events"] = len(place)
        print(json.dumps(line), flush=True)
    language.POOL = pool


if __name__ == "__main__":
    main()
