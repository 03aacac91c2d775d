"""Rolling origins: a timeline that has ended early, and differences on the same events."""

from __future__ import annotations

import numpy as np

from env.splits import chrono
from experiments.rolling import ended, table
from rlmemo.evaluation.bootstrap import Draws
from tests.training_ground import small_ground


def test_what_comes_after_the_end_is_not_there() -> None:
    for timeline in small_ground().timelines:
        made, n = ended(timeline, 0.6), int(0.6 * len(timeline))
        assert len(made) == n
        np.testing.assert_array_equal(made.t, timeline.t[:n])
        np.testing.assert_array_equal(made.target, timeline.target[:n])
        whole = chrono([timeline]).test[0]
        assert chrono([ended(timeline, 0.8)]).test[0].max() < whole.min()


def test_differences_are_to_gbdt_of_the_same_seed_and_events() -> None:
    def said(*places: int) -> tuple[np.ndarray, np.ndarray]:
        return np.array(places), np.full(len(places), np.log(0.5))

    # Two shares of two events each; two seeds. Against gbdt: one of four events better at hr@1 in one seed.
    found = [
        [{"gbdt": said(1, 0), "x": said(0, 0)}, {"gbdt": said(0, 0), "x": said(0, 0)}],
        [{"gbdt": said(-1, 4), "x": said(-1, 4)}, {"gbdt": said(-1, 4), "x": said(-1, 4)}],
    ]
    rows = table(found, Draws(np.arange(4), np.zeros(4, int))).splitlines()
    assert rows[2].split("|")[2:6] == [" 0 "] * 4
    cells = rows[3].split("|")
    assert [x.split()[0] for x in cells[2:6]] == ["+125.0", "+0.0", "+0.0", "+62.5"]
    assert cells[6].strip() == "0.6931"
