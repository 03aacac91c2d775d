"""How much of a PPO rollout is the world, and how much the model: one JSON line.

    python -m experiments.profile_rollout [--timelines demo] [--lanes 32] [--steps 64]

`seconds` of a whole rollout (memory, prompts, plans, accounting, credits, what the critic sees), of its
forward passes alone, and their ratio; `parts` says where the rest goes. Thread time, so that other work on
the machine counts less.
"""

from __future__ import annotations

import json
import time

import numpy as np

from env.errors import run_main
from env.judge.cost import WorldConfig
from env.judge.cost_presets import cost_model
from env.sources import load_timelines
from env.splits import chrono
from reward import parse_reward
from rlmemo.learning.training import quiet
from rlmemo.options import Parser


def main() -> None:
    """Measure, after a short rollout that compiles and loads everything."""
    options = Parser(
        description=__doc__,
    )
    options.add_argument("--timelines", default="demo")
    options.add_argument("--lanes", type=int, default=32)
    options.add_argument("--steps", type=int, default=64)
    asked = options.parse_args()
    quiet()
    from rlmemo.learning.rollout import Field
    from rlmemo.learning.training_data import TrainingData
    from rlmemo.model.ask import SampledPlans, sample_plans
    from rlmemo.model.load import load_adapted

    timelines = load_timelines(asked.timelines).timelines
    data = TrainingData.prepare(timelines, chrono(timelines), cost_model("desktop"), WorldConfig())
    field, model = Field(data, parse_reward("net_seconds")), load_adapted("embedded", None)
    rng, spent = np.random.default_rng(0), {"forward": 0.0, "credits": 0.0}

    def say(prompts: np.ndarray, free: np.ndarray) -> SampledPlans:
        began = time.thread_time()
        said = sample_plans(model, prompts, free, 3, 1.0, rng)
        spent["forward"] += time.thread_time() - began
        return said

    credit = field.credit

    def timed(*given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        began = time.thread_time()
        found = credit(*given)  # type: ignore[arg-type]
        spent["credits"] += time.thread_time() - began
        return found

    field.credit = timed  # type: ignore[assignment, method-assign]
    field.play(field.draw(asked.lanes, 8, 8, rng), 3, say)
    spent.update(forward=0.0, credits=0.0)
    moments = field.draw(asked.lanes, asked.steps, asked.steps, rng)
    began = time.thread_time()
    played = field.play(moments, 3, say)
    whole = time.thread_time() - began
    found = {
        "timelines": asked.timelines, "decisions": len(played), "seconds": whole,
        "forward_s": spent["forward"],
        "ratio": whole / spent["forward"],
        "parts": {"credits_s": spent["credits"], "world_s": whole - spent["forward"] - spent["credits"]},
    }  # fmt: skip
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in found.items()}))


if __name__ == "__main__":
    run_main(main)
