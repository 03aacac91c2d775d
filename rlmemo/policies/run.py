"""Who plans, by what, and in which world: a trained run with its own, any other policy with the default
one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from env.errors import InputError
from env.judge.world_options import WorldOptions
from rlmemo.model.hub import EMBEDDED, PROMPTED, PROMPTS, Loading, check_model, embedded_as, model_sha256
from rlmemo.model.load import load_adapted, load_switching, reading_for
from rlmemo.model.named import NAMED
from rlmemo.model.text import TextReading
from rlmemo.policies.language import LanguagePolicy
from rlmemo.policies.planners import (
    Planner,
    Threshold,
    choose_threshold,
    from_json,
    rank_wakes,
    told,
)
from rlmemo.policies.protocol import Policy
from rlmemo.runs import plan_file
from rlmemo.runs.folder import COSTS, unfinished
from rlmemo.runs.plan_file import BASE, PLAN

if TYPE_CHECKING:
    from env.judge.case import Case


@dataclass(frozen=True)
class Setup:
    """What a run folder loads to, and what a policy that has a name is used with.

    policy: its own `planner` is None where a run plans by a threshold that it chose, so that a benchmark may
    choose one for the world that it judges in. planner: what the run chose on its validation part, or the
    shipped one; None where nothing is chosen yet (`by`). world: what a run was trained for.
    """

    policy: Policy
    planner: Planner | None
    world: WorldOptions

    def by(self, cases: Sequence[Case]) -> Planner:
        """What is planned by: the run's own choice, else the best threshold over `cases`."""
        if self.planner is not None:
            return self.planner
        rankings = [self.policy.rank(c.timeline, c.indices) for c in cases]
        wakes = [rank_wakes(self.policy, c) for c in cases]
        known = [told(self.policy, c) for c in cases]
        return choose_threshold(known, rankings, self.world.worth(), wakes=wakes)[0]

    def planning_by(self, threshold: float | None, cases: Sequence[Case]) -> Planner:
        """The same, with a threshold that was asked for; it has no say where the policy plans by itself."""
        asked = threshold is not None and isinstance(self.planner, Threshold | None)
        return Threshold(float(threshold or 0.0)) if asked else self.by(cases)


def load_run(folder: str | Path) -> Setup:
    """The policy, planner and world of a run folder. Raises InputError where it holds no finished run."""
    folder = Path(folder)
    settings, base, loading, choice = _known_of(folder)
    if (folder / COSTS).exists():  # the run's own copy: the file that it was made from may have changed
        settings["costs"] = str(folder / COSTS)
    planner = from_json(choice, folder / "adapter")
    came = _as_it_came(folder, choice)
    model = load_adapted(base, None, loading) if came else _model(folder, base, loading)
    # A threshold that validation chose may be chosen anew; the shipped one stays because that chooses badly.
    asked = None if isinstance(planner, Threshold) and not came else planner
    return Setup(LanguagePolicy(model, folder.name, planner=asked), planner, WorldOptions.of(settings))


def reading_of_run(folder: Path) -> TextReading:
    """How a run's model reads a moment, without loading it. Raises InputError where it reads no text."""
    _, base, loading, _ = _known_of(folder)
    found = reading_for(base, loading)
    if not isinstance(found, TextReading):
        raise InputError(f"{folder}: its model {base} reads no text; give a run of a text model")
    return found


def base_of_run(folder: Path) -> str:
    """What `--model` takes for the base model of a run."""
    return _known_of(folder)[1]


def merged(folder: Path) -> Any:
    """The language model of a run, in float32, its adapter merged (as it came, where that is in charge)."""
    _, base, loading, choice = _known_of(folder)
    adapter = None if _as_it_came(folder, choice) else folder / "adapter"
    return load_adapted(base, adapter, replace(loading, dtype="float32"))


def _known_of(folder: Path) -> tuple[dict[str, Any], str, Loading, dict[str, Any]]:
    """(settings, base model, how it is loaded, what `plan.json` says) of a finished run."""
    if why := unfinished(folder):
        raise InputError(why)
    settings, met = _config(folder)
    try:
        choice = plan_file.read(folder) if (folder / "adapter" / PLAN).exists() else {"planner": "own"}
    except (OSError, ValueError) as error:
        raise _no_run(folder, error) from None
    base = str(settings.get("model", EMBEDDED))
    base = embedded_as(met.get("base_sha256")) if base == EMBEDDED else base
    then = {"prompt": PROMPTS[-1], **settings}
    loading = Loading(**{f.name: then[f.name] for f in fields(Loading) if f.name in then})
    if settings.get("peft") in PROMPTED:
        loading = replace(loading, learned=int(settings.get("virtual_tokens", 0)))
    if base in NAMED:
        check_model(base, download=False)
    if met.get("base_sha256") and met["base_sha256"] != model_sha256(base):
        raise InputError(f"{folder}: its base model {base} has changed since; train it again with --out")
    return settings, base, loading, choice


def _as_it_came(folder: Path, choice: dict[str, Any]) -> bool:
    """Whether the model as it came is in charge of the run. Raises InputError for anybody else than it."""
    if choice.get("stage", BASE) != BASE:
        raise _no_run(folder, ValueError(f"{PLAN} names the stage {choice['stage']!r}"))
    return "stage" in choice


def _model(folder: Path, base: str, loading: Loading) -> Any:
    """The model, switching by user where the run has adapters for some."""
    if not (folder / "adapters").is_dir():
        return load_adapted(base, folder / "adapter", loading)
    return load_switching(base, folder, loading)


def _config(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        settings = config["settings"]
        if not isinstance(settings, dict):
            raise TypeError("settings is no mapping")
        return settings, config.get("met") or {}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise _no_run(folder, error) from None


def _no_run(folder: Path, error: Exception) -> InputError:
    return InputError(f"{folder}: is no finished run ({error}); train one with --out")
