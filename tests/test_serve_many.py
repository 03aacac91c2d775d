"""Many people on one model: in one forward pass as alone, urgent ones first, each with their own adapter."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from starlette.datastructures import Headers

from env.thumbs import Thumb, Thumbs
from experiments.many_people import people
from rlmemo.live.mind import Thought
from rlmemo.model.load import load_model
from rlmemo.model.switching import Switching
from rlmemo.policies.following import answers
from rlmemo.policies.language import LanguagePolicy
from rlmemo.policies.registry import to_follow
from rlmemo.serve import replicas
from rlmemo.serve.admission import is_batch
from rlmemo.serve.minds import maker, opened
from rlmemo.serve.passes import AT_ONCE, MindsPast, Passes, steps, together
from rlmemo.serve.people import Refused
from rlmemo.serve.replicas import Post, Replicas
from rlmemo.serve.told import ToldMind
from rlmemo.serve.turns import BATCH, Turns
from rlmemo.store.live_ledger import DECIDED, NOT_YET, LivePlan, LiveRow
from rlmemo.store.records import Prewarm
from tests.test_adapters import untrained
from tests.training_ground import base_of


@pytest.fixture(scope="module")
def base() -> tuple[Any, Callable[[str], ToldMind]]:
    """(policy, what makes a mind for somebody)"""
    made = to_follow("base")
    make = maker(made, "shipped", None)
    return made.policy, lambda name: ToldMind(make(name, "UTC", None))


def rows_of(count: int, opens: int) -> dict[str, list[LiveRow]]:
    """What several people open."""
    return {
        t.user: [LiveRow(k + 1, e, 0.0, NOT_YET) for k, e in enumerate(t)] for t in people(count, opens, 7)
    }


def said(thoughts: list[Thought]) -> list[Any]:
    """All of them but how long they took."""
    return [
        (list(x.plan.plan), list(x.plan.let_go), x.plan.probabilities, x.plan.none_probability, x.record,
         x.came, x.gone, x.left)
        for x in thoughts
    ]  # fmt: skip


def alone(mind: ToldMind, rows: list[LiveRow], told: list[LivePlan | None] | None = None) -> list[Any]:
    return said(list(mind.think_all(rows, told or [None] * len(rows))))


def test_in_one_pass_everybody_is_told_what_they_are_told_alone(base: Any) -> None:
    """To the last bit that is told; with plans that were made elsewhere, and thumbs; from the beginning, and
    from a past that is restored."""
    policy, mind = base
    rows = rows_of(6, 70)
    done = LivePlan("base", "1", [Prewarm("target0", 0.0)], ["target1"])
    told = {
        user: [done if k % 9 == i else None for k in range(len(rows[user]))] for i, user in enumerate(rows)
    }
    thumbs = Thumbs.of([Thumb(-np.inf, h, False, None, ("target0", "target1")) for h in range(24)])
    expected, heard, kept = {}, {}, {}
    for i, user in enumerate(rows):
        one, heard[user] = mind(user), thumbs if i == 2 else None
        one.hear(heard[user])
        expected[user] = alone(one, rows[user], told[user])
        kept[user] = [
            LiveRow(r.id, r.event, 0.0, DECIDED, r.id, tuple(plan), tuple(let_go))
            for r, (plan, let_go, *_) in zip(rows[user][: len(rows[user]) // 2], expected[user], strict=False)
        ]
    passes = Passes(policy, 4)

    def asked(user: str, past: list[LiveRow]) -> Any:
        n = len(past)
        work = steps(partial(mind, user), MindsPast(past, heard[user]), rows[user][n:], told[user][n:])
        return passes.add(work, False)

    whole, rest = {u: asked(u, []) for u in rows}, {u: asked(u, kept[u]) for u in rows}
    for user in rows:
        assert said(whole[user].result(60)[1]) == expected[user], user
        plans = [x[:4] for x in said(rest[user].result(60)[1])]
        assert plans == [x[:4] for x in expected[user][len(kept[user]) :]], user
    assert passes.errands > 2 * passes.passes, "passes held several people"
    assert sum(bool(x[0]) for e in expected.values() for x in e) > 20


def test_together_is_tried_out(base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that says something else to several is asked one by one."""
    policy, mind = base
    assert together(policy, mind, opened) > 1
    assert together(to_follow("markov1").policy, mind, opened) == 1

    def other(policy: LanguagePolicy, asked: Any) -> Any:
        found = answers(policy, asked)
        for one in found:
            one.first[:] += 1e-7 * (len(asked) > 3)
        return found

    monkeypatch.setattr("rlmemo.serve.passes.answers", other)
    assert together(policy, mind, opened) == 3


def test_who_waits_goes_before_a_batch_and_waits_for_a_pass(base: Any) -> None:
    policy, mind = base
    (first, many), (second, few) = rows_of(2, 260).items()
    passes = Passes(policy, 1)
    batch = passes.add(steps(lambda: mind(first), None, many, [None] * len(many)), True)
    while passes.passes < 3:
        time.sleep(0.001)
    before = passes.passes
    urgent = passes.add(steps(lambda: mind(second), None, few[:20], [None] * 20), False)
    urgent.result(60)
    assert passes.passes - before <= 20 + 3, "at most the pass that was under way, and its own"
    assert not batch.done()
    assert len(batch.result(60)[1]) == len(many)


def test_an_errand_that_fails_fails_alone(base: Any) -> None:
    policy, mind = base
    (user, rows), (other, fine) = rows_of(2, 30).items()
    back = [rows[5], rows[4]]
    passes = Passes(policy, AT_ONCE)
    wrong = passes.add(steps(lambda: mind(user), None, back, [None, None]), False)
    right = passes.add(steps(lambda: mind(other), None, fine, [None] * len(fine)), False)
    with pytest.raises(ValueError, match="before the one"):
        wrong.result(60)
    assert said(right.result(60)[1]) == alone(mind(other), fine)


@pytest.mark.parametrize(("merged", "most"), [(True, 256), (True, 1), (False, 2)])
def test_everybody_is_read_with_their_own_adapter(
    tmp_path: Path, light_trainings: None, monkeypatch: pytest.MonkeyPatch, merged: bool, most: int
) -> None:
    """Also where fewer adapters are kept in memory than there are."""
    monkeypatch.setattr("rlmemo.model.switching.MOST", most)
    base_of(tmp_path / "base")
    own = {}
    for k, user in enumerate(("ann", "bob", "shared")):
        own[user] = tmp_path / user
        untrained("lora", own[user], tmp_path / "base", seed=k)
    shared = own.pop("shared")
    switch = Switching(load_model(str(tmp_path / "base"))[0], shared, own, merged)
    policy = LanguagePolicy(switch)
    made = to_follow("base")
    minds = {u: maker(type(made)(policy, made.planner, made.world), "1", None)(u, "UTC", None)
             for u in ("ann", "bob", "eve", "joe")}  # fmt: skip
    rows = rows_of(1, 30)["person000000"]
    expected = {u: alone(ToldMind(m), rows) for u, m in minds.items()}
    passes = Passes(policy, 4)
    found = {u: passes.add(steps(partial(ToldMind, m), None, rows, [None] * len(rows)), False)
             for u, m in minds.items()}  # fmt: skip
    for user, thoughts in found.items():
        assert said(thoughts.result(60)[1]) == expected[user], user
    assert expected["eve"] == expected["joe"]
    assert len({repr(expected[u]) for u in ("ann", "bob", "eve")}) == 3
    assert passes.passes < 2 * len(rows)
    assert len(switch._way.known) <= most


def test_a_turn_is_handed_on_to_who_is_urgent() -> None:
    turns, order = Turns(), list[str]()

    def wait(name: str, batch: bool) -> None:
        BATCH.set(batch)
        with turns.turn():
            order.append(name)

    with turns.turn():
        threads = []
        for name, batch in (("batch", True), ("one", False), ("two", False)):
            threads.append(threading.Thread(target=wait, args=(name, batch)))
            threads[-1].start()
            while len(turns._waiting) < len(threads):
                time.sleep(0.001)
        with turns.apart():
            order.append("apart")
        order.append("back")
    for thread in threads:
        thread.join(10)
    assert [x for x in order if x != "apart"] == ["one", "two", "back", "batch"]


def test_the_last_replica_is_not_drained_and_a_drained_one_did_not_die(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without Ray: what is asked of it is answered in its stead."""
    monkeypatch.setattr(replicas, "LOOK_S", 0.01)
    pids = [10, 20]

    def actor(k: int) -> Any:
        remote = SimpleNamespace(remote=lambda: {"pid": pids[k]})
        return SimpleNamespace(number=k, stand=remote)

    killed: list[int] = []
    crew = Replicas.__new__(Replicas)
    crew.posts = [Post(k, actor(k), "up", stands={"pid": pids[k]}) for k in range(2)]
    crew.retried, crew._changed, crew._closed = 0, threading.Condition(), threading.Event()
    crew._ray = SimpleNamespace(
        kill=lambda x, **_: killed.append(x.number), get=lambda x: x, wait=lambda x, **_: (x, []),
        exceptions=SimpleNamespace(RayError=OSError),
    )  # fmt: skip

    def states() -> list[str]:
        return [x["state"] for x in crew.stands()["replicas"]]

    assert crew.drain(0) == {"drained": 0}
    assert (killed, states()) == ([0], ["restarting", "up"])
    with pytest.raises(Refused, match="replica 1 is the only one up") as refused:
        crew.drain(1)
    assert (refused.value.status, states()) == (409, ["restarting", "up"])
    watch = threading.Thread(target=crew._watch)
    watch.start()
    time.sleep(0.1)
    assert states() == ["restarting", "up"], "what it said before it ended counts no more"
    pids[0] = 11
    while states() != ["up", "up"]:
        time.sleep(0.01)
    crew._closed.set()
    watch.join(10)
    crew._went_down(crew.posts[0])
    assert states() == ["down", "up"]
    with pytest.raises(Refused, match="only one up"):
        crew.drain(1)


@pytest.mark.parametrize(
    ("given", "batch"),
    [({}, False), ({"priority": "u=3"}, False), ({"priority": "i, u=7"}, True), ({"priority": "u=4,i"}, True),
     ({"priority": "u=77"}, False), ({"priority": "menu=7"}, False), ({"priority": "u=0"}, False)],
)  # fmt: skip
def test_the_header_that_says_what_can_wait(given: dict[str, str], batch: bool) -> None:
    assert is_batch(Headers(given)) == batch
