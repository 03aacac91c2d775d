"""Base models of several sizes beside each other: what each reads on people it has never seen.

    python -m experiments.compare_bases rlmemo/base /tmp/tiny /tmp/small --timelines webtrackr

One line of JSON a base (as `experiments/pretrain_base.py` writes them): parameters, examples and minutes of
its pre-training; the model alone on invented people kept for evaluation; on the validation part of a
recording, with no fine-tuning, hr@1/3/5 and log loss of the model alone, of the scorer (the shipped one)
alone, and of both pooled as the product ranks; and decisions read per second of processor time against the
first base. Differences in log loss are paired over events, with a 95 % interval. The test part is not read.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import run_main
from rlmemo.model.ask import POOL, ranking, read
from rlmemo.model.load import load_adapted
from rlmemo.options import Parser


def main() -> None:
    parser = Parser(
        description=__doc__,
    )
    parser.add_argument("bases", nargs="+", type=Path, help="folders of base models")
    parser.add_argument("--timelines", default="webtrackr", help="whose validation part judges")
    args = parser.parse_args()

    from env.ranking import Ranking, decisions
    from env.slate.slate import build_slates
    from env.sources import load_timelines
    from env.splits import chrono
    from experiments.pretrain_base import evaluate, held_out_rows
    from rlmemo.evaluation.metrics import answer_log_p, places, rank_scores
    from rlmemo.model.scorer import WIDE, shortlist_of
    from rlmemo.model.slots import encode_prompts

    loaded = load_timelines(args.timelines, seed=0)
    parts = []
    for timeline, events in zip(loaded.timelines, chrono(loaded.timelines).validation, strict=True):
        rows = decisions(events)
        slates = shortlist_of(build_slates(timeline, WIDE), rows)
        prompts = encode_prompts(slates, timeline.target, rows, here=np.arange(len(rows)))
        parts.append((prompts, slates, timeline.target[rows + 1]))
    opened = np.concatenate([answers for _, _, answers in parts])
    held_out = held_out_rows()
    first: dict[str, np.ndarray] = {}
    rate = None
    for folder in args.bases:
        model = load_adapted(str(folder), None)
        known = json.loads((folder / "pretraining.json").read_text())
        line: dict[str, Any] = {
            "base": folder.name,
            "timelines": args.timelines,
            "parameters": sum(p.numel() for p in model.parameters()),
            "pretraining": {k: known[k] for k in ("size", "examples", "minutes", "warm_start")},
            "invented": {k: round(v, 4) for k, v in evaluate(model, held_out, "cpu").items()},
        }
        began = time.process_time()
        said = [read(model, prompts) for prompts, _, _ in parts]
        per_second = sum(len(prompts) for prompts, _, _ in parts) / (time.process_time() - began)
        rate = rate or per_second
        for name, pool in (("alone", 0.0), ("pooled", POOL), ("scorer", 1.0)):
            made = Ranking.join(
                [
                    ranking(x, slates.candidates, slates.score, pool)
                    for x, (_, slates, _) in zip(said, parts, strict=True)
                ]
            )
            place = places(made, opened)
            log_p = answer_log_p(made, place)
            d = first.setdefault(name, log_p) - log_p
            half = 1.96 * float(d.std()) / len(d) ** 0.5
            line[name] = {
                **{k: round(float(v.mean()), 4) for k, v in rank_scores(place).items() if k != "mrr@5"},
                "log_loss": round(float(-log_p.mean()), 4),
                "log_loss_change": [round(float(x), 4) for x in (d.mean(), d.mean() - half, d.mean() + half)],
            }
        line["decisions_per_second_ratio"] = round(per_second / rate, 2)
        line["events"] = len(place)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    run_main(main)
