"""Every kind of adapter, trained once by SFT and judged on the validation part; then one per user.

    python -m experiments.compare_adapters --out /tmp/adapters.json
    python -m experiments.compare_adapters --kinds lora,ia3 --lr-scales 0.3,1,3     # a search of rates

Prints a table (kind, learning rate, trained parameters, hr@1, hr@5 and mrr@5 with 95 % intervals over
sessions, the paired difference in mrr@5 to the untrained base model, seconds of processor time), then what
adapters per user gain over the shared one of the first kind. Beside them stands a control: the shared
adapter trained on for as many updates as a user's adapter on average, on everybody's states. Validation is
never trained on; nothing here looks at the test part, and no adapter is chosen by what it scores.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import run_main
from rlmemo.options import Parser
from rlmemo.runs.atomic import write_atomic

METRICS = ("hr@1", "hr@5", "mrr@5", "log_loss")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = Parser(description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--timelines", default="webtrackr", help="what to learn from")
    p.add_argument("--model", default="embedded", help="base model")
    p.add_argument(
        "--kinds", default="lora,dora,adalora,ia3,prefix,p-tuning,prompt,none", help="--peft kinds"
    )
    p.add_argument("--states", type=int, default=3000, help="training states, drawn at random")
    p.add_argument("--epochs", type=float, default=1.0, help="passes over them")
    p.add_argument("--lr-scales", default="1", help="factors on each kind's default learning rate")
    p.add_argument(
        "--user-states", type=int, default=600, help="training states per user; 0: no adapters per user"
    )
    p.add_argument("--user-epochs", type=float, default=2.0, help="passes over a user's states")
    p.add_argument("--user-lr-scales", default="1", help="factors on the default rate of adapters per user")
    p.add_argument("--seed", type=int, default=0, help="decides every random choice")
    p.add_argument("--out", type=Path, help="write everything measured here, as JSON")
    return p


@dataclasses.dataclass
class Bench:
    """The data, the validation events, and the draws of sessions that all rows share."""

    data: Any
    draws: Any
    indices: list[np.ndarray]
    answers: np.ndarray

    @classmethod
    def prepare(cls, name: str, seed: int) -> Bench:
        """Load the timelines called `name` and part them in time order."""
        from env.judge.cost import WorldConfig
        from env.judge.cost_presets import cost_model
        from env.ranking import decisions
        from env.sources import load_timelines
        from env.splits import chrono, sessions
        from rlmemo.evaluation.bootstrap import Draws, session_groups
        from rlmemo.learning.training_data import TrainingData

        timelines = load_timelines(name, seed=seed).timelines
        data = TrainingData.prepare(timelines, chrono(timelines), cost_model("desktop"), WorldConfig())
        indices = [decisions(events) for events in data.split.validation]
        groups, users = session_groups([sessions(x)[i + 1] for x, i in zip(timelines, indices, strict=True)])
        answers = np.concatenate([x.target[i + 1] for x, i in zip(timelines, indices, strict=True)])
        return cls(data, Draws(groups, users, seed=seed), indices, answers)

    def judge(self, policy: Any) -> dict[str, Any]:
        """Estimates of a policy on validation, and its reciprocal ranks for paired differences."""
        from env.ranking import Ranking
        from rlmemo.evaluation.metrics import places, rank_scores, ranking_metrics

        made = [policy.rank(x, i) for x, i in zip(self.data.timelines, self.indices, strict=True)]
        both = Ranking.join(made)
        found = ranking_metrics(both, self.answers, self.draws)
        reciprocal = rank_scores(places(both, self.answers))["mrr@5"]
        return {"metrics": {m: found[m] for m in METRICS}, "reciprocal": reciprocal}


def train_one(data: Any, config: Any, states: Any, path: Path, adapter: Path | None = None) -> dict[str, Any]:
    """Train by SFT and save to `path`; parameters, updates and seconds of processor time."""
    from rlmemo.learning.adapters import count
    from rlmemo.learning.sft import run_sft, save_adapter
    from rlmemo.learning.training import Lesson
    from rlmemo.runs.folder import RunFolder

    path.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    model, found = run_sft(Lesson(config, RunFolder(path), "sft", adapter), data, states)
    trained = count(model)[0]
    save_adapter(model, path / "adapter", config.model)
    return {"parameters": trained, "updates": found["steps"], "seconds": time.process_time() - began}


def policy_of(config: Any, adapter: Path | None) -> Any:
    """The ranking policy of a saved adapter, None for the base model."""
    from rlmemo.model.load import load_adapted
    from rlmemo.policies.language import LanguagePolicy

    return LanguagePolicy(load_adapted(config.model, adapter), "adapted")


def compare_kinds(bench: Bench, given: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """A row for the base model, then one for each kind and learning rate."""
    from rlmemo.learning.config import make_config
    from rlmemo.learning.training_data import draw, part_states

    states, _ = draw(part_states(bench.data.split.train), given.states, 0, given.seed)
    rows: list[dict[str, Any]] = []
    base = bench.judge(policy_of(make_config({"model": given.model}), None))
    rows.append({"kind": "base", "lr": 0.0, "parameters": 0, "updates": 0, "seconds": 0.0, **base})
    print(line(rows[0], None), flush=True)
    for kind in given.kinds.split(","):
        for scale in map(float, given.lr_scales.split(",")):
            config = make_config(
                {
                    "model": given.model, "peft": kind, "seed": given.seed, "sft_epochs": given.epochs,
                    "checkpoint_steps": 10**6, "method": "sft",
                }
            )  # fmt: skip
            config = dataclasses.replace(config, sft_lr=config.sft_lr * scale)
            path = work / f"{kind}-{scale:g}"
            made = train_one(bench.data, config, states, path)
            row = {
                "kind": kind,
                "lr": config.sft_lr,
                **made,
                **bench.judge(policy_of(config, path / "adapter")),
            }
            row["path"], row["config"] = path, config
            rows.append(row)
            print(line(row, bench.draws.difference(row["reciprocal"], base["reciprocal"])), flush=True)
    return rows


def compare_users(
    bench: Bench, given: argparse.Namespace, shared: dict[str, Any], work: Path
) -> list[dict[str, Any]]:
    """Rows for adapters per user and for their control, each going on from the `shared` row's adapter."""
    from rlmemo.learning.per_user import states_of
    from rlmemo.learning.training_data import draw, part_states
    from rlmemo.model.load import load_model
    from rlmemo.model.switching import Switching
    from rlmemo.policies.language import LanguagePolicy
    from rlmemo.runs.user_adapters import safe_name

    before = shared["path"] / "adapter"
    users = [x.user for x in bench.data.timelines]
    each = [states_of(bench.data, u, given.user_states, given.seed) for u in range(len(users))]
    rows = []
    for scale in map(float, given.user_lr_scales.split(",")):
        config = dataclasses.replace(
            shared["config"],
            sft_lr=shared["config"].user_lr * scale,
            sft_epochs=given.user_epochs,
            sft_updates=0,
        )
        folders, seconds, updates = {}, 0.0, 0
        for user, states in zip(users, each, strict=True):
            path = work / f"{scale:g}-{safe_name(user)}"
            made = train_one(bench.data, config, states, path, before)
            folders[user] = path / "adapter"
            seconds, updates = seconds + made["seconds"], updates + made["updates"]
        switch = Switching(load_model(config.model)[0], before, folders)
        found = bench.judge(LanguagePolicy(switch, "users"))
        rows.append(
            {"kind": "per user", "lr": config.sft_lr, "parameters": shared["parameters"], "updates": updates,
             "seconds": seconds, **found}
        )  # fmt: skip
        print(line(rows[-1], bench.draws.difference(found["reciprocal"], shared["reciprocal"])), flush=True)
        # The control learns as long as one user's adapter does, from everybody.
        every, _ = draw(
            part_states(bench.data.split.train), sum(map(len, each)) // len(each), 0, given.seed + 1
        )
        path = work / f"{scale:g}-control"
        made = train_one(bench.data, config, every, path, before)
        found = bench.judge(policy_of(config, path / "adapter"))
        rows.append({"kind": "shared, on", "lr": config.sft_lr, **made, **found})
        print(line(rows[-1], bench.draws.difference(found["reciprocal"], shared["reciprocal"])), flush=True)
    return rows


def line(row: dict[str, Any], difference: Any) -> str:
    """One row of the table, in Markdown."""
    cells = [row["kind"], f"{row['lr']:g}", f"{row['parameters']:,}", f"{row['updates']}"]
    for metric in METRICS:
        e = row["metrics"][metric]
        cells.append(e.text())
    cells.append("" if difference is None else difference.text("+.3f"))
    cells.append(f"{row['seconds']:.0f}")
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| kind | learning rate | trained | updates | hr@1 | hr@5 | mrr@5 | log loss | mrr@5, difference | s |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Measure and print."""
    given = parser().parse_args()
    from rlmemo.learning.training import hush_libraries, quiet

    quiet()
    hush_libraries()
    bench = Bench.prepare(given.timelines, given.seed)
    print(
        f"{given.timelines}, validation: {len(bench.answers)} events; repeats collapsed; seed {given.seed}\n"
    )
    with tempfile.TemporaryDirectory() as scratch:
        print(HEAD + "\n", end="", flush=True)
        rows = compare_kinds(bench, given, Path(scratch))
        if given.user_states > 0:
            print("\n" + HEAD.replace("difference", "difference to shared"), flush=True)
            rows += compare_users(bench, given, rows[1], Path(scratch) / "users")
    if given.out is not None:
        data = [
            {k: v for k, v in row.items() if k not in ("reciprocal", "path", "config", "metrics")}
            | {m: e.as_json() for m, e in row["metrics"].items()}
            for row in rows
        ]
        said = {"command": " ".join(["python -m experiments.compare_adapters", *sys.argv[1:]]), "rows": data}
        write_atomic(given.out, json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    run_main(main)
