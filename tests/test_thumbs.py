"""Thumbs so far: what a person said is part of what the policy reads, from the next answer on."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from env.judge.case import Case
from env.judge.cost import Costs, WorldConfig
from env.thumbs import Thumb, Thumbs
from env.timeline import Timeline, collapse
from rlmemo.model import slots
from rlmemo.model.ask import (
    FITTED,
    POOL,
    MindedPrompts,
    _pooled,
    heard,
    minded,
    ranking,
    read,
    sample_plans,
)
from rlmemo.model.readings import SLOTS, SlotReading
from rlmemo.model.scorer import base_scorer
from rlmemo.model.streaming import Following
from rlmemo.model.thumbs_so_far import (
    AT_TIMES,
    COLUMNS,
    FADES,
    NEUTRAL,
    NO_MOOD,
    PRIOR,
    SoFar,
    ToldThumbs,
    opinion,
    said_by,
    says,
    so_far,
)
from rlmemo.policies.language import LanguagePolicy
from tests.test_streaming import same, timeline


@pytest.fixture(scope="module")
def embedded() -> Any:
    from rlmemo.model.load import load_model

    return load_model()[0]


def said(since: float, up: bool, *targets: str, hour: int = 9, hit: bool | None = None) -> Thumb:
    return Thumb(since, hour, up, hit, targets)


def column(found: np.ndarray, name: str) -> np.ndarray:
    return found[..., COLUMNS.index(name)]


def test_what_was_said_by_hand() -> None:
    thumbs = Thumbs.of([
        said(30.0, True, "a", hour=21), said(10.0, True, "a"), said(20.0, False, "a", "b", hour=11),
        said(40.0, False),
    ])  # fmt: skip
    now, hour = np.array([10.0, 10.5, 25.0, 99.0]), np.array([9, 9, 9, 9])
    candidates = np.array([[0, 1, 2]] * 4, np.int32)
    found = so_far(thumbs, ["a", "b", "c"], now, hour, candidates)
    ups, downs = column(found.said, "ups"), column(found.said, "downs")
    assert ups[:, 0].tolist() == pytest.approx([0, 1, FADES, FADES * FADES + 1])
    # The first thumb spoke for a, and for plans at this time, so it is rather b that was disliked.
    a, b = downs[2, :2]
    assert 0 < a < b < 1 - a
    assert downs[:, 0].tolist() == pytest.approx([0, 0, a, a * FADES])
    assert downs[:, 1].tolist() == pytest.approx([0, 0, b, b])
    assert column(found.said, "ups_here")[:, 0].tolist() == pytest.approx([0, 1, FADES, FADES * FADES])
    assert column(found.said, "downs_here")[3, 0] == pytest.approx(a * FADES)
    assert column(found.said, "last")[:, 0].tolist() == [0, 1, -1, 1]
    assert column(found.said, "age_s")[:, 0].tolist() == [math.inf, 0.5, 5.0, 69.0]
    assert not found.said[:, 2, :5].any()
    assert (found.levels()[:, 2] == NEUTRAL).all()
    assert found.mood()[0] == NO_MOOD
    assert found.moment[0].tolist() == [0.0, 0.0]
    assert found.moment[3, 1] < 0  # keeping still was disliked at this hour
    assert found.moment[1, 0] > 0


def test_counted_on_it_is_what_it_is_counted_anew() -> None:
    """More is said, what was said turns out right, is changed, or taken back: to the last bit."""
    rng = np.random.default_rng(3)
    names = [f"t{k}" for k in range(9)]

    def one() -> Thumb:
        shown = tuple(rng.choice(names, int(rng.integers(0, 4)), replace=False).tolist())
        return Thumb(-math.inf, int(rng.integers(24)), bool(rng.random() < 0.5), None, shown)

    def answer(told: ToldThumbs, hour: int) -> bytes:
        found = so_far(told, names, np.array([5.0]), np.array([hour]), np.arange(9, dtype=np.int32)[None])
        return found.said.tobytes() + found.moment.tobytes()

    rows, going = [one() for _ in range(3)], ToldThumbs(Thumbs.of([]))
    for _ in range(120):
        what = rng.random()
        if what < 0.6 or len(rows) < 2:
            rows.append(one())
        elif what < 0.9:
            k = int(rng.integers(len(rows)))
            rows[k] = replace(rows[k], hit=True) if what < 0.8 else replace(rows[k], up=not rows[k].up)
        else:
            del rows[int(rng.integers(len(rows)))]
        going = ToldThumbs(Thumbs.of(rows), going)
        anew = ToldThumbs(Thumbs.of(rows))
        assert set(going.about) == set(anew.about)
        for hour in (3, 4, 3, 20):
            assert answer(going, hour) == answer(anew, hour)


def test_many_thumbs_are_asked_as_quickly_as_few() -> None:
    """Per row that is looked at, not per thumb that was given: the arrays of what was said are not copied."""
    told = ToldThumbs(Thumbs.of([said(float(k), k % 3 > 0, "a", "b") for k in range(600)]))
    looked = []

    class Watched(np.ndarray):
        def __getitem__(self, which: Any) -> Any:
            found = super().__getitem__(which)
            looked.append(np.size(found))
            return np.asarray(found)

    for history in told.about.values():
        history.sums = history.sums.view(Watched)
    so_far(told, ["a", "b"], np.array([1e6]), np.array([9]), np.array([[0, 1, -1]], np.int32))
    assert looked
    assert max(looked) <= 25 * 5


def test_an_opinion_goes_with_what_was_said() -> None:
    alone = np.stack([PRIOR, AT_TIMES])
    one = {
        f"{what}{'-+'[up]}": says(alone, bool(up), hit)[0]
        for up in (0, 1) for what, hit in (("vain", 0.0), ("hit", 1.0))
    }  # fmt: skip
    thinks = {name: float(opinion(x)) for name, x in one.items()}
    assert thinks["hit-"] < thinks["vain-"] < 0 < thinks["hit+"] < thinks["vain+"]
    assert float(opinion(np.zeros(3))) == 0
    assert float(opinion(3 * one["hit+"])) > thinks["hit+"]


def test_a_thumb_on_several_is_explained_by_what_is_known_of_the_others() -> None:
    """By hand: a thumb up where another is surely loved only says that this one is not disliked; a thumb down
    where another is surely disliked says nothing at all."""
    loved, hated, calm = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    up = says(np.stack([PRIOR, loved, calm]), True, 0.0)[0]
    assert np.exp(up).tolist() == pytest.approx([0.88, 0.12, 0.88])
    down = says(np.stack([PRIOR, hated, calm]), False, 0.0)[0]
    assert np.exp(down).tolist() == pytest.approx([0.88, 0.88, 0.88])
    vain = says(np.stack([PRIOR, calm]), True, 0.0)[0]
    assert np.exp(vain).tolist() == pytest.approx([0.37, 0.12, 0.88])


def test_what_is_said_later_changes_nothing_earlier() -> None:
    made = timeline()
    rows = np.arange(5, len(made))
    candidates = SLOTS.look(made, rows).candidates[rows]
    names = [made.names[x] for x in range(4)]
    early = [said(float(made.t[20]), k % 2 == 0, name) for k, name in enumerate(names)]
    late = [said(float(made.t[60]), False, names[h % 4], hour=h) for h in range(24)]
    before = said_by(replace(made, thumbs=Thumbs.of(early)), rows, candidates)
    after = said_by(replace(made, thumbs=Thumbs.of([*late, *early])), rows, candidates)
    until = rows <= 60  # a thumb on a moment is not known at that moment
    for a, b in ((before.levels(), after.levels()), (before.mood(), after.mood())):
        np.testing.assert_array_equal(a[until], b[until])
        assert (a[~until] != b[~until]).any()


def test_at_a_wake_no_thumb_tells_what_is_opened_next(embedded: Any) -> None:
    """The thumb on the moment before knows whether its plan came right: the same past, another first open."""
    from rlmemo.approval.thumbs_said import told

    made, i = timeline(n=40), 24
    pause = np.where(np.arange(len(made)) > i, 40_000.0, 0.0)
    off, back = made.t[[i]] + 100.0, made.t[[i]] + 30_000.0
    ways = [
        replace(made, t=made.t + pause, target=made.target.copy(), offs=off, wakes=back) for _ in range(2)
    ]
    ways[0].target[i + 1], ways[1].target[i + 1] = 0, 3  # what was rated is a hit in the first only
    placed = [
        SimpleNamespace(user=0, index=k, target=np.array([0], np.int32), rated=SimpleNamespace(thumbs=up))
        for k, up in ((10, 1), (i, 0))
    ]
    one, other = (WorldConfig().woken(told([way], placed)[0]) for way in ways)  # type: ignore[list-item]
    assert one.now is not None
    assert one.now[i] > one.t[i]
    assert one.thumbs is not None
    assert other.thumbs is not None
    assert one.thumbs.hit.tolist() != other.thumbs.hit.tolist()
    rows = np.array([i, i + 1])
    candidates = np.tile(np.arange(4, dtype=np.int32), (2, 1))
    a, b = said_by(one, rows, candidates), said_by(other, rows, candidates)
    np.testing.assert_array_equal(a.said[0], b.said[0])
    np.testing.assert_array_equal(a.moment[0], b.moment[0])
    assert (a.said[1] != b.said[1]).any()
    assert column(a.said, "ups")[:, 0].tolist() == pytest.approx([1, FADES])
    assert column(a.said, "age_s")[0, 0] == one.now[i] - one.t[10]
    policy = LanguagePolicy(embedded)
    asked, again = policy.rank(one, rows[:1]), policy.rank(other, rows[:1])
    np.testing.assert_array_equal(asked.probability, again.probability)
    following = Following(embedded, one.tz)
    following.hear(one.thumbs)
    for k in range(i + 1):
        event = one.event(k)
        following.see(event.t, event.target, event.kind == "page")
    following.wake(float(one.now[i]))
    np.testing.assert_allclose(following.rank().probability, asked.probability, atol=1e-5)


def test_prompts_differ_where_something_was_said_and_nowhere_else() -> None:
    made = timeline()
    rows = np.arange(5, len(made))
    slates = SLOTS.look(made, rows)
    bare = SLOTS.prompts(made, slates, rows)
    silent = replace(made, thumbs=Thumbs.of([]))
    np.testing.assert_array_equal(SLOTS.prompts(silent, slates, rows), bare)
    loud = replace(made, thumbs=Thumbs.of([said(float(made.t[40]), False, made.names[0])]))
    heard = SLOTS.prompts(loud, slates, rows)
    np.testing.assert_array_equal(heard[rows <= 40], bare[rows <= 40])
    places = (slates.candidates[rows] == 0) & (rows > 40)[:, None]
    np.testing.assert_array_equal((heard != bare)[:, slots.CANDIDATE_ENDS], places)
    warm = np.ones((len(rows), slots.SLATE_SIZE), np.int64)
    shown = SLOTS.prompts(loud, slates, rows, warm)[:, slots.CANDIDATE_ENDS]
    np.testing.assert_array_equal(shown, SLOTS.prompts(made, slates, rows, warm)[:, slots.CANDIDATE_ENDS])


def test_an_episode_shows_memory_and_thumbs_as_one_prompt_does() -> None:
    from rlmemo.learning.rollout import show_memory

    made, rows, rng = timeline(), np.arange(5, 80), np.random.default_rng(4)
    loud = replace(made, thumbs=Thumbs.of([said(float(made.t[9]), k > 2, made.names[k]) for k in range(6)]))
    slates = SLOTS.look(made, rows)
    warm = np.where(slates.candidates[rows] >= 0, rng.integers(0, 3, (len(rows), slots.SLATE_SIZE)), 0)
    free = rng.random(len(rows))
    prompts = SLOTS.prompts(loud, slates, rows)
    assert (prompts != SLOTS.prompts(made, slates, rows)).any()
    show_memory(prompts, warm, free)
    np.testing.assert_array_equal(prompts, SLOTS.prompts(loud, slates, rows, warm, free))


def test_sft_reads_no_thumbs_and_what_comes_after_it_does() -> None:
    from rlmemo.learning.training_data import part_states, prompts, sft_examples
    from tests.training_ground import small_ground

    ground = small_ground()
    states = part_states(ground.split.train)[:40]
    heard = ground.hearing([
        replace(x, thumbs=Thumbs.of([said(-math.inf, False, name) for name in x.names]))
        for x in ground.timelines
    ])  # fmt: skip
    assert (prompts(heard, states) != prompts(ground, states)).any()
    for a, b in zip(sft_examples(heard, states), sft_examples(ground, states), strict=True):
        assert all(list(x) == list(y) for x, y in zip(a, b, strict=True))


def test_with_thumbs_the_model_streams_what_it_says_in_batches(embedded: Any) -> None:
    made = timeline()
    thumbs = [said(float(made.t[10 * k]), k % 3 > 0, made.names[k]) for k in range(1, 7)]
    heard = replace(made, thumbs=Thumbs.of([*thumbs, said(float(made.t[30]), False)]))
    same(LanguagePolicy(embedded), heard, np.arange(len(made)))


class LikeMoment(NamedTuple):
    """A decision at which a plan was shown, one of its targets, and the next decision of the same person at
    the same hour that has the target among its candidates."""

    timeline: Timeline
    at: int
    plan: tuple[str, ...]
    slates: Any
    next: int
    place: int

    def hears(self, up: bool, hit: bool | None, many: int) -> Timeline:
        """Their timeline, with a thumb on so many targets of the plan."""
        hour = int(self.timeline.local()[self.at] // 3600 % 24)
        thumb = said(float(self.timeline.t[self.at]), up, *self.plan[:many], hour=hour, hit=hit)
        return replace(self.timeline, thumbs=Thumbs.of([thumb]))


@pytest.fixture(scope="module")
def like_moments(embedded: Any) -> list[LikeMoment]:
    """500 of them, drawn from 40 people; what is rated is one of the three likeliest."""
    policy, found, rng = LanguagePolicy(embedded), [], np.random.default_rng(0)
    for seed in range(100, 140):
        made = timeline(seed, n=60)
        rows, hours = np.arange(20, len(made)), made.local() // 3600 % 24
        slates, ranked = SLOTS.look(made, rows), policy.rank(made, rows)
        for row, i in enumerate(rows.tolist()):
            plan = rng.permutation(ranked.targets[row, :3])
            later = rows[row + 1 :][hours[rows[row + 1 :]] == hours[i]]
            like = later[(slates.candidates[later] == plan[0]).any(axis=1)]
            if (plan >= 0).all() and len(like):
                names = tuple(made.names[x] for x in plan)
                place = int(np.flatnonzero(slates.candidates[like[0]] == plan[0])[0])
                found.append(LikeMoment(made, i, names, slates, int(like[0]), place))
    assert len(found) >= 500, len(found)
    return [found[k] for k in rng.permutation(len(found))[:500]]


def prompts_of(moments: list[LikeMoment], timelines: list[Timeline]) -> np.ndarray:
    each = zip(moments, timelines, strict=True)
    return np.concatenate([SLOTS.prompts(x, m.slates, np.array([m.next])) for m, x in each])


@pytest.mark.parametrize("many", [1, 3])
def test_one_thumb_acts_at_once(embedded: Any, like_moments: list[LikeMoment], many: int) -> None:
    """At the next like moment what was rated is likelier after a thumb up, and less likely after one down: in
    95 % of 500 cases, in the ranking and among first picks of own plans, whatever was opened next."""
    n = np.arange(len(like_moments))
    rows = [np.array([m.next]) for m in like_moments]
    place = np.array([m.place for m in like_moments])
    candidates = np.concatenate([m.slates.candidates[row] for m, row in zip(like_moments, rows, strict=True)])
    score = np.concatenate([m.slates.score[row] for m, row in zip(like_moments, rows, strict=True)])
    bare = prompts_of(like_moments, [m.timeline for m in like_moments])
    first, valid = read(embedded, bare), candidates >= 0

    def chances(minds: np.ndarray | None, prompts: MindedPrompts) -> tuple[np.ndarray, np.ndarray]:
        ranked = ranking(first, candidates, score, heard=minds)
        mine = ranked.targets == candidates[n, place][:, None]
        plans = sample_plans(embedded, prompts, valid, 1, 0.0, np.random.default_rng(0))
        assert plans.first is not None
        return (ranked.probability * mine).sum(1), plans.first[n, place]

    before = chances(None, MindedPrompts(bare))
    for up, hit in itertools.product((True, False), (True, False, None)):
        hear = [m.hears(up, hit, many) for m in like_moments]
        each = [said_by(x, row, c[None]) for x, row, c in zip(hear, rows, candidates, strict=True)]
        known = SoFar(np.concatenate([x.said for x in each]), np.concatenate([x.moment for x in each]))
        prompts = prompts_of(like_moments, hear)
        after = chances(heard(embedded, bare, prompts, known), minded(embedded, bare, prompts, known))
        for was, now in zip(before, after, strict=True):
            right = (now > was) if up else (now < was)
            assert right.mean() >= 0.95, (many, up, hit, right.mean())


def test_the_policy_says_what_was_counted_by_the_batch(embedded: Any, like_moments: list[LikeMoment]) -> None:
    """Some of the cases above, asked as anybody asks: a policy, one by one."""
    policy, right = LanguagePolicy(embedded), 0
    for moment in like_moments[:20]:
        row, target = np.array([moment.next]), moment.slates.candidates[moment.next, moment.place]

        def chance(of: Timeline, row: np.ndarray = row, target: int = target) -> float:
            ranked = policy.rank(of, row)
            return float(ranked.probability[0][ranked.targets[0] == target].sum())

        right += chance(moment.hears(False, None, 1)) < chance(moment.timeline)
    assert right >= 19


def case_of(made: Timeline, start: int = 40, stop: int = 70) -> Case:
    (costs,), world = [Costs(*[np.ones(len(made.names))] * 4)], WorldConfig()
    return Case(made, costs, world.resolved(costs), start, stop)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_own_plans_of_who_has_said_nothing_stay_what_they_are(embedded: Any, temperature: float) -> None:
    policy, made = LanguagePolicy(embedded, temperature=temperature), timeline(3)
    later = Thumbs.of([said(float(made.t[75]), False, made.names[0])])
    plain = policy.plan(case_of(made), seed=5)
    for thumbs in (Thumbs.of([]), later):
        again = policy.plan(case_of(replace(made, thumbs=thumbs)), seed=5)
        np.testing.assert_array_equal(again.target, plain.target)
        np.testing.assert_array_equal(again.delay, plain.delay)
        np.testing.assert_array_equal(again.propensity, plain.propensity)


def test_the_share_of_a_plan_is_that_with_which_it_was_drawn(embedded: Any) -> None:
    """Of one pick, against the model's own answers without thumbs, and what is heard in them."""
    made, rows = timeline(3), np.arange(30, 70)
    loud = replace(made, thumbs=Thumbs.of([said(float(made.t[20]), k > 2, x, hit=True)
                                           for k, x in enumerate(made.names[:6])]))  # fmt: skip
    slates = SLOTS.look(made, rows)
    candidates = slates.candidates[rows]
    bare, prompts = (SLOTS.prompts(x, slates, rows) for x in (made, loud))
    said_of = said_by(loud, rows, candidates)
    asked = minded(embedded, bare, prompts, said_of)
    plans = sample_plans(embedded, asked, candidates >= 0, 1, 1.0, np.random.default_rng(0))
    calm = read(embedded, bare).first.astype(np.float64)
    wanted = calm + heard(embedded, bare, prompts, said_of)
    wanted[:, :-1][candidates < 0] = -np.inf
    wanted -= np.logaddexp.reduce(wanted, axis=1, keepdims=True)
    assert plans.first is not None
    np.testing.assert_allclose(plans.first, np.exp(wanted), atol=1e-5)
    still = plans.place[:, 0] < 0
    np.testing.assert_allclose(plans.propensity[still], plans.first[still, -1], rtol=1e-9)
    assert 0 < still.sum() < len(rows)
    picked = plans.first[np.arange(len(rows)), np.maximum(plans.place[:, 0], 0)]
    assert (plans.propensity[~still] <= picked[~still]).all()  # times that of its delay


def test_with_thumbs_an_own_plan_that_is_streamed_is_the_one_that_is_made_in_batches(embedded: Any) -> None:
    made, rng, differ = timeline(3), np.random.default_rng(0), 0
    thumbs = Thumbs.of([said(float(made.t[8 * k]), k % 3 > 0, made.names[k]) for k in range(1, 7)])
    loud = replace(made, thumbs=thumbs)
    following = Following(embedded, made.tz)
    following.hear(thumbs)
    for i, event in enumerate(made):
        following.see(event.t, event.target, event.kind == "page")
        warm, free, row = rng.integers(0, 3, slots.SLATE_SIZE), rng.random(1), np.array([i])
        one = following.plan(warm, float(free[0]), temperature=1.0, rng=np.random.default_rng(i))
        slates = SLOTS.look(made, row)
        bare, prompts = (SLOTS.prompts(x, slates, row, warm[None], free) for x in (made, loud))
        valid = (slates.candidates[row] >= 0) & (warm[None] == 0)
        asked = minded(embedded, bare, prompts, said_by(loud, row, slates.candidates[row]))
        whole = sample_plans(embedded, asked, valid, 3, 1.0, np.random.default_rng(i))
        np.testing.assert_array_equal(one.place, whole.place)
        np.testing.assert_array_equal(one.delay, whole.delay)
        np.testing.assert_allclose(one.logp, whole.logp, atol=1e-4)
        plain = sample_plans(embedded, prompts, valid, 3, 1.0, np.random.default_rng(i))
        differ += int(abs(plain.logp - whole.logp)[0] > 1e-3)
    assert differ > 10


def test_the_models_own_plans_mind_it(embedded: Any) -> None:
    """As a policy plans: where all is liked it picks more than where nothing is."""
    made, picks = timeline(3), []
    for up in (True, False):
        thumbs = Thumbs.of([said(-math.inf, up, x, hit=True) for x in made.names] * 3)
        picks.append((LanguagePolicy(embedded).plan(case_of(replace(made, thumbs=thumbs))).target >= 0).sum())
    assert picks[0] > picks[1]


def test_thumbs_stay_with_a_timeline_that_is_cut() -> None:
    made = timeline()
    name = made.names[made.target[60]]
    thumbs = Thumbs.of([said(-math.inf, True, name)])
    cut = collapse(replace(made, thumbs=thumbs, collapsed=False)).take(np.arange(40, 80))
    assert cut.thumbs is thumbs
    found = said_by(cut, np.arange(40), np.tile(np.arange(len(cut.names), dtype=np.int32), (40, 1)))
    which = [cut.names[k] for k in np.flatnonzero(column(found.said, "ups")[0])]
    assert which == [name]


def rated(path: Path) -> tuple[Any, list[Timeline]]:
    from env.sources import load_timelines
    from rlmemo.predict import main as predict
    from rlmemo.store.database import open_store

    assert (
        predict(
            ["--timelines", "demo", "--policy", "mru", "--db", str(path), "--n", "12", "--threshold", "0"]
        )
        == 0
    )
    return open_store(path), load_timelines(str(path)).timelines


def test_a_vote_that_is_taken_back_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rlmemo.approval.placed_ratings import place_ratings, read_ratings
    from rlmemo.approval.thumbs_said import told, told_today
    from rlmemo.store.ratings import latest, rate, show_next, withdraw

    store, timelines = rated(tmp_path / "my.db")
    with store:
        assert all(x.thumbs is None for x in told_today(timelines, store))
        showing = show_next(store, "me", 0.5)
        assert showing is not None
        rate(store, showing, 0)
        today = told_today(timelines, store)
        (one,) = [x for x in today if x.thumbs is not None]
        assert one.user == showing.moment.prediction.user
        assert one.thumbs is not None
        assert one.thumbs.up.tolist() == [False]
        assert one.thumbs.targets[0] == tuple(p.target for p in showing.moment.prediction.plan)
        (placed,) = place_ratings(read_ratings(store), timelines).placed
        then = told(timelines, [placed])[placed.user]
        assert then.thumbs is not None
        assert then.thumbs.since.tolist() == [then.t[placed.index]]
        outcome = showing.moment.prediction.outcome or {}
        assert then.thumbs.hit.tolist() == [float(outcome["next_target"] in one.thumbs.targets[0])]
        vote = latest(store, "me")
        assert vote is not None
        withdraw(store, vote)
        assert all(x.thumbs is None for x in told_today(timelines, store))


def test_a_vote_makes_no_second_prediction_of_the_same_plan(tmp_path: Path) -> None:
    from rlmemo.predict import main as predict
    from rlmemo.store.database import open_store
    from rlmemo.store.ratings import rate, show_next

    asked = ["--timelines", "demo", "--policy", "base", "--db", str(tmp_path / "my.db"), "--n", "30"]
    assert predict(asked) == 0
    with open_store(tmp_path / "my.db") as store:
        for draw in (0.1, 0.5, 0.9):
            showing = show_next(store, "me", draw)
            assert showing is not None
            rate(store, showing, 0)
    assert predict(asked) == 0
    with open_store(tmp_path / "my.db") as store:
        rows = store.rows("SELECT user, t, plan FROM predictions")
    assert len({(r["user"], r["t"], r["plan"]) for r in rows}) == len(rows)


def test_thumbs_count_more_where_the_scorer_was_fitted_to_the_person() -> None:
    """A fitted scorer is surer of what comes next, so that the same step would change less."""
    fitted = replace(base_scorer(), below=base_scorer())
    shipped, own = (SimpleNamespace(reading=SlotReading(x)) for x in (None, fitted))
    said = SoFar(np.zeros((2, 3, len(COLUMNS))), np.array([[-0.4, 0.0], [0.0, 0.2]]))
    said.said[0, 1, COLUMNS.index("opinion")] = 0.7
    read_in = np.random.default_rng(0).normal(size=(2, 4))
    np.testing.assert_allclose(_pooled(own, read_in, said), FITTED * _pooled(shipped, read_in, said))
    assert (_pooled(shipped, read_in, said) == (1 - POOL) * read_in + POOL * said.sooner()).all()
