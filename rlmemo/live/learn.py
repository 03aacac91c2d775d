"""A training on the recording so far, and whether it takes charge: `python -m rlmemo.live learn`.

`rlmemo.train` learns from the first seven tenths of the recording and chooses on the tenth after them; on the
last two tenths, which it has not looked at, what it learned and what is in charge are judged side by side.
It takes charge where it is clearly better there, by the measure of any training
(`rlmemo.learning.in_charge`); else, and where the training breaks off, everything stays as it is. What was in
charge before is kept for `live rollback`.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import InputError
from env.judge.case import cases
from env.judge.world_options import WorldOptions
from env.private import private_files
from env.sources import load_timelines
from env.splits import chrono, sessions
from env.timeline import SWITCHES, Timeline
from rlmemo.evaluation.bootstrap import Draws, session_groups
from rlmemo.learning.in_charge import put_in_charge, rewards
from rlmemo.live.elsewhere import is_address
from rlmemo.live.mind import Minding
from rlmemo.policies.registry import setup
from rlmemo.runs.lock import hold
from rlmemo.store.live_learned import IN_CHARGE, LEARNED, learned_folder
from rlmemo.store.live_ledger import FORGOTTEN, SOURCE, LiveLedger
from rlmemo.train import main as training

LEAST_NEW, LEAST_JUDGED = 50, 30
"""Opens that are to have come since the last training, and to judge by."""
Train = Callable[[list[str] | None], int]


_OURS = re.compile(r"\d{8}-\d{6}(\.csv)?")


def runs_of(ledger: LiveLedger, db: Path) -> Path:
    """The folder of what was learned from a recording."""
    return learned_folder(db, ledger.timeline_id)


def learn(ledger: LiveLedger, db: Path, config: str | None, train: Train = training) -> str:
    """Train, judge and decide; what was decided, which the ledger then knows. config: settings of the
    training, a YAML file. Raises InputError where that cannot be done; then nothing has changed."""
    settings = ledger.state("settings")
    if settings is None:
        raise InputError(f"{db}: nothing was recorded yet; python -m rlmemo.live start does")
    forgotten = ledger.state(FORGOTTEN)
    timeline = _recorded(db, ledger.user)
    known = ledger.state(LEARNED) or {"opens": 0}
    new = len(timeline) - int(known["opens"])
    if new < LEAST_NEW:
        raise InputError(f"{max(0, new):,} opens came since the last training; it waits for {LEAST_NEW}")
    if (judged := len(chrono([timeline]).test[0])) < LEAST_JUDGED:
        raise InputError(f"{judged:,} opens would be there to judge by; it waits for {LEAST_JUDGED}")
    folder = runs_of(ledger, db)
    for one in (folder.parent, folder):
        one.mkdir(mode=0o700, exist_ok=True)
    held = hold(folder)
    charge = _charge(ledger)
    _clear(folder, charge)
    before = _earned(charge["run"] or settings["policy"], timeline, settings)
    run = folder / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    said, better = _train(timeline, run, settings, config, train) or "", False
    if not said:
        said, better = _judge(before, timeline, str(run), settings)
    if ledger.state(FORGOTTEN) != forgotten:
        _clear(folder, _charge(ledger))
        raise InputError("something was forgotten meanwhile, so what was learned is dropped; train again")
    told = {"at": time.time(), "opens": len(timeline), "said": said}
    if better:
        ledger.put(learned=told, in_charge={"run": str(run), "before": charge["run"]})
    else:
        ledger.put(learned=told)
    _clear(folder, _charge(ledger))
    del held
    return said


def roll_back(ledger: LiveLedger) -> str:
    """Put what was in charge before back; says who that is. Raises InputError where it is not kept."""
    back = _charge(ledger)["before"]
    if back is None:
        raise InputError("what was in charge before is not kept: nothing was put in charge since")
    said = f"{back or 'the policy that live was started with'} is in charge again (live rollback)"
    known = ledger.state(LEARNED) or {"opens": 0}
    ledger.put(learned={**known, "at": time.time(), "said": said}, in_charge={"run": back, "before": None})
    return said


def tidy(ledger: LiveLedger, db: Path) -> None:
    """Remove what a training that was killed has left, unless another one is under way."""
    folder = runs_of(ledger, db)
    if folder.is_dir():
        with suppress(InputError):
            held = hold(folder)
            _clear(folder, _charge(ledger))
            del held


def run(args: argparse.Namespace, ledger: LiveLedger) -> int:
    """`python -m rlmemo.live learn`, at the lowest priority."""
    if hasattr(os, "nice"):
        os.nice(19)
    with private_files():
        print(learn(ledger, Path(args.db), args.learn_config))
    return 0


def _charge(ledger: LiveLedger) -> dict[str, Any]:
    """Who is in charge, and who was before; of folders that are gone, the policy that was given at the start,
    and nobody."""
    charge = ledger.state(IN_CHARGE) or {"run": "", "before": None}
    there = {name: not run or Path(run).is_dir() for name, run in charge.items()}
    return {
        "run": charge["run"] if there["run"] else "",
        "before": charge["before"] if there["before"] else None,
    }


def _recorded(db: Path, user: str) -> Timeline:
    for timeline in load_timelines(str(db), source=SOURCE).timelines:
        if timeline.user == user:
            return timeline
    raise InputError(f"{db}: holds no opens of {user!r} yet")


def _clear(folder: Path, charge: dict[str, Any]) -> None:
    """Remove what is neither in charge nor was before: trainings that were refused or broke off."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _OURS.fullmatch(path.name) and str(path) not in (charge["run"], charge["before"]):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _train(
    timeline: Timeline, run: Path, settings: dict[str, Any], config: str | None, train: Train
) -> str | None:
    """Train into the folder `run`; why not, where the trainer has refused."""
    table = run.with_name(f"{run.name}.csv")  # lies there as long as the training takes
    try:
        _write(timeline, table)
        line = ["--timelines", str(table), "--tz", timeline.tz, "--policies", "none", "--out", str(run)]
        line += WorldOptions(**settings["world"]).arguments() + (["--config", config] if config else [])
        if train(line) not in (None, 0):
            return "the training broke off, so what was in charge stays"
    except InputError as error:
        return f"the training was refused ({error}), so what was in charge stays"
    finally:
        table.unlink(missing_ok=True)
    return None


def _write(timeline: Timeline, path: Path) -> None:
    path.touch(mode=0o600)
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["user", "t", "target", "kind"])
        rows.writerows([timeline.user, repr(e.t), e.target, e.kind] for e in timeline)
        for kind, times in zip(SWITCHES, (timeline.offs, timeline.wakes), strict=True):
            rows.writerows([timeline.user, repr(float(t)), "", kind] for t in times)


def _judge(before: np.ndarray, timeline: Timeline, run: str, settings: dict[str, Any]) -> tuple[str, bool]:
    """What was learned beside what is in charge, which earned `before`, on the last opens: what to say, and
    whether it is better."""
    try:
        after = _earned(run, timeline, settings)
    except InputError as error:
        return f"what was learned cannot be followed ({error}), so what was in charge stays", False
    groups, users = session_groups([sessions(timeline)[chrono([timeline]).test[0]]])
    better, spread = put_in_charge(before, after, Draws(groups, users, seed=0))
    was, now = float(before.mean()), float(after.mean())
    worth = f"reward per open {now:+.4f} on the last {len(after):,} opens, of what was in charge {was:+.4f}"
    worth += (
        f", standard error of the difference {spread:.4f}" if np.isfinite(spread) else ", of too few sessions"
    )
    if better:
        return f"what was learned takes charge: {worth}", True
    why = "worth less than nothing" if now > was and now < 0.0 else "not clearly better"
    return f"what was learned is {why}, so what was in charge stays: {worth}", False


def _earned(policy: str, timeline: Timeline, settings: dict[str, Any]) -> np.ndarray:
    """The reward of every open of the test part, float64 [n], as live plans by a policy."""
    made = setup(policy, {} if Path(policy).is_dir() else settings["world"])
    minding = Minding(
        made, timeline.user, timeline.tz, settings["budget_mb"], "judged", settings["threshold"],
        wakes=not is_address(policy),
    )  # fmt: skip
    minding.mind()  # raises where it could not be followed
    split = chrono([timeline])
    made.policy.fit([timeline], split, seed=0)
    world = WorldOptions(**settings["world"])
    asked = cases([timeline], world.costs_of([timeline]), minding.rules(), split.test)
    return rewards(made.policy, minding.planner(), asked, world.worth(), 0)
