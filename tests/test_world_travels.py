"""A run's world goes wherever the run goes: who predicts, rates, replays, estimates or goes on with it uses
its costs, budget, picks, expiry and reward, unless told otherwise on the command line."""

from __future__ import annotations

import json
from argparse import SUPPRESS, ArgumentParser
from contextlib import redirect_stdout
from dataclasses import fields, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboard.replay import caption
from env.errors import InputError
from env.judge import accounting
from env.judge.case import Case
from env.judge.cost import WorldConfig
from env.judge.cost_presets import cost_model
from env.judge.plans import OUTCOME_NAMES, Plans
from env.judge.world_options import WorldOptions
from env.sources import load_timelines
from env.timeline import Timeline
from rlmemo import benchmark, train
from rlmemo import predict as predicting
from rlmemo.approval.placed_ratings import read_ratings
from rlmemo.evaluation.last_week import would_have_saved
from rlmemo.feedback import __main__ as feedback
from rlmemo.options import WORLD_HELP, world_given
from rlmemo.policies.registry import setup
from rlmemo.policies.run import load_run
from rlmemo.predict import Options, predict
from rlmemo.store.database import open_store
from rlmemo.store.ratings import moment, rate, show_next
from rlmemo.store.records import Prediction
from rlmemo.store.waiting import desk
from tests.test_feedback_training import TINY, write_csv
from tests.tiny_base import write_tiny_base

WORLD = WorldOptions(
    costs="phone", budget=4.0, picks=2, ttl_s=600.0, reward="memo", let_go="lfu-decay", off_after_s=7200.0
)  # fmt: skip
GIVEN = (
    "--costs", "phone", "--budget", "4", "--picks", "2", "--ttl-s", "600", "--reward", "memo",
    "--let-go", "lfu-decay", "--off-after-s", "7200",
)  # fmt: skip
EXPLORE = 0.2


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(timelines as CSV, the folder of a run that was trained for `WORLD`)."""
    folder = tmp_path_factory.mktemp("world")
    csv, base = write_csv(folder / "two.csv"), write_tiny_base(folder / "base")
    line = ["--timelines", str(csv), "--tz", "UTC", "--model", str(base), "--method", "sft", *TINY, *GIVEN]
    with redirect_stdout(StringIO()):
        assert train.main([*line, "--out", str(folder / "run")]) == 0
    return csv, folder / "run"


@pytest.fixture(scope="module")
def rated(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with predictions of the run, some of them rated."""
    csv, run = trained
    db = tmp_path_factory.mktemp("rated") / "a.db"
    rng = np.random.default_rng(1)
    with open_store(db) as store:
        assert predict(store, str(csv), str(run), Options(n=60, explore=EXPLORE), tz="UTC") > 40
        for _ in range(40):
            showing = show_next(store, "ada", float(rng.random()))
            assert showing is not None
            rate(store, showing, int(rng.random() < 0.6))
    return db


def people(csv: Path) -> dict[str, Timeline]:
    return {x.user: x for x in load_timelines(str(csv), tz="UTC").timelines}


def by_hand(p: Prediction, timeline: Timeline, rules: WorldConfig, costs: str) -> tuple[list[str], float]:
    """What became of each prewarm of a stored plan, and the seconds that it saved, judged anew."""
    i = int(np.flatnonzero(timeline.t == p.t)[-1])
    plans = Plans.empty(len(timeline), rules.max_picks, rules.max_let_go)
    for k, name in enumerate(p.let_go):
        plans.let_go[i, k] = timeline.names.index(name)
    for k, x in enumerate(p.plan):
        plans.target[i, k] = timeline.names.index(x.target)
        plans.delay[i, k] = rules.delays.index(x.delay_s)
    arrays = cost_model(costs).arrays(timeline)
    resolved = (
        p.t + max(rules.delays) + float(arrays.load_s.max()) + rules.ttl_s
    )  # what came later is no part
    stop = int(np.searchsorted(timeline.t, resolved, side="right")) + 1
    still = Plans.empty(len(timeline), rules.max_picks)
    found, alone = (
        accounting.replay(timeline, arrays, rules, x, start=i + 1, stop=min(max(stop, i + 2), len(timeline)))
        for x in (plans, still)
    )
    became = [OUTCOME_NAMES[found.outcome[i, k]] for k in range(len(p.plan))]
    return became, found.total("saved_s") - alone.total("saved_s")


def test_a_run_folder_loads_to_its_world(trained: tuple[Path, Path]) -> None:
    assert load_run(trained[1]).world == setup(str(trained[1])).world == WORLD
    assert setup(str(trained[1]), {"budget": 2.0}).world == replace(WORLD, budget=2.0)
    assert WorldOptions.of(json.loads(json.dumps({"costs": "phone", "more": 1}))) == WorldOptions(
        "phone", let_go_picks=0
    ), "a run that names none is of a time when plans let nobody go"


def test_what_is_stored_is_what_came_of_it_in_that_world(trained: tuple[Path, Path], rated: Path) -> None:
    timelines = people(trained[0])
    other = 0
    with open_store(rated) as store:
        for p in store.predictions():
            assert p.outcome is not None
            assert len(p.plan) <= WORLD.picks
            became, saved = by_hand(p, timelines[p.user], WORLD.rules(), "phone")
            assert p.outcome["prewarms"] == became
            assert p.outcome["saved_s"] == pytest.approx(saved, abs=1e-5)
            assert moment(store, p.id or 0).world == WORLD
            usual = replace(WorldConfig(), max_picks=2)
            other += abs(by_hand(p, timelines[p.user], usual, "desktop")[1] - saved) > 1e-3
    assert other > 10, "in the usual world much would have come out otherwise"


def test_what_is_rated_reaches_as_far_as_a_prewarm_lasts_there(rated: Path) -> None:
    with open_store(rated) as store:
        cards = desk(store, "ada").cards.values()
        assert {round(c.until - c.t - max(d for _, d in c.plan), 6) for c in cards} == {600.0 + 60.0}
        assert {WorldOptions.of(r.world or {}) for r in read_ratings(store)} == {WORLD}


def test_the_last_week_is_replayed_in_that_world(trained: tuple[Path, Path]) -> None:
    csv, run = trained
    timeline = people(csv)["person0"]
    saved = would_have_saved(timeline, days=1, policy=str(run))
    assert saved is not None
    used = load_run(run)
    costs = cost_model("phone").arrays(timeline)
    start = len(timeline) - saved.opens
    rules = WorldConfig(
        budget_targets=4.0, max_picks=2, ttl_s=600.0, let_go="lfu-decay", off_after_s=7200.0
    )  # fmt: skip
    week = Case(timeline, costs, rules, start, len(timeline))
    before = replace(week, start=start // 2, stop=start)
    outcomes = week.replay(used.by([before]).plan(used.policy, week))
    assert (saved.table == outcomes.table[start:]).all()
    assert saved.world == saved.after(float(saved.t[0])).world == WORLD
    said = caption(timeline, saved)
    assert "memory for 4 typical targets, phone costs, at most 2 prewarms a plan, each for 10 minutes" in said
    assert "reward memo" in said
    assert "let go by lfu-decay" in said
    rule = would_have_saved(timeline, days=1)
    assert rule is not None
    assert "memory for 8 typical targets, desktop costs, at most 3" in caption(timeline, rule)
    beside = would_have_saved(timeline, days=1, world={"costs": "phone", "budget": 4.0})
    assert beside is not None
    assert (beside.world.costs, beside.world.budget) == ("phone", 4.0)


def test_it_is_estimated_in_that_world(
    trained: tuple[Path, Path], rated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On its own log a policy gets what was observed; in another world it does not plan the same."""
    line = ["evaluate", "--db", str(rated), "--timelines", str(trained[0]), "--tz", "UTC"]
    line += ["--policy", str(trained[1]), "--explore", str(EXPLORE), "--json", str(tmp_path / "e.json")]

    def estimated(*more: str) -> tuple[dict[str, Any], str]:
        feedback.main([*line, *more])
        return json.loads((tmp_path / "e.json").read_text()), capsys.readouterr().err

    own, said = estimated()
    assert WorldOptions(**own["world"]) == WORLD
    assert "note:" not in said
    assert len({round(own[k]["value"], 9) for k in ("logged", "ips", "snips", "dr")}) == 1
    assert (own["overlap"], own["mean_weight"]) == (1.0, pytest.approx(1.0))
    other, said = estimated("--budget", "16", "--ttl", "1800")
    assert WorldOptions(**other["world"]) == replace(WORLD, budget=16.0, ttl_s=1800.0)
    assert "plans here for memory for 16 typical targets" in said
    assert "was shown for memory for 4 typical targets" in said
    assert other["mean_weight"] != pytest.approx(1.0)


def test_a_policy_without_a_world_is_estimated_in_that_of_the_log(
    trained: tuple[Path, Path], rated: Path, tmp_path: Path
) -> None:
    line = ["evaluate", "--db", str(rated), "--timelines", str(trained[0]), "--tz", "UTC",
            "--policy", "markov1", "--json", str(tmp_path / "e.json")]  # fmt: skip
    with redirect_stdout(StringIO()):
        feedback.main([*line, "--picks", "3"])
    found = json.loads((tmp_path / "e.json").read_text())
    assert WorldOptions(**found["world"]) == replace(WORLD, picks=3)


def test_options_win_over_the_run(trained: tuple[Path, Path], tmp_path: Path) -> None:
    csv, run = trained
    line = ["--timelines", str(csv), "--tz", "UTC", "--policy", str(run), "--n", "10", "--still"]
    for more, world in (
        ([], WORLD),
        (["--budget", "2", "--picks", "1"], replace(WORLD, budget=2.0, picks=1)),
        (["--reward", "device"], replace(WORLD, reward="device")),
    ):
        with redirect_stdout(StringIO()):
            predicting.main([*line, "--db", str(tmp_path / "a.db"), *more])
        with open_store(tmp_path / "a.db") as store:
            (*_, last) = store.predictions()
            assert moment(store, last.id or 0).world == world
    with open_store(tmp_path / "a.db") as store:
        assert len(store.predictions()) == 30, "the same moments in another world are other predictions"


def test_who_goes_on_from_a_run_goes_on_in_its_world(trained: tuple[Path, Path], tmp_path: Path) -> None:
    line = ["--init-adapter", str(trained[1]), "--out", str(tmp_path / "next")]
    config, _, _ = train.read_command_line(line)
    assert WorldOptions.of(config.as_dict()) == WORLD
    config, _, _ = train.read_command_line([*line, "--budget", "8"])
    assert WorldOptions.of(config.as_dict()) == replace(WORLD, budget=8.0)
    (tmp_path / "a.yaml").write_text("picks: 1\n")
    config, _, _ = train.read_command_line([*line, "--config", str(tmp_path / "a.yaml")])
    assert WorldOptions.of(config.as_dict()) == replace(WORLD, picks=1)


def command(parser: ArgumentParser, name: str) -> ArgumentParser:
    """One of a parser's own commands."""
    found: ArgumentParser = parser._commands()[name]  # type: ignore[attr-defined]
    return found


PARSERS = {
    "train": train.parser(),
    "benchmark": benchmark.parser(),
    "predict": predicting.parser(),
    "evaluate": command(feedback.parser(), "evaluate"),
}


def test_one_vocabulary() -> None:
    """Whoever asks for a world shows the same options, with the same words and defaults."""
    usual = {f"--{f.name.replace('_', '-')}": f.default for f in fields(WorldOptions)}
    assert set(usual) == set(WORLD_HELP)
    assert set(usual) == {
        "--costs", "--budget", "--picks", "--ttl-s", "--let-go", "--let-go-picks", "--off-after-s",
        "--close-after-s",
        "--reward",
    }  # fmt: skip
    for name, parser in PARSERS.items():
        shown = parser.format_help()
        for option, default in usual.items():
            action = parser._option_string_actions[option]
            words = " ".join((action.help or "").replace("%%", "%").split())
            assert WORLD_HELP[option] in words, (name, option)
            assert f"(default: {default})" in words, (name, option)
            assert action.default in (SUPPRESS, None, default)
            assert option in shown
        assert "--cost " not in shown
        assert "--ttl " not in shown


@pytest.mark.parametrize("name", ["benchmark", "predict", "evaluate"])
def test_the_old_names_still_work_and_are_not_shown(name: str) -> None:
    needed = ["--policy", "mru"] if name == "evaluate" else []
    old = PARSERS[name].parse_args([*needed, "--cost", "web", "--ttl", "60"])
    new = PARSERS[name].parse_args([*needed, "--costs", "web", "--ttl-s", "60"])
    assert world_given(old) == world_given(new)
    assert (world_given(new)["costs"], world_given(new)["ttl_s"]) == ("web", 60.0)
    usual = world_given(PARSERS[name].parse_args(needed))
    assert WorldOptions(**usual) == WorldOptions()


def test_training_understands_the_old_names_too(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    old = train.read_command_line(["--cost", "web", "--ttl", "60", "--out", out])
    assert old == train.read_command_line(["--costs", "web", "--ttl-s", "60", "--out", out])
    assert (old[0].costs, old[0].ttl_s) == ("web", 60.0)


@pytest.mark.parametrize("name", ["benchmark", "predict", "evaluate"])
def test_a_preset_names_rules_and_options_beside_it_win(name: str) -> None:
    needed = ["--policy", "mru"] if name == "evaluate" else []
    day = world_given(PARSERS[name].parse_args([*needed, "--world", "day"]))
    assert day == {"off_after_s": 7200.0, "budget": 8.0}
    other = PARSERS[name].parse_args([*needed, "--world", "day", "--off-after-s", "60", "--picks", "2"])
    assert world_given(other) == {"off_after_s": 60.0, "budget": 8.0, "picks": 2}
    with pytest.raises(InputError, match="night"):
        PARSERS[name].parse_args([*needed, "--world", "night"])


def test_a_run_is_trained_in_a_preset_and_keeps_its_rules(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("off_after_s: 60\npicks: 2\n", encoding="utf-8")
    config, *_ = train.read_command_line(
        ["--world", "day", "--budget", "4", "--config", str(file), "--out", str(tmp_path / "run")]
    )
    assert config.world == WorldOptions(off_after_s=7200.0, budget=4.0, picks=2)
    assert "world" not in config.as_dict()
