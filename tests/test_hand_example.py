"""The example worked by hand: the docs, the readable world, the kernel and the environment agree on it."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest

import env  # noqa: F401
from env.judge import accounting
from env.judge.cost import Cost, CostModel
from env.judge.plans import FIELDS, HIT, LATE, WASTED
from tests.reference import world
from tests.reference.example import (
    hand_example,
    let_go_example,
    let_go_table,
    table,
    wake_example,
    wake_table,
)


def test_the_docs_print_what_the_code_prints(repo_root: Path) -> None:
    page = (repo_root / "docs" / "accounting.md").read_text(encoding="utf-8")
    for part in (*table().strip().split("\n\n"), let_go_table().strip(), wake_table().strip()):
        assert part in page


@pytest.mark.parametrize("replay", [world.replay, accounting.replay])
def test_the_numbers_worked_by_hand(replay) -> None:  # type: ignore[no-untyped-def]
    timeline, costs, config, plans = hand_example()
    out = replay(timeline, costs, config, plans)
    assert out.base_wait_s.tolist() == [4, 4, 4, 1, 1]
    assert out.wait_s.tolist() == [4, 4, 2, 4, 4]
    assert out.saved_s.tolist() == [0, 0, 2, -3, -3]
    assert out.pollution.tolist() == [0, 0, 0, 1, 1]
    assert out.held_mb_s.tolist() == [0, 0, 800, 23200, 800]
    assert out.wasted_mb_s.tolist() == [0, 0, 0, 0, 24000]
    assert out.outcome[:, 0].tolist() == [0, LATE, WASTED, 0, 0]
    assert out.lead_s[1, 0] == 2.0


def test_the_environment_comes_to_the_same_numbers() -> None:
    timeline, _, config, plans = hand_example()
    model = CostModel("example", "by hand", Cost(400.0, 4.0, 1.0, 3.0))
    made = gymnasium.make(
        "rlmemo/Prewarm-v0", timelines=[timeline], costs=model, config=config, episode="timeline"
    )
    walk = made.unwrapped
    made.reset(seed=0)
    # The slate lists only what was opened before, and the example prewarms chat before its first open:
    # that pick is put into the slate by hand.
    walk.tracks[0].candidates[1, 0] = plans.target[1, 0]
    mail = int(np.flatnonzero(walk.tracks[0].candidates[2] == plans.target[2, 0])[0])
    actions = [(0, 0), (1, 1), (mail + 1, 0), (0, 0)]
    steps = [made.step(np.array(action)) for action in actions]
    saved = [info["outcome"][FIELDS.index("saved_s")] for *_, info in steps]
    assert saved == [0, 2, -3, -3]
    assert [s[1] for s in steps] == pytest.approx(
        [0, 2 - 800 / 60 * 4e-5 - 0.0084, -3 - 23200 / 60 * 4e-5 - 0.0084, -3 - 800 / 60 * 4e-5], abs=1e-12
    )
    assert steps[-1][2]


@pytest.mark.parametrize("replay", [world.replay, accounting.replay])
def test_the_numbers_with_a_let_go_worked_by_hand(replay) -> None:  # type: ignore[no-untyped-def]
    timeline, costs, config, plans = let_go_example()
    out = replay(timeline, costs, config, plans)
    assert out.base_wait_s.tolist() == [4, 4, 4, 4, 1]
    assert out.wait_s.tolist() == [4, 4, 4, 1, 1]
    assert out.saved_s.tolist() == [0, 0, 0, 3, 0]
    assert out.kept.tolist() == [0, 0, 0, 1, 0]
    assert (out.total("cold"), out.total("base_cold"), out.total("pollution")) == (3, 4, 0)


@pytest.mark.parametrize("replay", [world.replay, accounting.replay])
def test_the_numbers_with_a_wake_worked_by_hand(replay) -> None:  # type: ignore[no-untyped-def]
    timeline, costs, config, plans = wake_example()
    out = replay(timeline, costs, config, plans)
    assert out.base_wait_s.tolist() == [4, 4, 4, 4]
    assert out.wait_s.tolist() == [4, 4, 1, 1]
    assert out.held_mb_s.tolist() == [0, 0, 48000, 800]
    assert out.outcome[1].tolist() == [HIT, HIT]
    assert out.lead_s[1].tolist() == [60.0, 62.0]


def test_the_environment_lets_go_to_the_same_numbers() -> None:
    timeline, _, config, _ = let_go_example()
    model = CostModel("example", "by hand", Cost(400.0, 4.0, 1.0, 3.0))
    made = gymnasium.make(
        "rlmemo/Prewarm-v1", timelines=[timeline], costs=model, config=config, episode="timeline"
    )
    observation, _ = made.reset(seed=0)
    rows = []
    for names in (0, 2, 0, 0):  # after event 1 mail is row 1, the editor, in front, row 2
        rows.append(int(observation["residents"][:, 0].sum()))
        observation, *_, info = made.step(np.array([0, 0, names, 0]))
        rows.append(info["outcome"][FIELDS.index("saved_s")])
    assert rows == [1, 0, 2, 0, 2, 3, 2, 0]
