"""What people said of predictions, and what can be learned from it.

    python -m rlmemo.feedback show     --db my.db                      # counts, approval, agreement
    python -m rlmemo.feedback export   --db my.db --csv ratings.csv    # every rating, for other programs
    python -m rlmemo.feedback pairs    --db my.db --out pairs.jsonl    # preferences, each with its rating
    python -m rlmemo.feedback evaluate --db my.db --policy runs/first  # approval of a policy never shown

The timelines are the database's own, unless --timelines names others. Nothing is written but --out, --csv
and --json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from env.errors import InputError, run_main
from env.judge.cost import EXPECTED
from env.judge.world_options import WorldOptions
from env.private import private_files
from env.sources import load_timelines
from env.sources.sqlite_files import spare_database
from env.splits import chrono
from rlmemo.approval.approval import LEAST, fit_approval
from rlmemo.approval.placed_ratings import (
    existing_store,
    place_ratings,
    rating_weights,
    read_ratings,
    worlds_of,
)
from rlmemo.evaluation.agreement import alpha_estimate, pairwise
from rlmemo.feedback.logged_moments import evaluate_policy, sessions_of
from rlmemo.feedback.offpolicy import observed, share
from rlmemo.heartbeat import Pulse
from rlmemo.learning.rating_rows import rating_examples, rating_pairs, sayable
from rlmemo.learning.training_data import TrainingData
from rlmemo.options import Parser, add_world, seed, world_given, wrapped
from rlmemo.policies.registry import is_run, setup
from rlmemo.runs.atomic import write_atomic
from rlmemo.store import votes
from rlmemo.store.database_file import DEFAULT_DB

STDOUT = "-"

if TYPE_CHECKING:
    from rlmemo.approval.placed_ratings import Found, RatedMoment
    from rlmemo.evaluation.bootstrap import Estimate
    from rlmemo.policies.run import Setup


def parser() -> argparse.ArgumentParser:
    p = Parser(
        prog="python -m rlmemo.feedback",
        description=__doc__,
    )
    commands = p.add_subparsers(
        dest="command", required=True, metavar="{show,export,pairs,evaluate,approval}"
    )

    def command(name: str, text: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        made.add_argument("--db", metavar="FILE", default=DEFAULT_DB,
                          help=f"store with the ratings (default: {DEFAULT_DB})")  # fmt: skip
        made.add_argument("--json", metavar="FILE", nargs="?", const=STDOUT,
                          help="write what was found as JSON; no name: to standard output")  # fmt: skip
        made.add_argument("--seed", type=seed, default=0, help="of draws and folds (default: 0)")
        return made

    def data(made: argparse.ArgumentParser) -> None:
        made.add_argument(
            "--timelines", metavar="NAME|PATH", help="what was predicted on (default: the database)"
        )
        made.add_argument("--tz", help="IANA time zone, where the recording does not say")

    command("show", "counts, approval by policy, agreement between raters")
    export = command("export", "the ratings that count as CSV, a line each, with what they are about")
    export.add_argument("--csv", metavar="FILE", default=STDOUT, help="where to (default: standard output)")
    pairs = command("pairs", "preferences from the ratings as JSON lines, each naming its rating")
    data(pairs)
    pairs.add_argument("--rows", choices=("pairs", "single"), default="pairs",
                       help="pairs (DPO) or single verdicts (KTO) (default: pairs)")  # fmt: skip
    pairs.add_argument("--out", metavar="FILE", help="where to (default: standard output)")
    other = command("evaluate", "approval that a policy would have had: IPS, SNIPS and DR")
    data(other)
    other.add_argument("--policy", metavar="NAME|RUN_DIR", required=True, action="append",
                       help="whose approval is estimated; may be given several times")  # fmt: skip
    other.add_argument("--explore", type=float, default=0.1, metavar="SHARE",
                       help="its share of other single targets (default: 0.1)")  # fmt: skip
    other.add_argument("--threshold", type=float, metavar="P",
                       help="it prewarms what is at least this probable (default: tuned)")  # fmt: skip
    add_world(other, run=True)
    approval = command("approval", "fit the approval model and say how good it is on what it has not seen")
    data(approval)
    approval.add_argument("--out", metavar="FILE", help="write the model as JSON")
    return p


@private_files()
def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if not 0.0 <= getattr(args, "explore", 0.0) <= 1.0:
        raise InputError(f"--explore {args.explore} is no share; give 0 to 1")
    if getattr(args, "threshold", None) is not None and not 0.0 <= args.threshold <= 1.0:
        raise InputError(f"--threshold {args.threshold} is no probability; give 0 to 1")
    for file in (args.json, getattr(args, "out", None), getattr(args, "csv", None)):
        if file and file != STDOUT:
            spare_database(Path(file))  # now, and not after all the work

    alone = redirect_stdout(sys.stderr) if args.json == STDOUT else nullcontext()
    with alone, Pulse(f"feedback {args.command}"):
        found: dict[str, Any] = globals()[f"_{args.command}"](args)
    text = json.dumps(found, indent=1) + "\n"
    if args.json == STDOUT:
        print(text, end="")
    elif args.json:
        write_atomic(Path(args.json), text)
    return 0


def _shown(x: Estimate) -> str:
    return x.text()


def _line(text: str) -> str:
    """Names are other people's text: on a terminal they stay one printable line."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _ratings(db: str) -> tuple[list[RatedMoment], Any]:
    """(the ratings that count, the weight of each). Raises InputError where there is none."""
    with existing_store(db) as store:
        rated = read_ratings(store)
    if not rated:
        raise InputError(f"{db}: holds no ratings yet; rate some with python -m dashboard --db {db}")
    return rated, rating_weights(rated)


def _placed(args: argparse.Namespace, *, all_parts: bool) -> tuple[TrainingData, Found]:
    """The data that the ratings are about, in the world that all were shown in (the usual one where there
    are several; by the usual let-go rule where theirs asks a policy), and the ratings in it (those of the
    training part, unless `all_parts`); what is left out is said."""
    rated, weight = _ratings(args.db)
    timelines = load_timelines(args.timelines or args.db, tz=args.tz).timelines
    split = chrono(timelines)
    found = place_ratings(rated, timelines, weight=weight, learn_on=None if all_parts else split)
    shown_in = worlds_of(found.placed)
    world = shown_in[0] if len(shown_in) == 1 else WorldOptions()
    if world.let_go == EXPECTED:  # by what a policy said then, and none is asked here
        world = replace(world, let_go=WorldOptions.let_go)
    data = TrainingData.prepare(timelines, split, world.cost_model(), world.rules())
    for why, n in sorted(found.left_out.items()):
        print(f"left out: {n} {why}", file=sys.stderr)
    if not found.placed:
        raise InputError(
            f"{args.db}: none of its {len(rated)} ratings can be used here ({', '.join(found.left_out)}); "
            f"{found.advice}"
        )
    return data, found


def _show(args: argparse.Namespace) -> dict[str, Any]:
    rated, _ = _ratings(args.db)
    up = sum(r.thumbs for r in rated)
    print(f"{len(rated)} ratings that count of {len({r.prediction_id for r in rated})} predictions")
    print(f"thumbs up: {_shown(share(up, len(rated)))}")
    by: Counter[tuple[str, str]] = Counter()
    ups: Counter[tuple[str, str]] = Counter()
    for kind in ("rater", "part", "policy", "knowing"):
        for r in rated:
            name = f"{r.policy} ({r.policy_version})" if kind == "policy" else getattr(r, kind)
            by[kind, name] += 1
            ups[kind, name] += r.thumbs
    groups = []
    for (kind, name), n in sorted(by.items()):
        estimate = share(ups[kind, name], n)
        groups.append({"by": kind, "name": name, "rated": n, "thumbs_up": estimate.as_json()})
        print(wrapped(f"  {kind:<8} {_line(name):<38} {n:>6}  {_shown(estimate)}", " " * 7))
    agreement = []
    for a, b, n, agree, kappa in pairwise(rated):
        agreement.append({"raters": [a, b], "both": n, "agree": agree, "kappa": kappa})
        print(f"agreement {_line(a)} and {_line(b)}: {agree:.0%} of {n}, Cohen's kappa {kappa:.2f}")
    alpha = alpha_estimate(rated, args.seed)
    if agreement:
        print(f"Krippendorff's alpha {_shown(alpha)}")
    else:
        print("agreement: nobody rated the same prediction as somebody else")
    return {
        "ratings": len(rated), "thumbs_up": share(up, len(rated)).as_json(), "groups": groups,
        "agreement": agreement, "alpha": alpha.as_json(),
    }  # fmt: skip


def _export(args: argparse.Namespace) -> dict[str, Any]:
    with existing_store(args.db) as store:
        lines = list(votes.table(store))
    if args.csv == STDOUT:
        print("".join(lines), end="")
    else:
        write_atomic(Path(args.csv), "".join(lines))
    print(f"{len(lines) - 1} ratings", file=sys.stderr)
    return {"ratings": len(lines) - 1}


def _pairs(args: argparse.Namespace) -> dict[str, Any]:
    data, found = _placed(args, all_parts=False)
    approval, _ = fit_approval(found.placed, data.timelines, data.plain, seed=args.seed)
    said = sayable(found.placed, data)
    rows: list[Any] = (
        rating_pairs(said, data, approval, offset=0, limit=10**9, seed=args.seed)
        if args.rows == "pairs"
        else rating_examples(said, data, offset=0)
    )
    users = {x.user: k for k, x in enumerate(data.timelines)}

    def named(row: Any, plan: Any) -> list[list[Any]]:
        user = users[row.user]
        names, slate = data.timelines[user].names, data.slates[user].candidates[row.index]
        return [[names[slate[place]], data.world.delays[bucket]] for place, bucket in plan]

    lines = []
    for row in rows:
        line: dict[str, Any] = {"source": row.source, "user": row.user, "index": row.index}
        if args.rows == "pairs":
            line |= {
                "chosen": named(row, row.chosen),
                "rejected": named(row, row.rejected),
                "why": row.origins,
            }
            line |= {"chosen_rating": row.chosen_reward, "rejected_rating": row.rejected_reward}
        else:
            line |= {"plan": named(row, row.plan), "good": row.good}
        lines.append(json.dumps(line))
    if args.out:
        write_atomic(Path(args.out), "\n".join(lines) + "\n")
    else:
        print("\n".join(lines))
    print(f"{len(lines)} {args.rows} from {len(said)} ratings", file=sys.stderr)
    return {"rows": len(lines), "ratings": len(said), "left_out": dict(found.left_out)}


def _evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """One policy's estimates, or of several a list of them."""
    data, found = _placed(args, all_parts=True)
    shown_in = worlds_of(found.placed)
    policies = {}  # all of them, before the first is asked: a name may be wrong
    for name in args.policy:
        given = world_given(args)
        if len(shown_in) == 1 and not is_run(name):
            given = {**asdict(shown_in[0]), **given}  # a policy without a world of its own
        if name not in policies:
            policies[name] = setup(name, given)
    up = sum(p.rated.thumbs for p in found.placed)
    logged = observed(
        np.array([p.rated.thumbs for p in found.placed], np.float64),
        np.array([p.weight for p in found.placed]),
        sessions_of(found.placed, data.timelines),
    )
    print(
        f"what was shown: {_shown(logged)} thumbs up of {len(found.placed)} ratings "
        f"({up} up; each weighs the inverse of how likely it was to be shown)"
    )
    made = [
        {**_estimated(args, name, used, data, found), "logged": logged.as_json()}
        for name, used in policies.items()
    ]
    return made[0] if len(made) == 1 else {"estimates": made}


def _estimated(
    args: argparse.Namespace, name: str, used: Setup, data: TrainingData, found: Found
) -> dict[str, Any]:
    """What a policy would have got, said and as JSON."""
    others = [x for x in worlds_of(found.placed) if x != used.world]
    if others:
        print(
            f"note: {name} plans here for {used.world.in_words()}; what was rated was shown for "
            f"{'; and for '.join(x.in_words() for x in others)}",
            file=sys.stderr,
        )
    if not is_run(name):
        used.policy.fit(data.timelines, data.split, seed=args.seed)
    made = evaluate_policy(
        used, found.placed, data.timelines, data.plain, data.split,
        explore=args.explore, threshold=args.threshold, seed=args.seed,
    )  # fmt: skip
    print(f"{name} would have:")
    for said, estimate in (("IPS", made.ips), ("SNIPS", made.snips), ("DR", made.dr)):
        print(f"  {said:<7}{_shown(estimate)}")
    s = made.support
    print(
        f"effective sample {s.effective:.0f} of {s.n}, overlap {s.overlap:.0%}, "
        f"mean weight {s.mean_weight:.2f}"
    )
    if s.warning:
        print(f"warning: {s.warning}")
    return {
        "policy": name, "world": asdict(used.world),
        "ips": made.ips.as_json(), "snips": made.snips.as_json(), "dr": made.dr.as_json(),
        "effective": s.effective, "ratings": s.n, "overlap": s.overlap, "mean_weight": s.mean_weight,
        "warning": s.warning,
    }  # fmt: skip


def _approval(args: argparse.Namespace) -> dict[str, Any]:
    data, found = _placed(args, all_parts=False)
    model, held_out = fit_approval(found.placed, data.timelines, data.plain, seed=args.seed)
    if model is None:
        raise InputError(
            f"{args.db}: {len(found.placed)} ratings are too few for an approval model; rate {LEAST} or more"
        )
    up = np.array([p.rated.thumbs for p in found.placed])
    right, n = int(((held_out >= 0.5) == (up > 0)).sum()), len(up)
    majority = max(up.mean(), 1 - up.mean())
    alarms = int(((held_out >= 0.5) & (up == 0)).sum())
    scores = {
        "accuracy": share(right, n).as_json(),
        "majority": float(majority),
        "false_alarms": share(alarms, int((up == 0).sum())).as_json(),
        "brier": float(((held_out - up) ** 2).mean()),
        "brier_of_the_mean": float(up.var()),
    }
    print(f"{n} ratings, {int(up.sum())} up; on what it had not seen (cross-validation):")
    print(f"  accuracy      {_shown(share(right, n))}; the majority alone {majority:.3f}")
    print(f"  false alarms  {_shown(share(alarms, int((up == 0).sum())))} of the thumbs down")
    print(f"  Brier score   {scores['brier']:.3f}; the mean alone {scores['brier_of_the_mean']:.3f}")
    if args.out:
        model.save(Path(args.out))
    return {"ratings": n, "up": int(up.sum()), **scores}


if __name__ == "__main__":
    run_main(main)
