"""Policies by name: `make_policy("gbdt")`, or by the folder of a training run.

Nothing heavy is imported before a policy that needs it is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from env.errors import InputError
from env.judge.world_options import WorldOptions
from rlmemo.model.hub import EMBEDDED, check_model, model_folder
from rlmemo.model.load import load_adapted
from rlmemo.model.named import NAMED
from rlmemo.model.small_qwen3 import read_bare
from rlmemo.policies.counting import CountingPolicy
from rlmemo.policies.endpoint import EndpointPolicy
from rlmemo.policies.few_shot import untrained
from rlmemo.policies.gbdt import GbdtPolicy
from rlmemo.policies.language import LanguagePolicy
from rlmemo.policies.oracle import OraclePolicy
from rlmemo.policies.planners import NonePolicy, planner_of
from rlmemo.policies.run import Setup, load_run
from rlmemo.policies.sb3 import Sb3Policy
from rlmemo.policies.shipped import shipped_planner
from rlmemo.runs.folder import unfinished

if TYPE_CHECKING:
    from rlmemo.policies.endpoint_options import Asking
    from rlmemo.policies.protocol import Policy
    from rlmemo.policies.run import Setup

POLICIES: dict[str, str] = {
    "none": "never prewarms: what is warm is what was opened recently",
    "mfu": "most frequently used",
    "mru": "most recently used",
    "markov1": "successors of the current target by count, then the most frequent",
    "backoff3": "successors of the last three targets, then two, then one, then the most frequent",
    "omnibox": "the browser's confidence rule: hits / (hits + misses) per (current target, candidate)",
    "gbdt": "gradient-boosted ranker over the slate",
    "gru4rec": "recurrent network over the opens of a session (GRU4Rec)",
    "sasrec": "causal transformer over the last 50 opens (SASRec)",
    "base": "the embedded language model as it is shipped, never trained on a recording",
    "sb3": "Stable-Baselines3 PPO on rlmemo/Prewarm-v0 (needs the extra: pip install 'rlmemo[sb3]')",
    "oracle": "clairvoyant plan under the same memory and load times",
}
"""Every policy that has a name, and what it does in a line."""

COUNTING = ("mfu", "mru", "markov1", "backoff3", "omnibox")
"""Those that only count (`rlmemo.policies.counting`)."""


def make_policy(name: str, asking: Asking | None = None) -> Policy:
    """The policy called `name`, the one that a training run wrote into the folder `name`, or a language
    model as it came: `openai:URL#MODEL`, a name of ours (`rlmemo.model.named`), a folder in hub format, or a
    hub's name in the local cache (`text:NAME` fetches it where it is not there).

    asking: how a model that is not trained here is asked (None: as if no option were given).

    Raises InputError for a name that is neither, and for a folder without an adapter.
    """
    if name in COUNTING:
        return CountingPolicy(name)
    if name == "none":
        return NonePolicy()
    if name == "gbdt":
        return GbdtPolicy()
    if name == "gru4rec":
        from rlmemo.policies import gru4rec

        return gru4rec.policy()
    if name == "sasrec":
        from rlmemo.policies import sasrec

        return sasrec.policy()
    if name == "base":
        return LanguagePolicy(load_adapted(EMBEDDED, None), "base")
    if name == "oracle":
        return OraclePolicy()
    if name == "sb3":
        return Sb3Policy()
    if name.startswith("openai:"):
        return EndpointPolicy(name, asking)
    if name.startswith("text:"):
        name = name.removeprefix("text:")
        check_model(name)
    if name in NAMED:
        check_model(name)
    folder = Path(name).expanduser()
    if _is_model(name):
        return untrained(name, asking.shots if asking else 0)
    if folder.is_dir():
        check_finished([name])
        if not (folder / "adapter").is_dir():
            raise InputError(
                f"{name}: this folder holds no adapter/, so no run ended here; "
                "give the folder that `python -m rlmemo.train --out` wrote"
            )

        return load_run(folder).policy
    close = get_close_matches(name, POLICIES, n=1)
    guess = f"; did you mean {close[0]}?" if close else ""
    raise InputError(
        f"policy {name!r} is no policy and no run folder{guess} (policies: {', '.join(POLICIES)})"
    )


def setup(name: str, world: Mapping[str, Any] = {}, asking: Asking | None = None) -> Setup:
    """The policy called `name`, or a run's folder, ready to be fitted and to plan.

    world: what is to be otherwise than in the run's own world, or in the usual one, by name. `base` plans by
    the planner that is shipped with it. Raises InputError as `make_policy` does.
    """
    if is_run(name):
        made = load_run(name)
        return replace(made, world=replace(made.world, **world))
    policy, rules = make_policy(name, asking), WorldOptions(**world)
    return Setup(policy, shipped_planner(rules) if name == "base" else planner_of(policy), rules)


def to_follow(name: str, world: Mapping[str, Any] = {}) -> Setup:
    """As `setup`, for a program that one leaves running: the base as it is shipped comes as its weights alone
    (`rlmemo.model.small_qwen3.Bare`), in less memory and sooner. It ranks the same, and says no plans of its
    own."""
    if name != "base":
        return setup(name, world)
    rules = WorldOptions(**world)
    return Setup(LanguagePolicy(read_bare(model_folder(EMBEDDED)), "base"), shipped_planner(rules), rules)


def check_finished(names: Sequence[str]) -> None:
    """Raises InputError where one of the names is the folder of a run that has not come to its end: said
    before anything is loaded."""
    for name in names:
        if is_run(name) and (why := unfinished(Path(name).expanduser())):
            raise InputError(why)


def is_run(name: str) -> bool:
    """Whether `name` is the folder of a training run, as `make_policy` takes it."""
    folder = Path(name).expanduser()
    return name not in POLICIES and folder.is_dir() and not _is_model(name)


def _is_model(name: str) -> bool:
    """Whether `name` is a model of a name of ours that was fetched, a folder in hub format, or a hub's name
    that lies in the local cache."""
    if name not in NAMED and not Path(name).expanduser().is_dir() and "/" not in name:
        return False

    return (model_folder(name) / "config.json").is_file()


def make_policies(names: str | Sequence[str], asking: Asking | None = None) -> list[Policy]:
    """Policies from a list, or from one string with commas; the same name twice counts once."""
    parts = names.split(",") if isinstance(names, str) else list(names)
    wanted = list(dict.fromkeys(part.strip() for part in parts if part.strip()))
    if not wanted:
        raise InputError(f"no policy was named; give some of {', '.join(POLICIES)}, or a run folder")
    check_finished(wanted)
    return [make_policy(name, asking) for name in wanted]
