"""The last week replayed: what is summed, and whether a run had learned from the days it is judged on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dashboard.replay import seen
from env.sources import load_timelines
from env.sources.report import Loaded
from env.splits import chrono
from env.timeline import Timeline
from rlmemo.evaluation.last_week import would_have_saved
from rlmemo.learning.config import TrainConfig
from rlmemo.learning.prepare import found_here, prepare
from rlmemo.runs.learned_days import NEVER, fingerprint, learned_until
from rlmemo.runs.plan_file import shipped_in_charge
from rlmemo.store.database import open_store


def people() -> Loaded:
    """Two weeks of the demo's first two people, as they are imported."""
    found = load_timelines("demo", weeks=2, collapsed=False)
    return replace(found, timelines=found.timelines[:2])


def noted(folder: Path, timelines: str, **settings: Any) -> Path:
    """A run's config, as `rlmemo.train` writes it, on what `timelines` holds now."""
    folder.mkdir(parents=True)
    met = {"timelines": {"sha256": fingerprint(load_timelines(timelines).timelines)}}
    config = {"settings": {"timelines": timelines, "seed": 0, "split": "chrono", **settings}, "met": met}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture
def db(tmp_path: Path) -> Path:
    with open_store(tmp_path / "a.db") as store:
        store.add_timelines(people())
    return tmp_path / "a.db"


def test_the_days_add_up_and_the_future_changes_nothing(db: Path) -> None:
    timeline = load_timelines(str(db)).timelines[0]
    week = would_have_saved(timeline)
    assert week is not None
    assert week.t[0] > timeline.t[-1] - 7 * 86400.0
    assert week.t[-1] == timeline.t[-1]
    assert 0 < week.hits + week.wasted <= week.prewarms
    middle = float(week.t[len(week.t) // 2])
    late = week.after(middle)
    assert 0 < late.opens < week.opens
    assert (late.t > middle).all()
    early = week.table[week.t <= middle]
    assert np.allclose(early.sum(0) + late.table.sum(0), week.table.sum(0))
    # Without the last day, the days before it come out the same, until what is still in memory at the cut.
    begins = float(timeline.t[len(timeline) - week.opens - 1 :][:2].mean())
    cut = timeline.take(timeline.t <= timeline.t[-1] - 86400.0)
    shorter = would_have_saved(cut, days=(cut.t[-1] - begins) / 86400.0)
    assert shorter is not None
    settled = int((shorter.t < cut.t[-1] - 3600.0).sum())
    assert settled > 100
    assert np.array_equal(shorter.t, week.t[: shorter.opens])
    assert np.array_equal(shorter.table[:settled], week.table[:settled])
    assert would_have_saved(timeline.take(np.arange(len(timeline)) < 40)) is None


def test_a_run_learned_until_the_end_of_its_validation_part(db: Path, tmp_path: Path) -> None:
    timelines = load_timelines(str(db)).timelines
    run = noted(tmp_path / "runs" / "own", str(db))
    split = chrono(timelines)
    for k, timeline in enumerate(timelines):
        last = timeline.t[split.validation[k][-1]]
        assert learned_until(run, timeline) == last
        week = would_have_saved(timeline)
        assert week is not None
        said = seen(timeline, week, learned_until(run, timeline))
        assert said.startswith("This run learned from these very days up to ")
        assert f"clean: {len(split.test[k])} opens" in said
    # The same person under another name and from another file; and somebody whom the run never saw.
    renamed = replace(timelines[0], user="me")
    assert learned_until(run, renamed) == timelines[0].t[split.validation[0][-1]]
    stranger = load_timelines("demo", weeks=2).timelines[2]
    assert learned_until(run, stranger) == NEVER
    whole = noted(tmp_path / "runs" / "demo", "demo")
    demo = load_timelines("demo").timelines[0]
    week = would_have_saved(demo)
    assert week is not None
    assert "it had seen none of them" in seen(demo, week, learned_until(whole, demo))
    assert "none of these days" in seen(demo, week, NEVER)
    assert "all of them" in seen(demo, week, float(demo.t[-1]))
    (whole / "adapter").mkdir(exist_ok=True)
    for told, shipped in (('{"planner": "own", "stage": "base"}', True), ('{"planner": "own"}', False)):
        (whole / "adapter" / "plan.json").write_text(told)
        assert shipped_in_charge(whole) is shipped


def test_what_an_earlier_run_learned_counts(db: Path, tmp_path: Path) -> None:
    timeline = load_timelines(str(db)).timelines[0]
    first = noted(tmp_path / "runs" / "first", str(db))
    second = noted(tmp_path / "runs" / "second", "demo", init_adapter=str(first))
    third = noted(tmp_path / "runs" / "third", "demo", init_adapter=str(tmp_path / "gone"))
    assert learned_until(second, timeline) is not None
    assert learned_until(second, timeline) >= learned_until(first, timeline)  # type: ignore[operator]
    assert learned_until(third, timeline) is None
    (first / "config.yaml").write_text("settings: [")
    assert learned_until(second, timeline) is None


def test_where_the_database_has_grown_its_notes_tell(db: Path, tmp_path: Path) -> None:
    run = noted(tmp_path / "runs" / "own", str(db))
    before = load_timelines(str(db)).timelines[0]
    stranger = load_timelines("demo", weeks=2, collapsed=False)
    with open_store(db) as store:
        store.add_timelines(replace(stranger, name="more", timelines=stranger.timelines[2:3]))
        assert learned_until(run, before, store.runs()) is None
        learned = {
            "from": 0.0,
            "until": 1e9,
            "events_of_this_database": True,
            "ratings_of_this_database": False,
        }
        store.add_run(str(run.resolve()), "dpo", "embedded", "own", {"settings": {}, "learned": learned})
        timeline: Timeline = load_timelines(str(db)).timelines[0]
        assert learned_until(run, timeline, store.runs()) == 1e9
        week = would_have_saved(timeline)
        assert week is not None
        assert "cannot be told" in seen(timeline, week, None)


def test_a_run_that_was_just_made_can_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dashboard stands in another folder than the training did, rows have come since, it is gone."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    there = [replace(x, user=f"p{k}") for k, x in enumerate(people().timelines)]
    rows = [
        f"{x.user},{t:.3f},{x.names[y]}"
        for x in there
        for t, y in zip(x.t.tolist(), x.target.tolist(), strict=True)
    ]
    Path("mine.csv").write_text("\n".join(["user,t,target", *rows]) + "\n")
    begun = prepare(TrainConfig(timelines="mine.csv", tz="UTC"), Path("runs/first"), resume=False)
    more = TrainConfig(timelines="demo", init_adapter="runs/first")
    second = tmp_path / "project" / "runs" / "second"
    second.mkdir()
    (second / "config.yaml").write_text(
        yaml.safe_dump({"settings": more.as_dict(), "met": found_here(more, load_timelines("demo"))})
    )
    ends = [
        float(x.t[begun.split.validation[k][-1]]) for k, x in enumerate(begun.timelines)
    ]  # the part that chooses is seen, too
    runs = tmp_path / "project" / "runs"
    monkeypatch.chdir(tmp_path)
    for timeline, end in zip(begun.timelines, ends, strict=True):
        assert learned_until(runs / "first", timeline) == end
        assert learned_until(runs / "second", timeline) >= end  # type: ignore[operator]
    file = tmp_path / "project" / "mine.csv"
    file.write_text(file.read_text() + f"p0,{begun.timelines[0].t[-1] + 60:.0f},somewhere.example\n")
    assert learned_until(runs / "first", begun.timelines[0]) == max(ends)
    file.unlink()
    assert learned_until(runs / "first", begun.timelines[0]) == max(ends)
    week = would_have_saved(begun.timelines[0])
    assert week is not None
    assert "cannot be told" not in seen(begun.timelines[0], week, max(ends))
