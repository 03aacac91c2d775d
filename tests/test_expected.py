"""`--let-go expected`: fed by the policy that plans, refused where nobody can say who is opened soon."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_soon import REWARD, Telling, some_cases

from env.errors import InputError
from env.judge.cost import EXPECTED, WorldConfig
from env.judge.plans import Plans
from env.judge.world_options import WorldOptions
from env.sources import load_timelines
from env.splits import chrono
from rlmemo import benchmark, predict, train
from rlmemo.evaluation.evaluate import Setting, evaluate
from rlmemo.feedback import __main__ as feedback
from rlmemo.policies.counting import CountingPolicy
from rlmemo.policies.oracle import bound_per_open
from rlmemo.policies.planners import Threshold, choose_threshold, fed, told
from rlmemo.policies.registry import make_policy

WORLD = WorldConfig(budget_targets=3.0, let_go=EXPECTED, max_let_go=0)


def test_the_rule_goes_by_what_the_policy_says_after_every_event() -> None:
    found, rankings = some_cases(WORLD)
    policy = Telling("markov1")
    for case, ranking in zip(found, rankings, strict=True):
        here = fed(policy, case)
        targets, chance = policy.soon(case.timeline, np.arange(len(case.timeline)))
        assert here.worth is not None
        assert np.array_equal(here.worth[0], targets)
        assert np.array_equal(here.worth[1], chance)
        assert told(policy, here) is here
        still = here.replay(Plans.empty(len(case)))
        assert still.total("kept") > 0, "whom LRU had let go"
        usual = case.under(replace(WORLD, let_go="lru")).replay(Plans.empty(len(case)))
        assert usual.total("base_cold") == usual.total("cold") == still.total("base_cold")
        out = here.replay(Threshold(0.2).plan(policy, case, ranking=ranking))
        assert still.total("saved_s") < out.total("saved_s") <= bound_per_open(case).sum() + 1e-6
    # what is chosen is chosen in that world
    worlds = [fed(policy, c) for c in found]
    best, reward = choose_threshold(worlds, rankings, REWARD)
    again = sum(
        REWARD.per_open(c.replay(best.plan(policy, c, ranking=r)))[c.start : c.stop].sum()
        for c, r in zip(worlds, rankings, strict=True)
    )
    assert reward == pytest.approx(again)


def test_other_rules_are_told_nothing() -> None:
    (case, *_), _ = some_cases(replace(WORLD, let_go="gdsf"))
    assert fed(Telling("markov1"), case) is case
    assert fed(CountingPolicy("markov1"), case) is case


def test_a_benchmark_judges_who_can_feed_it() -> None:
    timelines = load_timelines("demo", weeks=2).timelines[:2]
    split, kept = chrono(timelines), {}
    for rule in ("lru", EXPECTED):
        setting = Setting(
            WorldOptions(budget=4.0, let_go=rule, let_go_picks=0), budgets=(4.0,), replicates=20
        )
        judged = evaluate([make_policy("gbdt")], timelines, split, setting=setting).policies["gbdt"]
        kept[rule] = judged.metrics["kept_rate"].value
        assert 0.0 < judged.metrics["oracle_share"].value <= 1.0
    assert kept[EXPECTED] > kept["lru"] == 0.0, "by the rule alone: no plan names anybody"


def test_who_cannot_say_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"--let-go expected: .*soon, and none, markov1 cannot say who is"):
        benchmark.main(["--policies", "none,gbdt,markov1", "--let-go", "expected"])
    with pytest.raises(InputError, match="markov1 cannot say who is; take policies that can"):
        predict.main(["--policy", "markov1", "--let-go", "expected", "--n", "5"])
    with pytest.raises(InputError, match=r"let_go 'expected' is none of .*learned already"):
        train.main(["--let-go", "expected"])
    assert not list(tmp_path.glob("*.db"))


@pytest.mark.usefixtures("light_trainings")
def test_predictions_are_made_and_judged_in_that_world(tmp_path: Path) -> None:
    from rlmemo.store.database import open_store

    with open_store(tmp_path / "a.db") as store:
        store.add_timelines(load_timelines("demo", weeks=2, collapsed=False))
        world = {"let_go": EXPECTED, "budget": 4.0}
        options = predict.Options(n=12, world=world, threshold=0.1)
        assert predict.predict(store, str(tmp_path / "a.db"), "gbdt", options) > 0
        assert all(p.outcome is not None and p.plan for p in store.predictions())
        for k, p in enumerate(store.predictions()):
            store.rate(p.id or 0, "me", k % 2)
    for command in ("pairs", "approval"):
        assert feedback.main([command, "--db", str(tmp_path / "a.db")]) == 0
    rated = ["evaluate", "--db", str(tmp_path / "a.db")]
    assert feedback.main([*rated, "--policy", "gbdt"]) == 0
    with pytest.raises(InputError, match="markov1 cannot say"):
        feedback.main([*rated, "--policy", "markov1"])
