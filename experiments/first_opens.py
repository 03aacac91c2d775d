"""Is a person who trains on their first opens never worse off than with the model as it is shipped?

    python -m experiments.first_opens --recordings webtrackr,gesis --opens 600,1000 --out runs/first
    python -m experiments.first_opens --quick               # the Train page's quick look

Every person of the recordings is cut to their first opens (whoever has fewer is left out), split in time
order, and trained alone with the default options, in the world of today's defaults and in `day`. Both are
judged on the same test events: the base as shipped with its planner, and the run, whoever is in charge of
it. Prints a row for each run and a summary; finished runs are kept in --out and not done again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from env.errors import InputError, run_main
from env.sources import load_timelines
from env.timeline import KINDS, Timeline
from experiments.tune_planner import WORLDS
from rlmemo.options import Parser

SLACK = 0.002
"""Seconds an open by which a run may stay behind the base: the bar."""
QUICK = ("--sft-states", "400", "--plan-states", "200", "--dpo-pairs", "200")


def write_first(timeline: Timeline, opens: int, file: Path) -> None:
    """The first opens of a person, as a file to train on."""
    lines = ["user,t,target,kind"]
    for k in range(opens):
        name = timeline.names[timeline.target[k]].replace('"', '""')
        lines.append(f'me,{timeline.t[k]:.3f},"{name}",{KINDS[timeline.kind[k]]}')
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def trained(timeline: Timeline, opens: int, preset: str, more: tuple[str, ...], folder: Path) -> Path:
    """The report of the person's run."""
    report = folder / "report.json"
    if report.exists():
        return report
    line = [sys.executable, "-m", "rlmemo.train", "--out", str(folder)]
    if (folder / "config.yaml").exists():
        line.append("--resume")
    else:
        csv = folder.parent / f"{folder.name}.csv"
        write_first(timeline, opens, csv)
        line += ["--timelines", str(csv), "--tz", timeline.tz, *WORLDS[preset].arguments(), *more]
        line += ["--policies", "none"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{folder}: {done.stderr.strip().splitlines()[-1]}")
    return report


def row(report: Path, name: str, opens: int, preset: str) -> tuple[str, float, float]:
    """(a row of the table, reward per open of the base as shipped, and of the run)."""
    found = json.loads(report.read_text(encoding="utf-8"))
    charge, judged = found["in_charge"], found["policies"]
    worth = {k: judged[k]["reward_per_open"]["value"] for k in ("base", charge["learned"])}
    before, after = worth["base"], worth[charge["stage"]]
    text = (
        f"| {name} | {opens} | {preset} | {before:.3f} | {worth[charge['learned']]:.3f} | "
        f"{charge['stage']} | {after:.3f} |"
    )
    return text, before, after


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--recordings", default="webtrackr,gesis")
    parser.add_argument("--opens", default="600,1000,3000")
    parser.add_argument("--worlds", default=",".join(WORLDS))
    parser.add_argument("--people", type=int, help="of each recording at most")
    parser.add_argument("--quick", action="store_true", help="as the Train page's quick look learns")
    parser.add_argument("--out", type=Path, default=Path("runs/first-opens"))
    args = parser.parse_args()
    more = QUICK if args.quick else ()
    print("| person | opens | world | base as shipped | what it learned | in charge | the run |")
    print("|---|---|---|---|---|---|---|")
    gaps, least = [], []
    for opens in map(int, args.opens.split(",")):
        for recording in args.recordings.split(","):
            people = [x for x in load_timelines(recording).timelines if len(x) >= opens]
            for timeline in people[: args.people]:
                for preset in args.worlds.split(","):
                    name = f"{recording}/{timeline.user}"
                    folder = args.out / f"{recording}-{timeline.user}-{opens}-{preset}"
                    report = trained(timeline, opens, preset, more, folder.resolve())
                    text, before, after = row(report, name, opens, preset)
                    print(text, flush=True)
                    gaps.append(after - before)
                    least.append(after)
    if not gaps:
        raise InputError("nobody has as many opens; give fewer with --opens")
    behind, below = int((np.array(gaps) < -SLACK).sum()), int((np.array(least) < 0).sum())
    print(f"\n{len(gaps)} runs: {behind} behind the base by more than {SLACK} s an open, {below} below zero; "
          f"the worst {min(gaps):+.4f}, mean {np.mean(gaps):+.4f}")  # fmt: skip


if __name__ == "__main__":
    run_main(main)
