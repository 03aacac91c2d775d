"""The beginning of a run: everything that can be wrong is found here, before anything heavy is loaded.

A run begins when its folder is made and `config.yaml` written into it: the settings under `settings`, and
under `met` what they met on this machine, so that the run can be repeated and a resume can tell whether
it still stands on the same data.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from env.errors import InputError
from env.judge.cost import WorldConfig
from env.judge.cost_presets import is_cost_file
from env.private import make_private
from env.sources import Loaded, load_timelines
from env.sources.sqlite_files import Kind
from env.splits import Split, split_by
from env.timeline import Timeline
from reward import Reward
from rlmemo.learning.config import OF_THE_ADAPTER, TrainConfig, read_yaml
from rlmemo.learning.processes import check_processes
from rlmemo.learning.training import quiet
from rlmemo.model import hub
from rlmemo.model.load import reading_for
from rlmemo.model.named import named_as
from rlmemo.model.readings import Reading
from rlmemo.policies.registry import POLICIES
from rlmemo.runs.atomic import write_atomic
from rlmemo.runs.folder import COSTS, RunFolder
from rlmemo.runs.learned_days import fingerprint
from rlmemo.runs.lock import Hold, hold
from rlmemo.runs.stages import ONLINE, STAGES
from rlmemo.store.database import check_store, open_store
from rlmemo.store.database_file import check_folder

LEAST_TRAINING, LEAST_VALIDATION, LEAST_TEST = 30, 1, 5
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "numba", "lightgbm")


@dataclass(frozen=True)
class Prepared:
    """A run that can begin: its settings and what was loaded for them. hold: keeps other commands out of
    its folder."""

    config: TrainConfig
    loaded: Loaded
    split: Split
    reward: Reward
    world: WorldConfig
    resumed: bool
    hold: Hold | None = None

    @property
    def timelines(self) -> list[Timeline]:
        return self.loaded.timelines


def prepare(config: TrainConfig, path: Path, *, resume: bool) -> Prepared:
    """Check the settings against the timelines, then make the run folder (or look at the one resumed).

    Raises InputError for whatever cannot be trained on; nothing is written then.
    """
    held = hold(path) if resume else None
    config = _on_its_base(config, path if resume else config.init_adapter)
    if (path / COSTS).exists() and resume:
        config = replace(config, costs=str(path / COSTS))
    config.world.check()
    reward, world = config.world.worth(), config.world.rules()
    if config.model.startswith("openai:"):
        raise InputError(
            "--model openai:…: a model behind an endpoint is asked as it is, never trained; compare it "
            "with python -m rlmemo.benchmark --policies openai:URL#MODEL, or train a model that lies here"
        )
    reading = check_model_settings(config)
    check_processes(config, reading)
    check_policies(config.baselines)
    check_before(config)
    if not resume:
        check_kind(config)
        check_means_something(config)
    check_reporter(config.report_to)
    if config.db is not None:
        check_database(Path(config.db))
    loaded = load_timelines(config.timelines, seed=config.seed, tz=config.tz)
    split = split_by(loaded.timelines, config.split)
    check_size(loaded, split)
    if reading is not None:
        check_context(config.model, reading, loaded.timelines)
    met = found_here(config, loaded)
    met["timelines"]["learned"] = learned_span(loaded.timelines, split)
    folder = RunFolder(path)
    if resume:
        _check_same(folder, met)
        folder.tidy()
        for remark in folder.recheck():
            print(f"  {remark}", file=sys.stderr)
    else:
        try:
            path.mkdir(parents=True, exist_ok=True)
            make_private(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be made ({error.strerror}); choose another --out") from None
        held = hold(path)
        if folder.config_file.exists():
            raise InputError(f"{path}: another command has begun a run here; choose another --out")
        _write_config(folder, config, met)
        if is_cost_file(config.costs):
            write_atomic(path / COSTS, Path(config.costs).read_text(encoding="utf-8"))
    return Prepared(config, loaded, split, reward, world, resume, held)


def _on_its_base(config: TrainConfig, run: Path | str | None) -> TrainConfig:
    """The settings with the base that a run met under the name `embedded`: going on from it means that
    one."""
    if run is None or config.model != hub.EMBEDDED:
        return config
    return replace(config, model=hub.embedded_as(_met(Path(run) / "config.yaml").get("base_sha256")))


def _met(file: Path) -> dict[str, Any]:
    """What a run met when it began; nothing where the file does not say."""
    try:
        return dict((yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("met") or {})
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return {}


def check_model_settings(config: TrainConfig) -> Reading | None:
    """How a model reads text, None for one that reads our own tokens. Raises InputError unless `--model` can
    be trained as the other settings say; a model of a hub is downloaded here where it is not in the local
    cache."""
    hub.check_model(config.model)
    if hub.is_slots(config.model):
        return None
    groups = [x for x in config.shared_stages if STAGES[x].options == "group"]
    if groups:
        raise InputError(
            f"--model {config.model}: {groups[0]} trains models that read our own tokens only; give --method "
            "sft, dpo, kto, ppo or dpo-ppo"
        )
    if config.quantize == "4bit" and "ppo" in config.shared_stages:
        raise InputError(
            "--quantize 4bit: PPO plays with the adapter merged into the weights, for which 4 bits are too "
            "coarse; leave it out, or give --method sft, dpo or kto"
        )
    if config.quantize == "4bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(hub.NO_BITSANDBYTES)
    if config.quantize == "4bit" and config.peft == "none":
        raise InputError(
            "--quantize 4bit leaves no weights that could be trained; give a --peft other than none"
        )

    quiet()

    return reading_for(config.model, config.loading)


def check_context(model: str, reading: Reading, timelines: Sequence[Timeline]) -> None:
    """Raises InputError where a question does not fit into the model's context."""
    most = max(timelines, key=lambda x: len(x.names))
    last = np.array([len(most) - 1])
    try:
        reading.prompts(most, reading.look(most, last), last)
    except InputError as error:
        raise InputError(f"model {model}: {error}") from None


def check_reporter(name: str) -> None:
    """Raises InputError where the package that metrics are reported to is not installed."""
    if name != "none" and importlib.util.find_spec(name) is None:
        raise InputError(
            f"--report-to {name}: {name} is not installed; `pip install {name}`, or leave it out: "
            "metrics.jsonl and report.html hold the same"
        )


def check_before(config: TrainConfig) -> None:
    """Raises InputError unless what earlier runs and raters left (--init-adapter, --feedback) is there."""
    if config.feedback is not None and not Path(config.feedback).is_file():
        raise InputError(
            f"--feedback {config.feedback}: there is no such file; predict and rate first: python -m "
            f"rlmemo.predict --db {config.feedback}, then python -m dashboard --db {config.feedback}"
        )
    if config.feedback is not None:
        open_store(config.feedback, make=False).close()
    if config.init_adapter is None:
        return
    run = Path(config.init_adapter)
    if not (run / "adapter" / "adapter_model.safetensors").is_file():
        raise InputError(
            f"--init-adapter {run}: holds no adapter/adapter_model.safetensors; give the folder of "
            "a finished run"
        )
    then = read_yaml(run / "config.yaml")
    model = named_as(str(then.get("model", hub.EMBEDDED)))
    if model != config.model and not (model == hub.EMBEDDED and config.model in hub.SHIPPED):
        raise InputError(
            f"--init-adapter {run}: was trained on --model {model}, not on {config.model}; give that model"
        )


def check_kind(config: TrainConfig) -> None:
    """Raises InputError where another adapter is asked for than the one that --init-adapter goes on from."""
    run = config.init_adapter
    then = read_yaml(Path(run) / "config.yaml") if run is not None else {}
    for name in OF_THE_ADAPTER:
        was, asked = then.get(name), getattr(config, name)
        if was is not None and was != asked:
            option = f"--{name.replace('_', '-')}"
            raise InputError(
                f"--init-adapter {run}: its adapter was made with {option} {was}, and stays so; leave out "
                f"{option} {asked}"
            )


def check_means_something(config: TrainConfig) -> None:
    """Raises InputError for a setting that says how to do what this run does not do: nobody should think that
    it counted."""
    usual = TrainConfig()
    for name in ("feedback_weight", "feedback_keep"):
        if config.feedback is None and getattr(config, name) != getattr(usual, name):
            raise InputError(
                f"--{name.replace('_', '-')} says what ratings count, and there are none; name their "
                "database with --feedback, or leave it out"
            )
    online = any(stage in ONLINE for stage in config.shared_stages)
    if config.rollout_workers and not online:
        raise InputError(
            f"--rollout-workers {config.rollout_workers} is for methods that learn from what they say "
            "meanwhile (ppo, dpo-ppo, grpo, rloo); leave it out"
        )
    if config.rollout_workers and importlib.util.find_spec("ray") is None:
        raise InputError("--rollout-workers: Ray is not installed; pip install 'rlmemo[ray]'")
    if config.quantize != usual.quantize and hub.is_slots(config.model):
        raise InputError(
            f"--quantize {config.quantize} is for models that read text; {config.model} is small, so leave "
            "it out"
        )


def check_database(path: Path) -> None:
    """Raises InputError where a run cannot be noted at `path`. None is made there yet."""
    if path.exists():
        if check_store(path) is not Kind.EMPTY:
            open_store(path).close()
    else:
        check_folder(path)


def check_policies(names: Sequence[str]) -> None:
    """Raises InputError for a baseline that does not exist, or whose package is not installed."""
    for name in names:
        if name not in POLICIES:
            raise InputError(f"--policies: no policy is called {name!r}; there are {', '.join(POLICIES)}")
    if "sb3" in names and importlib.util.find_spec("stable_baselines3") is None:
        raise InputError(
            "--policies sb3 needs Stable-Baselines3, which is not installed; pip install 'rlmemo[sb3]', or "
            "leave it out"
        )


def check_size(loaded: Loaded, split: Split) -> None:
    """Raises InputError where there is too little to learn from, to choose by or to test on."""
    counts = split.counts()
    events = sum(map(len, loaded.timelines))
    least = {"train": LEAST_TRAINING, "validation": LEAST_VALIDATION, "test": LEAST_TEST}
    if any(counts[part] < n for part, n in least.items()):
        raise InputError(
            f"{loaded.name}: {events} events (repeats collapsed) of {len(loaded.timelines)} user(s) leave "
            f"{counts['train']} for training, {counts['validation']} for validation and {counts['test']} for "
            f"the test; {LEAST_TRAINING}, {LEAST_VALIDATION} and {LEAST_TEST} are needed, so record "
            "more (parts are cut within each user), or try --timelines demo"
        )


def learned_span(timelines: Sequence[Timeline], split: Split) -> dict[str, float]:
    """From when to when (unix seconds) the events lie that a run learns from or chooses by."""
    last = [
        float(timeline.t[events].max())
        for part in (split.train, split.validation)
        for timeline, events in zip(timelines, part, strict=True)
        if len(events)
    ]
    return {"from": min(float(t.t[0]) for t in timelines if len(t)), "until": max(last)}


def found_here(config: TrainConfig, loaded: Loaded) -> dict[str, Any]:
    """What the settings met: versions, and hashes of the data and of the base model."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "timelines": {
            "name": loaded.name,
            "synthetic": loaded.synthetic,
            "users": len(loaded.timelines),
            "events": sum(map(len, loaded.timelines)),
            "collapsed": all(t.collapsed for t in loaded.timelines),
            "sha256": fingerprint(loaded.timelines),
        },
        "base_sha256": hub.model_sha256(config.model),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": versions,
    }


def _write_config(folder: RunFolder, config: TrainConfig, met: dict[str, Any]) -> None:
    head = (
        "# Everything that is needed to repeat this run:\n"
        "#   python -m rlmemo.train --config THIS_FILE --out ANOTHER_FOLDER\n"
    )
    body = yaml.safe_dump({"settings": config.as_dict(), "met": met}, sort_keys=False, allow_unicode=True)
    write_atomic(folder.config_file, head + body)


def _check_same(folder: RunFolder, met: dict[str, Any]) -> None:
    """A resumed run must stand on the same data and the same base model."""
    before = _met(folder.config_file)
    was, now = (before.get("timelines") or {}).get("sha256"), met["timelines"]["sha256"]
    if was and was != now:
        raise InputError(
            f"{folder.path}: the timelines have changed since this run began; start a new run with "
            "another --out"
        )
    if before.get("base_sha256") and before["base_sha256"] != met["base_sha256"]:
        raise InputError(
            f"{folder.path}: the base model has changed since this run began; start a new run with "
            "another --out"
        )
