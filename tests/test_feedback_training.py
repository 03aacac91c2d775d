"""From ratings to a policy: predictions of a real policy in a real store, rated, and real, tiny trainings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from env.errors import InputError
from env.judge.case import Case
from env.judge.cost import WorldConfig
from env.judge.cost_presets import cost_model
from env.judge.plans import FIELDS
from env.sources import load_timelines
from env.splits import chrono
from reward import parse_reward
from rlmemo.approval.approval import Approval
from rlmemo.learning.config import make_config
from rlmemo.learning.pairs import ScoredPlans
from rlmemo.learning.rating_feedback import (
    Feedback,
    per_thumb,
    preference_rows,
    read_feedback,
    with_ratings,
)
from rlmemo.learning.rating_rows import expected_of, sayable
from rlmemo.learning.training_data import TrainingData
from rlmemo.live.mind import Minding
from rlmemo.policies.language import LanguagePolicy
from rlmemo.policies.planners import BY_NOBODY, BY_SOON, Approved, OwnPlans, Threshold
from rlmemo.policies.run import load_run
from rlmemo.predict import Options, predict
from rlmemo.runs.atomic import sha256
from rlmemo.runs.folder import RunFolder
from rlmemo.store.database import open_store
from rlmemo.store.ratings import rate, show_next
from rlmemo.train import main as train
from tests.tiny_base import write_tiny_base

pytestmark = pytest.mark.usefixtures("light_trainings")

UNWANTED = "app7"
TINY = (
    "--sft-states", "64", "--sft-batch", "16", "--plan-states", "30", "--plan-samples", "1",
    "--dpo-pairs", "24", "--dpo-batch", "8", "--kto-plans", "24", "--kto-batch", "8", "--lora-rank", "2",
    "--policies", "",
)  # fmt: skip


def write_csv(path: Path) -> Path:
    """Two people who go round a few apps, with some noise."""
    rng = np.random.default_rng(0)
    rows = ["user,t,target"]
    for user in range(2):
        t, place = 1.7e9, 0
        for _ in range(400):
            t += float(rng.exponential(700.0)) + 2.0
            place = (place + 1) % 14 if rng.random() < 0.8 else int(rng.integers(20))
            rows.append(f"person{user},{t:.1f},app{place}")
    path.write_text("\n".join(rows) + "\n")
    return path


def rate_everything(db: Path, rater: str = "ada") -> int:
    """Thumbs down for whatever has the unwanted app in it, up for the rest."""
    rated = 0
    with open_store(db) as store:
        while (showing := show_next(store, rater, 0.5)) is not None:
            wanted = UNWANTED not in [p.target for p in showing.moment.prediction.plan]
            rate(store, showing, int(wanted))
            rated += 1
    return rated


@pytest.fixture(scope="module")
def rated_db(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(timelines as CSV, store with rated predictions of markov1 on the training part)."""
    folder = tmp_path_factory.mktemp("rated")
    csv, db = write_csv(folder / "two.csv"), folder / "r.db"
    with open_store(db) as store:
        predict(store, str(csv), "markov1", Options(n=60, threshold=0.05, explore=0.5), tz="UTC")
    assert rate_everything(db) >= 40
    return csv, db


@pytest.fixture(scope="module")
def ground(rated_db: tuple[Path, Path]) -> TrainingData:
    timelines = load_timelines(str(rated_db[0]), tz="UTC").timelines
    return TrainingData.prepare(timelines, chrono(timelines), cost_model("desktop"), WorldConfig())


@pytest.fixture(scope="module")
def feedback(rated_db: tuple[Path, Path], ground: TrainingData) -> Feedback:
    found = read_feedback(rated_db[1], ground, parse_reward("net_seconds"), weight=2.0, seed=0)
    assert found.approval is not None
    return found


def test_every_rating_finds_its_moment(ground: TrainingData, feedback: Feedback) -> None:
    assert len(feedback.placed) >= 40
    assert not feedback.left_out
    for p in feedback.placed:
        timeline = ground.timelines[p.user]
        assert timeline.names[timeline.target[p.index]] == p.rated.current
        assert [timeline.names[x] for x in p.target] == [name for name, _ in p.rated.plan]
        assert p.index + 1 in ground.split.train[p.user]


def test_what_chooses_and_what_judges_does_not_train(
    tmp_path: Path, rated_db: tuple[Path, Path], ground: TrainingData
) -> None:
    """Ratings of all three parts: those of the training part train, the others are counted and said; where
    there are no others, that is said with what to do."""
    reward = parse_reward("net_seconds")
    everything, chooses = tmp_path / "three.db", tmp_path / "validation.db"
    made: dict[str, int] = {}
    for db, parts in ((everything, ("train", "validation", "test")), (chooses, ("validation",))):
        with open_store(db) as store:
            for part in parts:
                options = Options(n=24, threshold=0.05, explore=0.5, part=part)
                made[part] = predict(store, str(rated_db[0]), "markov1", options, tz="UTC")
        rate_everything(db)
    found = read_feedback(everything, ground, reward, weight=1.0, seed=0, folder=RunFolder(tmp_path))
    train = [set(events.tolist()) for events in ground.split.train]
    assert len(found.placed) == made["train"] > 10
    assert all(p.index + 1 in train[p.user] for p in found.placed)
    assert sum(found.left_out.values()) == made["validation"] + made["test"]
    assert f"{made['validation']} of a validation moment (validation chooses" in found.sentence()
    assert f"{made['test']} of a test moment" in found.sentence()
    for method in ("dpo", "kto"):
        rows = preference_rows(found, ground, method, offset=0, limit=10**6, seed=0)
        users = [t.user for t in ground.timelines]
        assert rows
        assert all(row.index + 1 in train[users.index(row.user)] for row in rows)
    none = read_feedback(chooses, ground, reward, weight=1.0, seed=0)
    assert (none.placed, none.approval) == ([], None)
    assert "no ratings to learn from" in none.sentence()
    assert "--part train" in none.sentence()
    # A run that kept validation ratings, when they still trained, does not go on with them.
    kept = json.loads((tmp_path / "feedback.json").read_text())
    row = kept["placed"][0]
    kept["placed"].append({**row, "index": int(ground.split.validation[row["user"]][4]) - 1})
    (tmp_path / "feedback.json").write_text(json.dumps(kept))
    again = read_feedback("gone.db", ground, reward, weight=1.0, seed=0, folder=RunFolder(tmp_path))
    assert len(again.placed) == len(found.placed)
    assert sum(again.left_out.values()) == sum(found.left_out.values()) + 1


def test_a_thumb_counts_what_the_reward_says() -> None:
    assert per_thumb(parse_reward("net_seconds"), 2.0) == pytest.approx(1.0)
    assert per_thumb(parse_reward("saved_seconds=1,rating=3"), 1.0) == pytest.approx(3.0)
    assert per_thumb(parse_reward("memo"), 1.0) == pytest.approx(0.5), (
        "asked for, so it counts its own weight"
    )


def test_ratings_enter_the_reward_of_every_plan(ground: TrainingData, feedback: Feedback) -> None:
    names = ground.timelines[0].names
    index = next(
        i for i in range(50, 300)
        if UNWANTED in [names[x] for x in ground.slates[0].candidates[i] if x >= 0]
    )  # fmt: skip
    slate = [names[x] for x in ground.slates[0].candidates[index] if x >= 0]
    bad = slate.index(UNWANTED)
    good = next(k for k in range(len(slate)) if k != bad)
    plans = ((), ((bad, 0),), ((good, 0),))
    plain = [ScoredPlans(0, index, plans, ("none", "top", "top"), np.array([0.0, 1.0, 1.0]), np.ones(3))]
    new = with_ratings(plain, ground, feedback)[0].rewards
    assert new[0] == 0.0, "silence was never rated"
    assert new[1] < 1.0
    assert new[1] < new[2]
    assert new - plain[0].rewards == pytest.approx(
        feedback.expected(ground, 0, np.full(3, index), list(plans))
    )
    assert with_ratings(plain, ground, None) is plain


def test_what_ppo_is_credited_has_the_ratings(ground: TrainingData, feedback: Feedback) -> None:
    from rlmemo.learning.rated_episodes import RatedField, field
    from rlmemo.learning.rollout import SIZE, Field, Spoken

    reward = parse_reward("net_seconds")
    plain, rated = Field(ground, reward), RatedField(ground, reward, feedback)
    moments = plain.draw(2, 12, 6, np.random.default_rng(0))
    place, delay = np.full((2, 12, 3), -1), np.zeros((2, 12, 3), np.int64)
    place[:, ::2, 0] = 0
    said = Spoken(place, delay, np.full((2, 12, 0), -1))
    first_pick = np.full((2, 12, SIZE + 1), 1 / (SIZE + 1))
    before, after = (x.credit(moments, said, first_pick) for x in (plain, rated))
    for lane in range(2):
        for k in range(12):
            user, index = int(moments.user[lane, k]), np.array([moments.index[lane, k]])
            plan = [((0, 0),) if k % 2 == 0 else ()]
            expected = feedback.per_thumb * feedback.expected(ground, user, index, plan)[0]
            assert after[0][lane, k] - before[0][lane, k] == pytest.approx(expected)
            alone = feedback.per_thumb * feedback.expected(ground, user, index, [((2, 0),)])[0]
            assert after[1][lane, k, 2] - before[1][lane, k, 2] == pytest.approx(alone)
    assert type(field(ground, reward, None)) is Field


def test_every_pair_names_its_rating_and_goes_the_way_of_the_thumb(
    ground: TrainingData, feedback: Feedback
) -> None:
    rows = preference_rows(feedback, ground, "dpo", offset=100, limit=10**6, seed=0)
    said = {s.placed.rated.id: s for s in sayable(feedback.placed, ground)}
    assert len(rows) >= len(said)
    states = feedback.states
    thumbs = set()
    for row in rows:
        identity, *like = (int(name.removeprefix("rating:")) for name in row.source.split())
        one = said[identity]
        up = one.placed.rated.thumbs
        thumbs.add(up)
        assert (row.chosen if up else row.rejected) == one.plan
        assert row.chosen != row.rejected
        assert row.chosen_reward > row.rejected_reward
        assert int(states.index[row.row - 100]) == row.index == one.placed.index
        assert all(said[other].placed.rated.thumbs == 1 for other in like)
    assert thumbs == {0, 1}
    assert len(preference_rows(feedback, ground, "dpo", offset=0, limit=7, seed=0)) == 7


def test_without_a_model_nothing_unrated_is_disliked(ground: TrainingData, feedback: Feedback) -> None:
    bare = Feedback(feedback.placed, None, 1.0)
    rows = preference_rows(bare, ground, "dpo", offset=0, limit=10**6, seed=0)
    assert {row.origins[1] for row in rows} <= {"none", "down"}
    assert not expected_of(ground, None, 0, np.array([5]), [((0, 0),)]).any()


def test_single_rows_are_the_ratings(ground: TrainingData, feedback: Feedback) -> None:
    rows = preference_rows(feedback, ground, "kto", offset=0, limit=10**6, seed=0)
    said = {s.placed.rated.name: s for s in sayable(feedback.placed, ground)}
    assert {row.source for row in rows} == set(said)
    assert all(row.good == bool(said[row.source].placed.rated.thumbs) for row in rows)


def test_a_run_keeps_what_it_read_without_names(
    tmp_path: Path, rated_db: tuple[Path, Path], ground: TrainingData
) -> None:
    reward = parse_reward("net_seconds")
    folder = RunFolder(tmp_path)
    first = read_feedback(rated_db[1], ground, reward, weight=1.0, seed=0, folder=folder)
    text = (tmp_path / "feedback.json").read_text()
    assert UNWANTED not in text
    assert "person" not in text
    again = read_feedback("gone.db", ground, reward, weight=1.0, seed=0, folder=folder)
    assert [p.rated.name for p in again.placed] == [p.rated.name for p in first.placed]
    assert first.approval is not None
    assert again.approval is not None
    assert (again.approval.model.weights == first.approval.model.weights).all()
    (tmp_path / "feedback.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        read_feedback("gone.db", ground, reward, weight=1.0, seed=0, folder=folder)


# the command lines

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, rated_db: tuple[Path, Path]) -> dict[str, Path]:
    """Tiny trainings: plain, with a store that holds no ratings, with ratings, and one that goes on."""
    folder = tmp_path_factory.mktemp("runs")
    base = write_tiny_base(folder / "base")
    csv, db = rated_db
    common = ["--timelines", str(csv), "--tz", "UTC", "--model", str(base), *TINY]
    empty = folder / "empty.db"
    open_store(empty).close()
    made = {name: folder / name for name in ("plain", "unrated", "rated", "on")}
    train([*common, "--out", str(made["plain"])])
    train([*common, "--out", str(made["unrated"]), "--feedback", str(empty)])
    train([*common, "--out", str(made["rated"]), "--feedback", str(db), "--feedback-weight", "2"])
    go_on = [
        "--init-adapter",
        str(made["rated"]),
        "--method",
        "kto",
        "--feedback",
        str(db),
        "--preference-keep",
        "last",
        "--feedback-keep",
        "0.5",
    ]
    train([*common, "--out", str(made["on"]), *go_on])
    return made


@pytest.mark.slow
def test_without_ratings_everything_is_as_before(runs: dict[str, Path]) -> None:
    weights = "adapter/adapter_model.safetensors"
    assert sha256(runs["plain"] / weights) == sha256(runs["unrated"] / weights)
    assert not (runs["unrated"] / "adapter" / "approval.json").exists()


@pytest.mark.slow
def test_a_training_learns_from_ratings(runs: dict[str, Path], rated_db: tuple[Path, Path]) -> None:
    run = runs["rated"]
    sources = [json.loads(x)["source"] for x in (run / "pairs.jsonl").read_text().splitlines()]
    from_ratings = [s for s in sources if s.startswith("rating:")]
    with open_store(rated_db[1]) as store:
        known = {f"rating:{r.id}" for r in store.ratings()}
    assert {name for s in from_ratings for name in s.split()} <= known
    assert 0 < len(from_ratings) <= 2 * (len(sources) - len(from_ratings))
    state = json.loads((run / "state.json").read_text())
    assert state["plans"]["from_ratings"] == len(from_ratings)
    choice = json.loads((run / "adapter" / "plan.json").read_text())
    assert "strength" not in choice, "what it heard is in its ranking"


@pytest.mark.slow
def test_what_chooses_counts_ratings(runs: dict[str, Path], ground: TrainingData) -> None:
    """Which round is kept, and PPO's look at validation: seconds and, if any, expected ratings."""
    from rlmemo.learning.online import Validation

    kept = {name: RunFolder(runs[name]).state()["kept"] for name in ("unrated", "rated")}
    for name, found in kept.items():
        seconds = [
            max(x["own"]["reward_per_open"], x["threshold"]["reward_per_open"])
            for x in found["validated"].values()
        ]
        counted = [w not in seconds for w in found["reward"].values()]
        assert counted == [name == "rated"] * 2, found
    report = json.loads((runs["rated"] / "report.json").read_text())
    assert report["in_charge"]["ratings_counted"]
    assert report["in_charge"]["learned"] == "dpo"
    choice = report["stages"]["dpo"]["validation"]["rated"]
    inside = choice["validation"]
    rating = choice["per_thumb"] * inside["expected_rating_per_open"]
    assert choice["worth_per_open"] == pytest.approx(inside["reward_per_open"] + rating)
    assert max(kept["rated"]["reward"].values()) == pytest.approx(choice["worth_per_open"])

    policy, feedback = load_run(runs["rated"]).policy, read_again(runs["rated"], ground)
    plain = SimpleNamespace(
        data=ground, reward=parse_reward("net_seconds"), config=SimpleNamespace(seed=0), path=runs["rated"],
        feedback=None,
    )  # fmt: skip
    one, both = Validation(plain), Validation(SimpleNamespace(**{**vars(plain), "feedback": feedback}))  # type: ignore[arg-type]
    model = policy.model  # type: ignore[attr-defined]
    gained = both(model) - one(model)  # both have it read as the run's own model does
    cases, reads = ground.cases(ground.split.validation), LanguagePolicy(model)
    rated = sum(feedback.worth(ground, c, one.way.plan(reads, c, seed=0)).sum() for c in cases)
    assert rated != 0.0
    assert gained == pytest.approx(rated / sum(len(c) for c in cases))


@pytest.mark.slow
@pytest.mark.parametrize(("names", "tried"), [(BY_NOBODY, (0.0, 1.0)), (BY_SOON, (0.0,))])
def test_plans_that_mind_ratings_name_who_leaves_as_others_do(
    runs: dict[str, Path], ground: TrainingData, names: str, tried: tuple[float, ...]
) -> None:
    """And what was chosen comes to what it was chosen for."""
    from rlmemo.learning.approval_choice import choose

    policy, feedback = load_run(runs["rated"]).policy, read_again(runs["rated"], ground)
    reward = parse_reward("net_seconds")
    assert feedback.approval is not None
    planner = choose(
        policy, feedback.approval, ground, reward, 1.0, 0, Threshold(0.5, names), strengths=tried
    )
    assert planner is not None
    assert planner.strength in tried
    assert planner.inner.names == names
    cases = ground.cases(ground.split.validation)
    plans = [planner.plan(policy, case) for case in cases]
    named = any((plan.let_go >= 0).any() for plan in plans if plan.let_go is not None)
    assert named == (names == BY_SOON)
    opens = sum(len(case) for case in cases)
    table = [case.replay(plan).table for case, plan in zip(cases, plans, strict=True)]
    worth = sum(float((x @ reward.weights(FIELDS)).sum()) for x in table) / opens
    assert planner.found["validation"]["reward_per_open"] == pytest.approx(worth)


def read_again(run: Path, ground: TrainingData) -> Feedback:
    return read_feedback(
        run / "none.db", ground, parse_reward("net_seconds"), weight=2.0, seed=0, folder=RunFolder(run)
    )


@pytest.mark.slow
def test_a_price_for_what_is_liked_is_paid_by_the_planner(
    runs: dict[str, Path], ground: TrainingData, tmp_path: Path
) -> None:
    """`--feedback-keep`: the approval model counts once more, and live says that it does not follow."""
    choice = json.loads((runs["on"] / "adapter" / "plan.json").read_text())
    assert 0.0 <= choice["strength"] <= 1.0
    report = json.loads((runs["on"] / "report.json").read_text())
    assert not report["in_charge"]["ratings_counted"], "the planner pays the price, whoever is in charge"
    run = tmp_path / "run"
    shutil.copytree(runs["rated"], run)
    approval = Approval.load(run / "adapter" / "approval.json")
    minding = Approved(Threshold(0.02, wake=0.05), approval, 3.0)
    (run / "adapter" / "plan.json").write_text(json.dumps(minding.to_json()))
    made = load_run(run)
    assert isinstance(made.planner, Approved)
    assert made.planner.inner == minding.inner, "its threshold for wakes, too"
    assert not made.planner.found
    timeline = ground.timelines[0]
    case = Case(timeline, ground.costs[0], ground.world, 271, 391)
    unwanted = timeline.names.index(UNWANTED)
    shown = [
        int((replace(made.planner, strength=x).plan(made.policy, case).target == unwanted).sum())
        for x in (3.0, 0.0)
    ]
    assert shown[0] < shown[1]
    with pytest.raises(InputError, match="--feedback-keep"):
        Minding(made, "me", "UTC", 900.0, "x").planner()


@pytest.mark.slow
def test_live_follows_a_run_that_learned_from_ratings(runs: dict[str, Path]) -> None:
    made = load_run(runs["rated"])
    planner = Minding(made, "me", "UTC", 900.0, "x").planner()
    assert planner == made.planner
    assert isinstance(planner, Threshold | OwnPlans)


@pytest.mark.slow
def test_a_run_goes_on_from_another(runs: dict[str, Path]) -> None:
    weights = "adapter_model.safetensors"
    assert sha256(runs["on"] / "sft" / weights) == sha256(runs["rated"] / "adapter" / weights)
    assert sha256(runs["on"] / "adapter" / weights) != sha256(runs["rated"] / "adapter" / weights)
    sources = [json.loads(x)["source"] for x in (runs["on"] / "plans.jsonl").read_text().splitlines()]
    assert any(s.startswith("rating:") for s in sources)


def test_what_is_missing_is_said_before_anything_is_made(cli: Cli, tmp_path: Path) -> None:
    done = cli("rlmemo.train", "--feedback", "typo.db")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--feedback typo.db: there is no such file" in done.stderr
    done = cli("rlmemo.train", "--init-adapter", "nowhere")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "--init-adapter nowhere" in done.stderr
    done = cli("rlmemo.train", "--init-adapter", "nowhere", "--method", "sft")
    assert "takes the place of SFT" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_feedback_commands(cli: Cli, tmp_path: Path, rated_db: tuple[Path, Path]) -> None:
    db = str(rated_db[1])
    rate_everything(rated_db[1], "bo")
    done = cli("rlmemo.feedback", "show", "--db", db, "--json", "show.json")
    assert done.returncode == 0, done.stderr
    assert "Cohen's kappa 1.00" in done.stdout
    found = json.loads((tmp_path / "show.json").read_text())
    assert found["alpha"]["value"] == pytest.approx(1.0)
    done = cli("rlmemo.feedback", "pairs", "--db", db, "--tz", "UTC", "--out", "p.jsonl")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(x) for x in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert lines
    assert all(x["source"].startswith("rating:") for x in lines)
    assert not any(UNWANTED in [t for t, _ in x["chosen"]] and x["why"][0] == "up" for x in lines)
    asked = ("rlmemo.feedback", "evaluate", "--db", db, "--tz", "UTC", "--policy", "markov1")
    done, both = cli(*asked, "--json", "e.json"), cli(*asked, "--policy", "mru", "--json")
    assert done.returncode == both.returncode == 0, done.stderr + both.stderr
    estimates = json.loads((tmp_path / "e.json").read_text())
    assert 0 <= estimates["snips"]["value"] <= 1
    assert estimates["overlap"] > 0
    first, second = json.loads(both.stdout)["estimates"]
    assert first == estimates
    assert (second["policy"], second["logged"]) == ("mru", first["logged"])
    wrong = cli(*asked, "--policy", "mur")
    assert (wrong.returncode, wrong.stdout) == (2, ""), "all names are looked at before one is asked"
    assert "did you mean mru" in wrong.stderr
    done = cli("rlmemo.feedback", "approval", "--db", db, "--tz", "UTC", "--out", "a.json")
    assert done.returncode == 0, done.stderr
    assert UNWANTED not in (tmp_path / "a.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "--db", "typo.db"], "no such file"),
        (["evaluate"], "--policy"),
        (["evaluate", "--policy", "mru", "--explore", "2"], "no share"),
        (["shwo"], "invalid choice"),
    ],
)
def test_bad_input_is_one_line(cli: Cli, tmp_path: Path, arguments: list[str], says: str) -> None:
    done = cli("rlmemo.feedback", *arguments)
    assert (done.returncode, len(done.stderr.splitlines()), done.stdout) == (2, 1, "")
    assert says in done.stderr
    assert not list(tmp_path.iterdir())


def test_what_is_kept_bounds_what_obeying_may_cost(ground: TrainingData, feedback: Feedback) -> None:
    from rlmemo.learning.approval_choice import SLACK, choose_keeping
    from rlmemo.policies.planners import Threshold, sweep
    from rlmemo.policies.registry import make_policy

    reward, approval = parse_reward("net_seconds"), feedback.approval
    assert approval is not None
    model = make_policy("markov1")
    model.fit(ground.timelines, ground.split)
    liked, weights = [], reward.weights(FIELDS)
    for keep in (1.0, 0.7, 0.2):
        choice = choose_keeping(model, approval, ground, reward, keep, 0)
        assert choice is not None
        parts = ground.cases(ground.split.validation)
        plain = [model.rank(c.timeline, c.indices) for c in parts]
        minding = [choice.counted(c, r) for c, r in zip(parts, plain, strict=True)]
        opens = sum(len(c) for c in parts)
        best = float((sweep(parts, plain) @ weights).max()) / opens
        assert isinstance(choice.inner, Threshold)
        found = sum(
            float((c.replay_ranked(r, choice.inner.theta)[0].table @ weights).sum())
            for c, r in zip(parts, minding, strict=True)
        )
        got = choice.found["validation"]
        assert found / opens == pytest.approx(got["reward_per_open"])
        assert got["reward_per_open"] >= min(keep * best, best) - 1e-9 or best <= 0
        assert got["hits_at_equal_waste"] >= (1 - SLACK) * got["hits_at_equal_waste_plain"] - 1e-12
        liked.append(got["expected_approval"])
    assert liked == sorted(liked), "the less is kept, the more can be liked"
    assert liked[-1] > liked[0]


@pytest.mark.parametrize("share", ["1.5", "-0.1", "nan"])
def test_a_share_that_is_none_is_refused(share: str) -> None:
    with pytest.raises(InputError, match="feedback_keep"):
        make_config({"feedback_keep": share})
