"""The settings of a training run: one dataclass, read from the command line, a YAML file or a run folder.

Nothing heavy is imported here: `python -m rlmemo.train --help` and every complaint about bad settings
answer before torch is loaded.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from env.errors import InputError
from env.judge.cost import PAST_RULES
from env.judge.world_options import COSTS_HELP, LET_GO_HELP, LET_GO_PICKS_HELP, MOST_PICKS, WorldOptions
from env.splits import SPLITS
from rlmemo.learning.bounds import Bounds
from rlmemo.learning.not_given import filled
from rlmemo.model.hub import PROMPTED, PROMPTS, Loading
from rlmemo.policies.registry import COUNTING
from rlmemo.runs.stages import METHODS, ONLINE, STAGES, stages_of

CRITICS = ("hindsight", "state")
QUANTIZE = ("none", "4bit")
DTYPES = ("auto", "float32", "bfloat16")
DPO_LOSSES = (
    "sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "bco_pair", "nca_pair", "sppo_hard", "aot",
    "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft",
)  # fmt: skip
"""Losses of TRL's DPOTrainer that need no further setting."""
PEFT_KINDS = {
    "lora": "low-rank updates of the linear layers",
    "dora": "lora with direction and size of each row apart",
    "adalora": "low-rank updates whose ranks are shared out while training",
    "ia3": "one factor per key, value and hidden unit",
    "prefix": "learned keys and values before the moment, in every layer",
    "p-tuning": "learned tokens before the moment, written by a small network",
    "prompt": "learned tokens before the moment",
    "none": "no adapter: every weight of the model is trained",
}
OF_THE_ADAPTER = ("peft", "lora_rank", "lora_layers", "lora_alpha", "virtual_tokens", "prompt")
"""Settings that a saved adapter keeps, whoever goes on from it."""
REPORTERS = ("none", "trackio", "tensorboard", "wandb")
PAIRINGS = ("weighted", "on_policy", "extremes")
SCORERS = ("fit", "shipped")
KEEP = ("best", "last")
PLAN_WORLDS = ("played", "still")
BASELINES = "none,mfu,mru,markov1,backoff3,gbdt"
PLAN_BASELINES = (*COUNTING, "gbdt")
"""Classical policies whose plans can be among those compared."""


GONE: dict[str, tuple[float, str]] = {
    "dpo_sft": (0.0, "the SFT term brought nothing; --dpo-loss sigmoid+sft has it with weight 1"),
    "group_epochs": (1.0, "give more --group-states"),
    "ppo_entropy": (0.0, "an entropy bonus brought nothing"),
    "ppo_kl_weight": (0.01, "the weight adapts; say how far with --ppo-kl"),
    "ppo_critic_lr": (1e-3, "it is always that"),
    "ppo_value_clip": (0.5, "it is always that"),
}
"""Settings that there were: what they always are now, and what is said of that."""


def _setting(
    default: Any,
    text: str,
    group: str,
    choices: tuple[str, ...] = (),
    because: str = "",
    **bounds: float,
) -> Any:
    """A setting, what is said of it, and what it accepts: one of `choices`, or the numbers of its `Bounds`;
    because: what its refusal begins with, of a choice what it adds."""
    said = {"help": text, "group": group, "choices": choices, "bounds": Bounds(**bounds), "because": because}
    return field(default=default, metadata=said)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides how a run comes out, apart from the timelines themselves."""

    timelines: str = _setting(
        "demo", "demo, demo-nights, webtrackr, gesis, lsapp, a database, a CSV, or a Parquet file or folder",
        "data",
    )  # fmt: skip
    tz: str | None = _setting(None, "IANA time zone, where the source does not say", "data")
    db: str | None = _setting(
        None, "database that notes this run (left out: the one of --timelines, if it is one)", "data"
    )
    split: str = _setting("chrono", "how events are parted into training and test", "data", SPLITS)
    method: str = _setting(
        "dpo", "; ".join(f"{k}: {v}" for k, v in METHODS.items()), "learning", tuple(METHODS)
    )
    model: str = _setting(
        "embedded", "embedded, a folder in hub format, or a hub's name such as Qwen/Qwen3-0.6B", "learning"
    )
    seed: int = _setting(0, "decides every random choice", "learning", low=0, high=2**32 - 1)

    reward: str = _setting("net_seconds", "preset (net_seconds, memo, device) or TERM=WEIGHT,…", "world")
    costs: str = _setting("desktop", COSTS_HELP, "world")
    budget: float = _setting(8.0, "memory for what is warm, in median targets", "world", above=0)
    ttl_s: float = _setting(1800.0, "seconds after which an unused prewarm goes", "world", low=1)
    let_go: str = _setting(
        "lru", LET_GO_HELP, "world", PAST_RULES,
        because=" (expected goes by what a policy has learned already: in benchmark and predict)",
    )  # fmt: skip
    let_go_picks: int = _setting(2, LET_GO_PICKS_HELP, "world", low=0, high=MOST_PICKS)
    off_after_s: float = _setting(
        0.0, "a pause of more seconds means the machine was switched off; 0: never", "world", low=0
    )
    close_after_s: float = _setting(
        0.0, "seconds out of sight after which the user closes something; 0: never", "world", low=0
    )
    picks: int = _setting(
        3,
        "K, prewarms per plan at most",
        "world",
        low=1,
        high=MOST_PICKS,
        because=f"a slate has {MOST_PICKS} places",
    )

    scorer: str = _setting(
        "fit",
        "fit: the trees whose answer the model reads are fitted on the training part; shipped: as they came",
        "learning",
        SCORERS,
    )
    peft: str = _setting(
        "lora", "; ".join(f"{k}: {v}" for k, v in PEFT_KINDS.items()), "learning", tuple(PEFT_KINDS)
    )
    init_adapter: str | None = _setting(
        None, "run folder to go on from: its adapter takes the place of SFT", "learning"
    )
    lora_rank: int = _setting(16, "rank of the adapter (adalora: on average, in the end)", "learning", low=1)
    lora_layers: int = _setting(
        0, "layers that lora and dora change, the last ones: those below are only read, in less time; 0: all",
        "learning", low=0,
    )  # fmt: skip
    lora_alpha: int = _setting(32, "scale of the adapter (alpha / rank multiplies it)", "learning", low=1)
    virtual_tokens: int = _setting(16, "learned tokens of prefix, p-tuning and prompt", "learning", low=1)
    checkpoint_steps: int = _setting(25, "updates between two checkpoints", "learning", low=1)
    report_to: str = _setting(
        "none", "where metrics go as well, besides metrics.jsonl and report.html", "learning", REPORTERS
    )

    sft_states: int = _setting(8000, "training states for SFT at most, drawn at random", "sft", low=1)
    sft_epochs: float = _setting(1.0, "passes over them", "sft", above=0)
    sft_batch: int = _setting(32, "states per update", "sft", low=1)
    sft_updates: int = _setting(0, "updates at least: few states get more passes", "sft", low=0)
    sft_lr: float = _setting(3e-3, "learning rate (this default: for lora)", "sft", above=0)

    plan_states: int = _setting(
        2500, "training states whose plans are scored by forking, at most", "plans", low=1
    )
    plan_samples: int = _setting(4, "plans sampled from the model per state", "plans", low=0)
    temperature: float = _setting(1.0, "of that sampling", "plans", above=0)
    plan_top_p: float = _setting(
        1.0,
        "each choice of that sampling is among the likeliest with this share (nucleus); 1: all",
        "plans",
        above=0,
        high=1,
    )
    plan_baselines: str | None = _setting(
        None,
        f"classical policies whose plans are compared as well, joined by commas: {', '.join(PLAN_BASELINES)}",
        "plans",
    )
    margin: float = _setting(
        0.02, "two plans are a pair when their rewards differ by this much", "plans", low=0
    )
    pairing: str = _setting(
        "weighted",
        "weighted: any two plans, in proportion to their difference; on_policy: and to the odds that the "
        "model says them; extremes: best against worst",
        "plans",
        PAIRINGS,
    )

    plan_world: str = _setting(
        "played",
        "played: preferences are drawn in the world that the model's own ranking, in charge, has left; "
        "still: in the one in which nobody prewarms",
        "plans",
        PLAN_WORLDS,
    )
    preference_rounds: int = _setting(
        1,
        "times that plans are said, scored and learned from; states and pairs are shared out",
        "plans",
        low=1,
    )

    preference_keep: str = _setting(
        "best",
        "best: of SFT and all rounds, the adapter that plans best on validation; last: the last round's",
        "plans",
        KEEP,
    )

    dpo_pairs: int = _setting(2400, "pairs at most", "dpo", low=1)
    dpo_epochs: float = _setting(1.0, "passes over them", "dpo", above=0)
    dpo_batch: int = _setting(32, "pairs per update", "dpo", low=1)
    dpo_lr: float = _setting(3e-4, "learning rate (this default: for lora)", "dpo", above=0)
    dpo_beta: float = _setting(0.1, "how strongly the model is held to the SFT model", "dpo", above=0)
    dpo_loss: str = _setting("sigmoid", "TRL loss type, several joined by +, e.g. sigmoid+sft", "dpo")

    kto_plans: int = _setting(4800, "single plans at most", "kto", low=2)
    kto_epochs: float = _setting(1.0, "passes over them", "kto", above=0)
    kto_batch: int = _setting(32, "plans per update", "kto", low=2)
    kto_lr: float = _setting(3e-4, "learning rate (this default: for lora)", "kto", above=0)
    kto_beta: float = _setting(0.1, "how strongly the model is held to the SFT model", "kto", above=0)

    ppo_rollouts: int = _setting(10, "rollouts at most", "ppo", low=1)
    ppo_lanes: int = _setting(32, "episodes that are played side by side", "ppo", low=1)
    ppo_steps: int = _setting(64, "decisions per lane and rollout", "ppo", low=2)
    ppo_episode: int = _setting(64, "decisions per episode at most", "ppo", low=2)
    ppo_epochs: int = _setting(2, "passes over a rollout", "ppo", above=0)
    ppo_batch: int = _setting(256, "decisions per update", "ppo", low=2)
    ppo_lr: float = _setting(2e-3, "learning rate of the adapter", "ppo", above=0)
    ppo_critic: str = _setting(
        "hindsight",
        "state: sees the moment; hindsight: and what came next, as a baseline may",
        "ppo",
        CRITICS,
    )
    ppo_clip: float = _setting(
        0.2, "how far the odds of a token may move in a rollout's updates", "ppo", above=0
    )
    ppo_half_life: float = _setting(
        0.0,
        "seconds in which what is to come counts half (0: it counts in full, as the reward does)",
        "ppo",
        low=0,
    )
    ppo_lambda: float = _setting(0.9, "0 trusts the critic, 1 what was seen", "ppo", low=0, high=1)
    ppo_kl: float = _setting(
        1.0, "divergence from the model at the start that is aimed at, nats", "ppo", above=0
    )
    ppo_validate: int = _setting(2, "rollouts between two looks at validation", "ppo", low=1)
    ppo_patience: int = _setting(3, "looks without a better result after which learning stops", "ppo", low=1)

    rollout_workers: int = _setting(
        0, "Ray's workers that sample and score (ppo, grpo, rloo); 0: this process does it", "learning", low=0
    )

    group_states: int = _setting(2048, "training states at most", "groups", low=1)
    group_plans: int = _setting(8, "plans sampled per state", "groups", low=2)
    group_batch: int = _setting(256, "plans per update", "groups", low=2)
    group_lr: float = _setting(2e-3, "learning rate", "groups", above=0)
    group_beta: float = _setting(0.01, "how strongly the model is held to the SFT model", "groups", above=0)

    adapter_per_user: bool = _setting(
        False, "go on from the shared adapter with one for each user, on that user's part alone", "users"
    )
    user_states: int = _setting(4000, "training states per user at most, drawn at random", "users", low=1)
    user_epochs: float = _setting(
        2.0, "passes over them, or over the user's pairs or plans", "users", above=0
    )
    user_lr: float = _setting(1e-3, "learning rate (this default: for lora)", "users", above=0)

    feedback: str | None = _setting(
        None, "database whose ratings are learned from (see docs/feedback.md)", "feedback"
    )
    feedback_weight: float = _setting(
        1.0, "how much a thumb counts, in units of the reward's rating term", "feedback", low=0
    )
    feedback_keep: float | None = _setting(
        None,
        "plan what is liked most that keeps this share of the reward and holds hits at equal waste, 0 to 1",
        "feedback",
        low=0,
        high=1,
    )

    prompt: str = _setting("short", "how a moment is worded: in levels, or long, in words", "text", PROMPTS)
    history: int = _setting(
        Loading.history, "events in a prompt at least, twice as many at most", "text", low=1
    )
    micro_batch: int = _setting(
        0,
        "states in one pass; an update sums up several (0: all at once); it divides the batches of the run's "
        "stages",
        "text",
        low=0,
    )
    quantize: str = _setting("none", "4bit: the base model in 4 bits, through bitsandbytes", "text", QUANTIZE)
    dtype: str = _setting("auto", "in which a model of a hub reads and learns on the CPU", "text", DTYPES)

    policies: str = _setting(BASELINES, "baselines in the report, joined by commas", "evaluation")

    def as_dict(self) -> dict[str, Any]:
        """The settings by name."""
        return asdict(self)

    @property
    def world(self) -> WorldOptions:
        """The world that the run is trained for."""
        return WorldOptions.of(self.as_dict())

    @property
    def loading(self) -> Loading:
        """How a model that reads text is loaded."""
        learned = self.virtual_tokens if self.peft in PROMPTED else 0
        return Loading(self.history, self.quantize, self.micro_batch, self.dtype, learned, self.prompt)

    @property
    def adapter_text(self) -> str:
        """What is trained, in words."""
        if self.peft == "none":
            return "the whole model"
        names = {"lora": "LoRA", "dora": "DoRA", "adalora": "AdaLoRA", "ia3": "IA3", "p-tuning": "P-tuning"}
        name = names.get(self.peft, f"{self.peft} tuning")
        if self.peft in ("lora", "dora", "adalora"):
            return f"{name}, rank {self.lora_rank}, alpha {self.lora_alpha}"
        return name if self.peft == "ia3" else f"{name}, {self.virtual_tokens} learned tokens"

    @property
    def planned_by(self) -> tuple[str, ...]:
        """The classical policies whose plans are among those compared, each once."""
        return _listed(self.plan_baselines or "")

    @property
    def baselines(self) -> tuple[str, ...]:
        """The policies that stand beside the run's in its report, each once; there may be none."""
        return _listed(self.policies)

    @property
    def shared_stages(self) -> tuple[str, ...]:
        """The stages in which one model learns from everybody, in order."""
        return stages_of(self.method)

    @property
    def preference(self) -> str | None:
        """The stage that learns from preferences by replay, if there is one: dpo or kto."""
        return next((s for s in self.shared_stages if STAGES[s].kind == "preference"), None)

    @property
    def stages(self) -> tuple[str, ...]:
        """The learning stages of this run, in order."""
        return (*self.shared_stages, "users") if self.adapter_per_user else self.shared_stages


def _listed(names: str) -> tuple[str, ...]:
    """Names joined by commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))


def settings() -> list[Field[Any]]:
    """The settings, in the order in which `--help` shows them."""
    return list(fields(TrainConfig))


def of_run(values: Mapping[str, Any], where: str) -> TrainConfig:
    """The configuration of a run folder, an older version's included: settings that there are no more are
    left out, and it is said where one was not what it always is now."""
    known = {f.name for f in settings()}
    for name, value in values.items():
        if name in GONE and value != GONE[name][0]:
            print(f"{where}: {name} {value} is taken for {GONE[name][0]:g}: {GONE[name][1]}", file=sys.stderr)
    values = {"prompt": PROMPTS[-1], "sft_updates": 0, **values}
    return make_config({name: value for name, value in values.items() if name in known}, where)


def make_config(
    values: Mapping[str, Any], where: str = "the command line", lines: Mapping[str, int] | None = None
) -> TrainConfig:
    """A checked configuration from `values` (names with - or _; the rest keeps its default).

    Raises InputError, naming `where` (and the line, of names in `lines`) and what was accepted, for an
    unknown name, a value of the wrong kind or one out of range.
    """
    try:
        return _made(values, where)
    except InputError as error:
        said = str(error).removeprefix(f"{where}: ")
        name = next((n for n in lines or {} if re.search(rf"(?<![\w-]){re.escape(n)}(?![\w-])", said)), None)
        if lines and name is not None:
            raise InputError(f"{where}:{lines[name]}: {said}") from None
        raise


def _made(values: Mapping[str, Any], where: str) -> TrainConfig:
    known = {f.name: f for f in settings()}
    clean: dict[str, Any] = {}
    for name, value in values.items():
        key = str(name).replace("-", "_")
        if key in GONE:
            now, why = GONE[key]
            if value != now:
                raise InputError(f"{where}: {name} is no setting any more, it is always {now:g}: {why}")
            continue
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            raise InputError(f"{where}: there is no setting {str(name)!r}; {hint}")
        clean[key] = _typed(known[key], value, where)
    config = TrainConfig(**filled(clean))
    _check(config, where)
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file: a mapping, or a run's `config.yaml` (the part under `settings`).

    Raises InputError for a file that is not there or is no such mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise InputError(f"{path}: cannot be read ({reason}); --config takes a YAML file") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise InputError(f"{path}{line}: is no YAML; write one `setting: value` per line") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds no mapping; write one `setting: value` per line")
    inner = data.get("settings", data)
    if not isinstance(inner, dict):
        raise InputError(f"{path}: `settings` is no mapping; write one `setting: value` per line")
    return inner


def yaml_lines(path: Path) -> dict[str, int]:
    """In which line each setting of a file stands that `read_yaml` has read.

    Raises InputError where one stands twice: only the last would count.
    """
    node: Any = yaml.compose(path.read_text(encoding="utf-8"))
    pairs = node.value if node is not None else []
    inner = next((v for k, v in pairs if k.value == "settings"), None)
    found: dict[str, int] = {}
    for key, _ in pairs if inner is None else inner.value:
        name, line = str(key.value).replace("-", "_"), key.start_mark.line + 1
        if name in found:
            raise InputError(f"{path}:{line}: {name} stands in line {found[name]} already; keep one")
        found[name] = line
    return found


def check_method(method: str) -> None:
    """Raises InputError, with a suggestion, unless `method` is one of `METHODS`."""
    if method in METHODS:
        return
    names = ", ".join(METHODS)
    close = difflib.get_close_matches(method, METHODS, n=1, cutoff=0.4)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise InputError(f"no method is called {method!r}{hint or ';'} there are {names}")


def _typed(setting: Field[Any], value: Any, where: str) -> Any:
    kind = str(setting.type)
    name = setting.name
    if value is None:
        if "None" in kind:
            return None
        raise InputError(f"{where}: {name} is empty; give a value such as {setting.default}")
    if name == "reward" and isinstance(value, Mapping):
        return ",".join(f"{k}={v}" for k, v in value.items())
    if kind == "bool":
        known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if str(value).strip().lower() not in known:
            raise InputError(f"{where}: {name} is {value!r}; give true or false")
        return known[str(value).strip().lower()]
    if kind.startswith("str"):
        if name in ("policies", "plan_baselines", "reward") and isinstance(value, list):
            return ",".join(str(x) for x in value)
        if isinstance(value, list | Mapping):
            such = "" if setting.default is None else f" such as {setting.default}"
            raise InputError(f"{where}: {name} is {value!r}; give one value{such}")
        return str(value)
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
        if not math.isfinite(number) or (kind.startswith("int") and number != int(number)):
            raise ValueError
    except (TypeError, ValueError):
        what = "a whole number" if kind.startswith("int") else "a number"
        such = "" if setting.default is None else f" such as {setting.default}"
        raise InputError(f"{where}: {name} is {value!r}; give {what}{such}") from None
    return int(number) if kind.startswith("int") else number


def _check(config: TrainConfig, where: str) -> None:
    check_method(config.method)
    for f in settings():
        choices, because = f.metadata["choices"], f.metadata["because"]
        value = getattr(config, f.name)
        if choices and value not in choices:
            close = difflib.get_close_matches(str(value), choices, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(choices)}"
            raise InputError(f"{where}: {f.name} {value!r} is none of {', '.join(choices)}{because}; {hint}")
        bounds = f.metadata["bounds"]
        if isinstance(value, int | float) and not bounds.hold(value):
            said = f"{value:g}" if isinstance(value, float) else value
            why = f"{because}, so " if because else ""
            raise InputError(f"{where}: {f.name} is {said}; {why}give {bounds.in_words()}")
    for name in config.planned_by:
        if name not in PLAN_BASELINES:
            close = difflib.get_close_matches(name, PLAN_BASELINES, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(PLAN_BASELINES)}"
            raise InputError(f"{where}: plan_baselines {name!r} is no classical policy; {hint}")
    if config.init_adapter and config.method == "sft":
        raise InputError(f"{where}: init_adapter takes the place of SFT; give another method, such as dpo")
    online = [stage for stage in config.shared_stages if stage in ONLINE]
    if online and config.peft not in ("lora", "dora"):
        raise InputError(f"{where}: {online[0]} trains adapters of kind lora or dora, not {config.peft}")
    if online and config.adapter_per_user:
        raise InputError(f"{where}: adapter_per_user goes with sft, dpo and kto, not with {config.method}")
    _check_batches(config, where)
    _check_rounds(config, where)
    for name in config.dpo_loss.split("+"):
        if name not in DPO_LOSSES:
            close = difflib.get_close_matches(name, DPO_LOSSES, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(DPO_LOSSES)}"
            raise InputError(f"{where}: dpo_loss {name!r} is no loss; {hint}")
    if config.adapter_per_user and config.peft == "none":
        raise InputError(
            f"{where}: adapter_per_user needs an adapter, and peft none trains the whole model; choose one "
            f"of {', '.join(k for k in PEFT_KINDS if k != 'none')}"
        )
    if config.adapter_per_user and config.method not in ("sft", "dpo", "kto"):
        raise InputError(
            f"{where}: adapter_per_user goes with method sft, dpo or kto, and not with {config.method}"
        )


def _check_rounds(config: TrainConfig, where: str) -> None:
    """Each round has states and rows of its own."""
    each = {"dpo": {"plan_states": 1, "dpo_pairs": 1}, "kto": {"plan_states": 1, "kto_plans": 2}}
    for name, least in each.get(str(config.preference), {}).items():
        most = getattr(config, name) // least
        if config.preference_rounds > most:
            raise InputError(
                f"{where}: {name} {getattr(config, name)} cannot be shared out among preference_rounds "
                f"{config.preference_rounds}; give {most} rounds at most, or more {name}"
            )


def _check_batches(config: TrainConfig, where: str) -> None:
    """What TRL's trainers would end in a traceback at, after the model was loaded."""
    rollout = config.ppo_lanes * config.ppo_steps
    said = f"a rollout of {config.ppo_lanes} x {config.ppo_steps} decisions"
    if "ppo" in config.shared_stages:
        if rollout % 2:
            raise InputError(
                f"{where}: {said} is an odd number of them, and they are learned from in pairs; give an even "
                f"ppo_lanes or ppo_steps, such as ppo_steps {config.ppo_steps + 1}"
            )
        parts = [
            x for x in range(2, rollout + 1) if rollout % x == 0 and (x < rollout or config.ppo_epochs > 1)
        ]
        near = min(parts, key=lambda x: abs(x - config.ppo_batch), default=None)
        if rollout % config.ppo_batch:
            raise InputError(
                f"{where}: ppo_batch {config.ppo_batch} does not divide {said}; give one that does, such as "
                f"{near or rollout}"
            )
        if config.ppo_epochs == 1 and config.ppo_batch == rollout:
            smaller = f"a smaller ppo_batch, such as {near}, or " if near else ""
            raise InputError(
                f"{where}: ppo_batch {config.ppo_batch} is all of {said}, and ppo_epochs is 1: one update a "
                f"rollout, in which nothing could be clipped; give {smaller}ppo_epochs 2"
            )
    if config.group_batch % config.group_plans:
        raise InputError(
            f"{where}: group_batch {config.group_batch} does not hold whole groups of {config.group_plans} "
            f"plans; give a multiple of {config.group_plans}, such as "
            f"{max(1, round(config.group_batch / config.group_plans)) * config.group_plans}"
        )
    micro, least = config.micro_batch, 2 if "kto" in config.shared_stages else 1
    if micro == 1 and least == 2:
        raise InputError(
            f"{where}: micro_batch is 1, and KTO compares the plans of one pass with each other; give 2 or "
            "more, or 0 for all of an update at once"
        )
    batches = {} if config.init_adapter else {"sft_batch": config.sft_batch}
    if config.preference:
        batches |= {f"{config.preference}_batch": getattr(config, f"{config.preference}_batch")}
    for name, batch in batches.items():
        if micro and micro < batch and batch % micro:
            fits = [x for x in range(least, micro) if not any(b % x for b in batches.values())]
            raise InputError(
                f"{where}: micro_batch {micro} does not divide {name} {batch}, so an update would not count "
                f"{batch}; give one that does, such as {max(fits, default='0 (all of it at once)')}"
            )
