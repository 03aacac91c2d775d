"""A training is never worse than the model as it is shipped: who is in charge of a run, and who says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dashboard import jobs, train
from env.errors import InputError
from env.judge.world_options import WorldOptions
from env.ranking import Ranking
from env.sources import load_timelines
from env.splits import chrono
from rlmemo.evaluation.bootstrap import Draws
from rlmemo.learning.in_charge import BASE, InCharge, as_shipped, decide, honest, put_in_charge, rewards
from rlmemo.learning.training_data import TrainingData
from rlmemo.policies.planners import Threshold
from rlmemo.policies.registry import make_policy, setup
from rlmemo.policies.run import load_run
from rlmemo.policies.shipped import FILE, shipped_planner
from rlmemo.runs.plan_file import PLAN
from rlmemo.train import main as run_train

OPENS = 600
QUICK = train.SIZES["A quick look"]


def draws(sessions: int, each: int) -> Draws:
    groups = np.repeat(np.arange(sessions), each)
    return Draws(groups, np.zeros(len(groups), np.int64))


# the rule


def test_what_was_learned_is_in_charge_where_it_is_clearly_better() -> None:
    before, noise = np.zeros(200), np.tile([0.04, -0.02], 100)
    better, error = put_in_charge(before, before + 0.1 + noise, draws(20, 10))
    assert better
    assert 0.0 <= error < 0.1


def test_with_little_to_choose_by_the_shipped_one_stays() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(0.0, 1.0, 56)
    lucky = before + rng.normal(0.0, 1.0, 56)
    gap = float((lucky - before).mean())
    better, error = put_in_charge(before, lucky + (error_half(before, lucky) - gap), draws(8, 7))
    assert not better, "ahead by half a standard error"
    assert error > 0


def error_half(before: np.ndarray, after: np.ndarray) -> float:
    return put_in_charge(before, after, draws(8, 7))[1] / 2


def test_few_opens_have_to_say_it_twice_as_clearly() -> None:
    """Ahead by one and a half standard errors: of a thousand opens that is enough, of fewer it is not."""
    noise = np.tile([0.3, -0.3], 500)
    for opens, better in ((998, False), (1000, True)):
        before, after = np.zeros(opens), noise[:opens].copy()
        error = put_in_charge(before, after, draws(opens // 2, 2))[1]
        assert put_in_charge(before, after + 1.5 * error, draws(opens // 2, 2))[0] is better


def test_a_way_is_not_chosen_by_the_session_that_it_is_judged_on() -> None:
    groups = np.repeat(np.arange(4), 5)
    still, lucky, steady = np.zeros(20), np.full(20, -0.01), np.full(20, 0.1)
    lucky[7] = 1.5  # one hit
    assert honest(np.array([still, lucky]), groups).mean() < 0, "the others would not have chosen it"
    assert honest(np.array([still, steady]), groups).mean() == pytest.approx(0.1)
    assert not honest(np.array([still, still + 0.0]), groups).any()


def test_few_opens_are_not_surer_than_their_number() -> None:
    """Two sessions that came out alike draw to the same mean, whichever is drawn."""
    after = np.tile([0.0, 0.0, 0.0, 1.5], 2)
    assert put_in_charge(np.zeros(8), after, draws(2, 4))[1] == pytest.approx(after.std() / np.sqrt(8))


def test_one_session_says_nothing() -> None:
    better, error = put_in_charge(np.zeros(50), np.ones(50), draws(1, 50))
    assert not better
    assert np.isnan(error)


def test_nothing_to_choose_by() -> None:
    assert put_in_charge(np.zeros(0), np.zeros(0), draws(0, 0))[0] is False


def test_the_same_plans_leave_the_shipped_one() -> None:
    same = np.random.default_rng(1).normal(size=100)
    assert not put_in_charge(same, same.copy(), draws(10, 10))[0]


def test_less_bad_is_not_good_enough() -> None:
    before = np.full(200, -1.0)
    assert not put_in_charge(before, before + 0.5, draws(20, 10))[0], "still below zero"
    assert put_in_charge(before, before + 1.5, draws(20, 10))[0]


def test_what_is_said() -> None:
    kept = InCharge(BASE, "dpo", 56, 0.0534, -0.001, 0.02)
    worth = "reward per open −0.001, of the shipped model +0.053"
    said = f"what it learned was not clearly better on the last 56 opens before the test part ({worth}), so"
    assert kept.said == (f"{said} the shipped model stays in charge",)
    rated = InCharge(BASE, "dpo", 56, 0.0534, -0.001, 0.02, rated=True)
    assert "(reward per open, ratings counted, −0.001, of the shipped model +0.053)" in rated.said[0]
    assert "no opens to choose by" in InCharge(BASE, "dpo", 0, 0.0, 0.0, float("nan")).said[0]
    assert InCharge("dpo", "dpo", 56, 0.05, 0.1, 0.02).said == ()
    assert InCharge(BASE, "dpo", 0, 0.0, 0.0, float("nan")).to_json()["standard_error"] is None


def test_expected_ratings_count_where_they_are_learned_from() -> None:
    """The same plans in seconds: who pleases is in charge."""
    data, reward = ground(), WorldOptions().worth()
    cases = data.cases(data.split.validation)
    seldom = int(np.argmax(np.bincount(cases[0].timeline.target)))
    policy, planner = Sure(seldom), Threshold(0.5)
    still = Threshold(1.5)
    rated = lambda case, plans: 5.0 * (plans.target[:, :3] == seldom).any(1)  # noqa: E731
    told = (("sft", policy, planner), (policy, still), cases, reward)
    plain = decide(*told, seed=0, called="shipped model")
    liked = decide(*told, seed=0, called="shipped model", rated=rated)
    assert plain.before == liked.before == 0.0
    assert liked.after > plain.after
    assert (liked.stage, liked.rated, plain.rated) == ("sft", True, False)
    (case,) = cases
    by_hand = rewards(policy, planner, cases, reward, 0) + rated(case, planner.plan(policy, case))
    np.testing.assert_allclose(rewards(policy, planner, cases, reward, 0, rated), by_hand)


# the shipped planner


class Sure:
    """Ranks one target first, whatever was opened; always far too sure of it."""

    def __init__(self, target: int) -> None:
        self.target = target

    def rank(self, timeline: object, indices: np.ndarray) -> Ranking:
        n = len(indices)
        return Ranking(
            np.full((n, 1), self.target, np.int32), np.full((n, 1), 0.9, np.float32), np.full(n, 0.1)
        )


def ground() -> TrainingData:
    timelines = load_timelines("demo", weeks=1).timelines[:1]
    world = WorldOptions(budget=2.0)
    return TrainingData.prepare(timelines, chrono(timelines), world.cost_model(), world.rules())


def test_a_planner_that_costs_more_than_it_saves_is_not_used() -> None:
    data, reward, shipped = ground(), WorldOptions().worth(), Threshold(0.18)
    cases = data.cases(data.split.train)
    seldom = int(np.argmin(np.bincount(cases[0].timeline.target[:100])))
    assert as_shipped(Sure(seldom), shipped, cases, reward, 0).theta > 0.9, "it keeps still"
    assert as_shipped(make_policy("markov1"), Threshold(0.3), cases, reward, 0) == Threshold(0.3)
    assert as_shipped(Sure(seldom), shipped, [], reward, 0) == shipped, "nothing speaks against it"


def test_every_preset_has_a_planner() -> None:
    today, day = shipped_planner(WorldOptions()), shipped_planner(WorldOptions(off_after_s=7200.0))
    assert setup("base").planner == today
    assert shipped_planner(WorldOptions(), switched=True) == day, "the recording says that it was off"
    assert setup("base", {"off_after_s": 7200.0}).planner == day
    assert today.names
    assert 0.05 < day.theta < today.theta < 0.5, "where memory is emptied, more can be saved"
    assert make_policy("base").planner is None, "a benchmark chooses for it as for the others"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "said",
    [
        "{",
        "[]",
        "{}",
        '{"today": {"planner": "own"}}',
        '{"today": {"planner": "threshold"}}',
        '{"today": {"planner": "threshold", "threshold": "high"}}',
        '{"today": {"planner": "threshold", "threshold": -1}}',
    ],
)
def test_a_damaged_planner_is_refused(tmp_path: Path, said: str) -> None:
    (tmp_path / FILE).write_text(said)
    with pytest.raises(InputError, match=r"planner\.json: is damaged .*; install the package again"):
        shipped_planner(WorldOptions(), tmp_path / FILE)


def test_a_missing_planner_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"planner\.json: is missing; install the package again"):
        shipped_planner(WorldOptions(), tmp_path / FILE)


# a person with few opens, as the Train page trains


@pytest.fixture(scope="module")
def few(light_trainings: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the first 600 opens of one invented person, by the Train page's quick look."""
    folder = tmp_path_factory.mktemp("few")
    person = load_timelines("demo").timelines[1].take(np.arange(OPENS))
    rows = [f"me,{e.t},{e.target},{e.kind}" for e in person]
    (folder / "few.csv").write_text("\n".join(["user,t,target,kind", *rows]) + "\n")
    line = ["--timelines", str(folder / "few.csv"), "--tz", person.tz, "--policies", "none", *QUICK]
    assert run_train([*line, "--out", str(folder / "run")]) in (None, 0)
    return folder / "run"


def test_who_trains_on_few_opens_is_not_worse_off(few: Path) -> None:
    report = json.loads((few / "report.json").read_text())
    worth = {name: x["reward_per_open"]["value"] for name, x in report["policies"].items()}
    assert worth[report["policy"]] >= worth["base"] - 0.002
    assert worth[report["policy"]] >= 0.0
    assert report["policy"] == report["in_charge"]["stage"]
    assert report["in_charge"]["learned"] == "dpo"
    assert report["in_charge"]["opens"] == 60


def put(run: Path, stage: str | None) -> None:
    """Have somebody else in charge of a run, in the words of its `plan.json`."""
    plan = json.loads((run / "adapter" / PLAN).read_text())
    plan.pop("stage", None)
    (run / "adapter" / PLAN).write_text(json.dumps(plan | ({"stage": stage} if stage else {})))


def test_the_run_loads_to_who_is_in_charge(few: Path) -> None:
    before = (few / "adapter" / PLAN).read_text()
    (timeline,) = load_timelines(str(few.parent / "few.csv")).timelines
    at = np.arange(400, 430)

    def ranks() -> np.ndarray:
        return load_run(few).policy.rank(timeline, at).probability

    shipped = make_policy("base").rank(timeline, at).probability
    try:
        put(few, BASE)
        assert np.array_equal(ranks(), shipped)
        put(few, None)  # as older runs are
        assert not np.allclose(ranks(), shipped)
        put(few, "sft")
        with pytest.raises(InputError, match="names the stage 'sft'"):
            load_run(few)
    finally:
        (few / "adapter" / PLAN).write_text(before)


def test_page_card_and_dashboard_show_before_and_after(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = json.loads((few / "report.json").read_text())
    page, card = (few / "report.html").read_text(), (few / "README.md").read_text()
    first = page.split("<details")[0]
    assert "before: shipped model" in first
    assert "after SFT" in first
    assert "| base | " in card or "| **base** | " in card
    said = "so the shipped model stays in charge"
    kept = report["in_charge"]["stage"] == BASE
    tables: list[object] = []
    monkeypatch.setattr(train.look, "table", lambda head, rows, **_: tables.append((head, rows)))
    monkeypatch.setattr(train, "html", tables.append)
    train._before_and_after(jobs.Job("run", few, few / "log", "finished", None))
    (_, (_, compared)) = [x for x in tables if isinstance(x, tuple)]
    after = f"after: run{' (the shipped model)' if kept else ''}"
    assert [row[0] for row in compared] == ["before: as shipped", after]
    verdict = (
        "Not clearly better: the shipped model stays in charge. " if kept else "Better: run is in charge. "
    )
    assert verdict in str(tables[0])
    for text in (first, card, json.dumps(report, ensure_ascii=False), str(tables)):
        assert (said in text) == kept
