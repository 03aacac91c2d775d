"""The evidence is what it says: paired, resumable, every method on the same events, judged as elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import numpy as np
import pytest
import yaml

from env.errors import InputError
from experiments.evidence import SeedRun, Spec, inherit, main, parser, read_spec, same_way
from experiments.evidence_table import (
    PARTS,
    Events,
    Row,
    at_equal_waste,
    first_opens,
    joined_events,
    joined_rows,
    put_between,
    ratio,
    read_events,
    together,
)
from rlmemo.evaluation.bootstrap import Draws
from rlmemo.learning.config import make_config
from tests.test_timeline import timeline
from tests.test_train_cli import SMALL, write_csv
from tests.tiny_base import write_tiny_base
from tests.warm import Warm


def write_spec(folder: Path, **given: Any) -> Path:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(given))
    return path


def test_a_method_that_is_not_there_is_left_out_with_a_reason(tmp_path: Path) -> None:
    path = write_spec(tmp_path, methods=["sft", "telepathy"], variants={"mild": {"dpo_beta": 0.5}})
    spec = read_spec(parser().parse_args(["--config", str(path), "--seeds", "0,1", "--timelines", "demo"]))
    assert list(spec.variants) == ["sft", "mild"]
    assert "telepathy" in spec.skipped["telepathy"]
    assert [(r.name, r.seed) for r in spec.runs()] == [("sft", 0), ("sft", 1), ("mild", 0), ("mild", 1)]
    for wrong in ({"method": ["sft"]}, {"methods": ["telepathy"]}, {"variants": {"x": {"dpo_bta": 1}}}):
        with pytest.raises(InputError):
            read_spec(parser().parse_args(["--config", str(write_spec(tmp_path, **wrong))]))


def test_what_is_copied_was_learned_the_same_way() -> None:
    sft = make_config({"method": "sft"})
    assert same_way(sft, make_config({"method": "dpo", "dpo_beta": 0.5, "reward": "hit=1"}))
    assert not same_way(sft, make_config({"method": "dpo", "sft_lr": 0.01}))
    assert not same_way(sft, make_config({"method": "dpo", "budget": 4}))
    dpo = make_config({"method": "dpo"})
    assert same_way(dpo, make_config({"method": "dpo-ppo"}))
    assert not same_way(dpo, make_config({"method": "dpo-ppo", "dpo_beta": 0.5}))
    assert not same_way(dpo, make_config({"method": "dpo-ppo", "reward": "hit=1"}))


def events_of(sessions: int, per: int, seed: int = 0) -> Events:
    groups = np.repeat(np.arange(sessions), per)
    return Events(
        b"",
        Draws(groups, np.zeros(len(groups), int), seed=seed),
        np.ones(len(groups)),
        np.zeros(len(groups), bool),
    )


def test_a_difference_is_paired() -> None:
    """Two policies that differ by a constant are told apart, however much the events vary."""
    rng, events = np.random.default_rng(0), events_of(60, 5)
    noise = rng.normal(size=300) * 5
    gap = ratio([events, events], [noise + 0.1 - noise, noise + 0.1 - noise], None)
    assert gap.value == pytest.approx(0.1)
    assert gap.low == pytest.approx(0.1)
    alone = ratio([events, events], [noise, noise], None)
    assert alone.low < alone.value < alone.high


def test_seeds_that_disagree_widen_the_interval() -> None:
    events = events_of(200, 5)
    same = ratio([events] * 3, [np.full(1000, 0.2)] * 3, None)
    apart = ratio([events] * 3, [np.full(1000, x) for x in (0.0, 0.2, 0.4)], None)
    assert same.value == apart.value == pytest.approx(0.2)
    assert same.high - same.low == pytest.approx(0.0)
    assert apart.low < 0.1
    assert apart.high > 0.3


def test_hits_at_equal_waste_are_read_off_the_curve() -> None:
    table = np.zeros((10, 5))
    table[:, 3] = 0.3  # wasted per open
    reference = Row("sft", "threshold", [0], [table], [None])
    curve = np.array([[0.4, 0.8, 1.2, 0, 0.1], [0.2, 0.4, 0.6, 0, 0.5], [0.0, 0.0, 0.0, 0, 2.0]])
    assert at_equal_waste(Row("a", "own", [0], [table], [curve]), reference) == pytest.approx(0.15)
    assert at_equal_waste(Row("a", "own", [0], [table], [None]), reference) is None


def test_the_table_takes_its_own_place(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text("# Results\n\nbefore\n")
    put_between(page, "evidence x", "first\n")
    page.write_text(page.read_text() + "\nafter\n")
    put_between(page, "evidence x", "second\n")
    put_between(page, "evidence y", "other\n")
    text = page.read_text()
    assert "first" not in text
    assert [text.count(w) for w in ("before", "second", "after", "other")] == [1, 1, 1, 1]


def test_nothing_is_copied_from_an_unfinished_run(tmp_path: Path) -> None:
    donor = SeedRun("sft", "demo", 0, {"method": "sft"}, tmp_path / "sft")
    donor.folder.mkdir()
    assert inherit(SeedRun("dpo", "demo", 0, {"method": "dpo"}, tmp_path / "dpo"), [donor]) is None


def test_splits_of_the_same_people_are_one_table(tmp_path: Path) -> None:
    csv = write_csv(tmp_path / "two.csv")
    both = [f"{csv}@origin60", str(csv)]
    assert list(together([*both, "demo"])) == [*both, "demo", f"{csv}, 2 splits"]
    spec = Spec(both, [0], {"sft": {"method": "sft", "tz": "UTC"}}, [], tmp_path / "out")
    assert [run.config.split for run in spec.runs()] == ["origin60", "chrono"]
    assert len({run.folder for run in spec.runs()}) == 2
    each = [read_events(spec, one, "test") for one in both]
    joined = joined_events(each)[0]
    assert len(joined.bound) == sum(len(e[0].bound) for e in each)
    assert joined.draws.n_groups == sum(e[0].draws.n_groups for e in each), "no session is in two splits"
    rows = [[Row("a", way, [0], [np.full((len(e[0].bound), 5), k)], [None])] for k, (way, e) in
            enumerate(zip(("own", "pair"), each, strict=True))]  # fmt: skip
    (row,) = joined_rows(rows)
    assert row.planner == "own / pair"
    assert row.arrays[0][:, 0].tolist() == [0.0] * len(each[0][0].bound) + [1.0] * len(each[1][0].bound)


def test_the_first_open_of_a_target() -> None:
    assert first_opens(timeline("abacb")).tolist() == [True, True, False, True, False]


@pytest.mark.slow
def test_from_the_runs_to_the_table(warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole evidence, tiny: learned, judged on both parts, tabled; the second time nothing is done."""
    small = {k.removeprefix("--").replace("-", "_"): v for k, v in zip(SMALL[::2], SMALL[1::2], strict=True)}
    small.pop("policies")
    base, csv = write_tiny_base(tmp_path / "base"), write_csv(tmp_path / "two.csv", 180)
    path = write_spec(
        tmp_path,
        title="tiny",
        timelines=[str(csv)],
        seeds=[1],
        methods=["sft", "dpo", "telepathy"],
        variants={"dpo last": {"method": "dpo", "preference_keep": "last"}},
        settings={**small, "model": str(base), "tz": "UTC"},
        baselines=["none", "mru", "markov1", "oracle"],
    )
    monkeypatch.setattr(warm, "light", True)
    out = tmp_path / "out"
    asked = ["--config", str(path), "--out", str(out), "--part", "test", "--jobs", "2"]
    asked += ["--docs", str(tmp_path / "results.md")]

    def start(command: list[str], *, stdout: TextIO, env: dict[str, str], **_: object) -> Any:
        return warm.start(command[2], *command[3:], cwd=tmp_path, env=env, log=Path(stdout.name))

    monkeypatch.setattr("experiments.evidence.subprocess", SimpleNamespace(Popen=start, STDOUT=None))
    assert main(asked) == 0, "".join(p.read_text() for p in out.glob("log*"))
    result = json.loads((out / "evidence-test.json").read_text())
    rows = result["timelines"][str(csv)]["rows"]
    assert {"sft, own", "sft, threshold", "sft", "dpo", "dpo last", "none", "oracle"} <= set(rows)
    assert list(result["left_out"]) == ["telepathy"]
    assert len({"mru", "markov1"} & set(rows)) == 1, "the best counting planner stands for all"
    for name, row in rows.items():
        worth = row["metrics"]["reward_per_open"]["value"]
        assert sum(row["terms"].values()) == pytest.approx(worth, abs=1e-9)
        assert np.mean(row["reward_by_seed"]) == pytest.approx(worth)
        if "sft" in row["minus"]:
            other = rows["sft"]["metrics"]["reward_per_open"]["value"]
            assert row["minus"]["sft"]["value"] == pytest.approx(worth - other, abs=1e-9), name
    assert rows["none"]["metrics"]["reward_per_open"]["value"] == 0.0
    assert rows["oracle"]["metrics"]["oracle_share"]["value"] <= 1.0 + 1e-9
    for row in rows.values():
        loaded, kept, driven = (row["metrics"][f"oracle_share_{why}"]["value"] for why in PARTS)
        assert min(loaded, kept, -driven) >= 0.0
        assert loaded + kept + driven == pytest.approx(row["metrics"]["oracle_share"]["value"], abs=0.03)
    assert 0.0 < result["timelines"][str(csv)]["oracle_share_never_opened"]["value"] < 1.0
    folder = out / "two" / "seed1"
    assert json.loads((folder / "dpo" / "learned.json").read_text())["copied"] == "sft"
    shas = [json.loads((folder / n / "state.json").read_text())["sft"] for n in ("sft", "dpo", "dpo_last")]
    assert shas[0] == shas[1] == shas[2], "SFT was learned once"
    assert not (folder / "dpo" / "report.json").exists()
    assert "| dpo |" in (tmp_path / "results.md").read_text()
    assert list((out / "figures").glob("*.png"))
    before = {p: p.stat().st_mtime_ns for p in out.rglob("judged-*")}
    assert main(asked) == 0
    assert {p: p.stat().st_mtime_ns for p in out.rglob("judged-*")} == before, "what is done stays done"
