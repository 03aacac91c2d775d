"""The table of the evidence: judgements of runs and baselines, several seeds, to numbers, markdown and plots.

Every value is the mean over seeds. Its 95 % interval is a bootstrap: sessions are drawn with replacement,
user by user, as in the benchmark, and so are the seeds. Where all seeds see the same events (recorded
timelines) one draw of sessions serves all of them; the synthetic demo is another one for every seed. A
difference is paired: same sessions, same seeds.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.evidence import (
    SeedRun,
    Spec,
    baseline_folder,
    judged_file,
    parted,
    reference_runs,
    slug,
)
from experiments.evidence_judge import COLUMNS, WAYS
from rlmemo.evaluation.bootstrap import REPLICATES, Draws, Estimate, interval, session_groups
from rlmemo.policies.registry import COUNTING

if TYPE_CHECKING:
    from env.timeline import Timeline

CLASSICAL = (*COUNTING, "gbdt", "gru4rec", "sasrec")
REFERENCE = "sft"
TITLES = (
    "policy", "plans by", "reward / open", "less SFT at its best", "less best classical", "saved s / open",
    "hits / open", "kept / open", "driven out / open", "cold / open", "wasted / prewarm", "of the oracle",
    "hits at equal waste", "hr@1", "training s", "MB",
)  # fmt: skip
PARTS = {"hit": "loaded early", "kept": "kept", "pollution": "driven out"}
"""Columns that tell why an open was warm here and not in the no-prewarm world, or the other way round."""
RATES = ("hit_rate", "kept_rate", "driven_out_rate", "cold_rate")
WHAT = {
    "validation": "validation events, on which thresholds and planners were chosen",
    "test": "test events; thresholds and planners were chosen on validation",
}


@dataclass
class Row:
    """One line of the table. seeds: which it was judged for; arrays[k] float64 [n_k, columns] of the k-th."""

    name: str
    planner: str
    seeds: list[int] = field(default_factory=list)
    arrays: list[np.ndarray] = field(default_factory=list)
    curves: list[np.ndarray | None] = field(default_factory=list)
    numbers: list[dict[str, Any]] = field(default_factory=list)
    learned: list[dict[str, Any]] = field(default_factory=list)
    terms: list[str] = field(default_factory=list)
    kept: list[dict[str, Any]] = field(default_factory=list)
    is_baseline: bool = False


@dataclass
class Events:
    """The judged events of one seed: sessions to draw, what the clairvoyant bound saves at each, and which of
    them open what their person never opened before, bool [n]."""

    key: bytes
    draws: Draws
    bound: np.ndarray
    new: np.ndarray
    sessions: list[np.ndarray] = field(default_factory=list)


def pooled(values: Sequence[np.ndarray], values_of: Sequence[float], seed: int = 0) -> Estimate:
    """values: per seed, the replicates float64 [B] of one quantity; values_of: the quantity itself. Mean over
    seeds, with seeds drawn anew in every replicate."""
    table = np.stack(values)
    chosen = np.random.default_rng([seed, 7]).integers(len(table), size=(table.shape[1], len(table)))
    means = table[chosen, np.arange(table.shape[1])[:, None]].mean(axis=1)
    finite = means[np.isfinite(means)]
    if not len(finite) or not np.all(np.isfinite(values_of)):
        return Estimate(float("nan"))
    return interval(float(np.mean(values_of)), finite)


def ratio(
    events: Sequence[Events], top: Sequence[np.ndarray], bottom: Sequence[np.ndarray] | None
) -> Estimate:
    """sum(top) / sum(bottom) of every seed (per open where bottom is None), pooled over the seeds."""
    replicates, values, told = [], [], False
    for k, one in enumerate(events):
        below = np.ones(len(top[k])) if bottom is None else bottom[k]
        sums = [
            np.bincount(one.draws.groups, weights=x, minlength=one.draws.n_groups) for x in (top[k], below)
        ]
        told |= one.draws.tell(sums[1])
        with np.errstate(divide="ignore", invalid="ignore"):
            replicates.append((one.draws.weights @ sums[0]) / (one.draws.weights @ sums[1]))
            values.append(float(np.divide(sums[0].sum(), sums[1].sum())))
    found = pooled(replicates, values)
    return found if told else Estimate(found.value)


def read_rows(spec: Spec, timelines: str, part: str) -> list[Row]:
    """Every run and baseline of these timelines that was judged, planning in the way that was best for it on
    validation, seed by seed; SFT in every way of its own besides."""
    rows: dict[str, Row] = {}

    def add(name: str, planner: str, run: SeedRun, folder: Path, *, is_baseline: bool) -> None:
        file = judged_file(folder, part)
        with np.load(file.with_suffix(".npz"), allow_pickle=False) as arrays:
            numbers = json.loads(file.read_text(encoding="utf-8"))
            row = rows.setdefault(name, Row(name, planner, terms=numbers["terms"], is_baseline=is_baseline))
            row.seeds.append(run.seed)
            row.arrays.append(arrays[planner])
            row.curves.append(arrays.get("curve"))
        row.numbers.append(numbers)
        if planner not in row.planner.split(" / "):
            row.planner += f" / {planner}"
        learned, state = folder / "learned.json", folder / "state.json"
        row.learned.append(json.loads(learned.read_text(encoding="utf-8")) if learned.exists() else {})
        if state.exists():
            row.kept.append(json.loads(state.read_text(encoding="utf-8")).get("kept", {}))

    for run in spec.runs():
        if run.timelines != timelines or not judged_file(run.folder, part).exists():
            continue
        if run.config.method == "sft":
            for planner in ("own", "threshold"):
                add(f"{run.name}, {planner}", planner, run, run.folder, is_baseline=False)
        add(run.name, chosen_planner(run.folder), run, run.folder, is_baseline=False)
    for run in reference_runs(spec):
        for name in spec.baselines:
            folder = baseline_folder(run, name)
            if run.timelines == timelines and judged_file(folder, part).exists():
                add(name, chosen_planner(folder), run, folder, is_baseline=True)
    return list(rows.values())


def joined_rows(found: Sequence[list[Row]]) -> list[Row]:
    """Rows of several splits of the same people as one, for what all of them have: events in a row."""
    first, *rest = found
    joined = []
    for row in first:
        same = [next((r for r in rows if r.name == row.name and r.seeds == row.seeds), None) for rows in rest]
        if None in same:
            continue
        each = [row, *(r for r in same if r is not None)]
        both = Row(row.name, "", row.seeds, terms=row.terms, is_baseline=row.is_baseline)
        both.planner = " / ".join(dict.fromkeys(way for r in each for way in r.planner.split(" / ")))
        both.arrays = [np.concatenate(x) for x in zip(*(r.arrays for r in each), strict=True)]
        both.curves = [None] * len(both.arrays)
        for r in each:
            both.numbers += r.numbers
            both.learned += r.learned
            both.kept += r.kept
        joined.append(both)
    return joined


def joined_events(found: Sequence[dict[int, Events]]) -> dict[int, Events]:
    """Events of several splits of the same people as one: sessions stay with their people."""
    joined: dict[int, Events] = {}
    for seed in found[0]:
        each = [x[seed] for x in found]
        key = b"".join(e.key for e in each)
        same = next((e for e in joined.values() if e.key == key), None)
        of = [one for e in each for one in e.sessions]
        draws = Draws(*session_groups(of), seed=seed, replicates=REPLICATES)
        bound, new = (np.concatenate(x) for x in ([e.bound for e in each], [e.new for e in each]))
        joined[seed] = same or Events(key, draws, bound, new, of)
    return joined


def chosen_planner(folder: Path) -> str:
    """The way of planning that had the highest reward on validation; ties go to the threshold."""
    with np.load(judged_file(folder, "validation").with_suffix(".npz"), allow_pickle=False) as arrays:
        worth = {way: float(arrays[way][:, 0].mean()) for way in ("threshold", *WAYS) if way in arrays}
    return max(worth, key=lambda way: worth[way])


def read_events(spec: Spec, timelines: str, part: str) -> dict[int, Events]:
    """The judged events by seed; seeds with the same events share their draws."""
    from env.judge.case import cases
    from env.sources import load_timelines
    from env.splits import sessions, split_by
    from rlmemo.policies.oracle import bound_per_open

    found: dict[int, Events] = {}
    for run in reference_runs(spec):
        if run.timelines != timelines:
            continue
        c = run.config
        loaded: list[Timeline] = load_timelines(c.timelines, seed=c.seed, tz=c.tz).timelines
        split = split_by(loaded, c.split)
        key = b"".join(t.t.tobytes() + t.target.tobytes() for t in loaded)
        same = next((e for e in found.values() if e.key == key), None)
        if same is not None:
            found[run.seed] = same
            continue
        asked = cases(loaded, c.world.costs_of(loaded), c.world.rules(), getattr(split, part))
        of = [sessions(x.timeline)[x.start : x.stop] for x in asked]
        groups, users = session_groups(of)
        draws = Draws(groups, users, seed=run.seed, replicates=REPLICATES)
        bound = np.concatenate([bound_per_open(x) for x in asked])
        new = np.concatenate([first_opens(x.timeline)[x.start : x.stop] for x in asked])
        found[run.seed] = Events(key, draws, bound, new, of)
    return found


def first_opens(timeline: Timeline) -> np.ndarray:
    """Which opens are their target's first, bool [n]."""
    first = np.zeros(len(timeline), bool)
    first[np.unique(timeline.target, return_index=True)[1]] = True
    return first


def measure(row: Row, events: dict[int, Events], against: dict[str, Row]) -> dict[str, Any]:
    """All numbers of a row as JSON: {"value", "ci95"} each; `minus` is paired with each row in `against`."""
    at = {name: k for k, name in enumerate([*COLUMNS, *row.terms])}
    mine = [events[s] for s in row.seeds]

    def column(name: str, of: Row = row) -> list[np.ndarray]:
        return [a[:, at[name]] for a in of.arrays]

    metrics = {
        "reward_per_open": ratio(mine, column("reward"), None),
        "saved_seconds_per_open": ratio(mine, column("saved_s"), None),
        "hit_rate": ratio(mine, column("hit"), None),
        "kept_rate": ratio(mine, column("kept"), None),
        "driven_out_rate": ratio(mine, column("pollution"), None),
        "cold_rate": ratio(mine, column("cold"), None),
        "waste_rate": ratio(mine, column("wasted"), column("prewarms")),
        "wasted_per_open": ratio(mine, column("wasted"), None),
        "prewarms_per_open": ratio(mine, column("prewarms"), None),
        "oracle_share": ratio(mine, column("saved_s"), [e.bound for e in mine]),
    }
    saved = column("saved_s")
    for why in PARTS:
        some = [np.where(flag > 0, s, 0.0) for flag, s in zip(column(why), saved, strict=True)]
        metrics[f"oracle_share_{why}"] = ratio(mine, some, [e.bound for e in mine])
    minus = {}
    for label, other in against.items():
        both = [s for s in row.seeds if s in other.seeds]
        if both and other is not row:
            gaps = [
                row.arrays[row.seeds.index(s)][:, 0] - other.arrays[other.seeds.index(s)][:, 0] for s in both
            ]
            minus[label] = {"against": other.name, **ratio([events[s] for s in both], gaps, None).as_json()}
    seconds = [sum(x.get("stages", {}).values()) for x in row.learned if x]
    rank = {m: [n[m] for n in row.numbers if m in n] for m in ("hr@1", "hr@5", "log_loss", "theta")}
    return {
        "planner": row.planner,
        "seeds": row.seeds,
        "metrics": {k: v.as_json() for k, v in metrics.items()},
        "minus": minus,
        "reward_by_seed": [float(a[:, 0].mean()) for a in row.arrays],
        "terms": {t: float(np.mean([c.mean() for c in column(t)])) for t in row.terms},
        "hit_rate_at_equal_waste": at_equal_waste(row, against.get("sft")),
        **{m: float(np.mean(v)) for m, v in rank.items() if v},
        "train_seconds": float(np.mean(seconds)) if seconds else None,
        "peak_rss_mb": max((x["peak_rss_mb"] for x in row.learned if x), default=None),
        "kept": row.kept,
    }


def at_equal_waste(row: Row, reference: Row | None) -> float | None:
    """Hits per open where the row's ranking, under another threshold, wastes as much per open as the
    reference; mean over seeds. None where there is no ranking."""
    if reference is None:
        return None
    found = []
    for seed, curve in zip(row.seeds, row.curves, strict=True):
        if curve is None or seed not in reference.seeds:
            return None
        wasted = reference.arrays[reference.seeds.index(seed)][:, COLUMNS.index("wasted")].mean()
        order = np.argsort(curve[:, 1], kind="stable")
        found.append(float(np.interp(wasted, curve[order, 1], curve[order, 0])))
    return float(np.mean(found))


def compare(spec: Spec, part: str) -> dict[str, Any]:
    """The whole result: by timelines, by row, the numbers of `measure`."""
    result: dict[str, Any] = {"title": spec.title, "part": part, "left_out": spec.skipped, "timelines": {}}
    for timelines, members in together(spec.timelines).items():
        each = [read_rows(spec, member, part) for member in members]
        if not all(each):
            continue
        rows, events = each[0], read_events(spec, members[0], part)
        if len(members) > 1:
            rows = joined_rows(each)
            events = joined_events([read_events(spec, member, part) for member in members])
        by_name = {r.name: r for r in rows}
        best = best_baseline(spec, members, [n for n in CLASSICAL if n in by_name])
        counting = best_baseline(spec, members, [n for n in COUNTING if n in by_name])
        against = {"sft": by_name.get(REFERENCE), "classical": by_name.get(best or "")}
        known = {k: v for k, v in against.items() if v is not None}
        shown = [r for r in rows if r.name not in COUNTING or r.name == counting]
        result["timelines"][timelines] = {
            "events": {s: len(e.bound) for s, e in events.items()},
            "best_classical": best,
            "best_counting": counting,
            "oracle_share_never_opened": ratio(
                list(events.values()),
                [np.where(e.new, e.bound, 0.0) for e in events.values()],
                [e.bound for e in events.values()],
            ).as_json(),
            "rows": {r.name: measure(r, events, known) for r in shown},
        }
    return result


def together(timelines: Sequence[str]) -> dict[str, list[str]]:
    """What gets a table: each of the timelines, and all splits of the same people as one."""
    people: dict[str, list[str]] = {}
    for one in timelines:
        people.setdefault(parted(one)[0], []).append(one)
    both = {f"{name}, {len(x)} splits": x for name, x in people.items() if len(x) > 1}
    return {one: [one] for one in timelines} | both


def best_baseline(spec: Spec, members: Sequence[str], names: Sequence[str]) -> str | None:
    """The baseline with the highest reward on validation, mean over seeds; its way to plan too."""
    means = {}
    for name in names:
        found = []
        for run in reference_runs(spec):
            folder = baseline_folder(run, name)
            file = judged_file(folder, "validation").with_suffix(".npz")
            if run.timelines in members and file.exists():
                with np.load(file, allow_pickle=False) as arrays:
                    found.append(float(arrays[chosen_planner(folder)][:, 0].mean()))
        means[name] = float(np.mean(found)) if found else -np.inf
    return max(means, key=lambda n: means[n]) if means else None


def markdown(result: dict[str, Any], command: str) -> str:
    """The table as markdown, the command above it."""
    lines = ["```", command, "```", ""]
    for timelines, one in result["timelines"].items():
        events = sorted(set(one["events"].values()))
        span = f"{events[0]:,}" if len(events) == 1 else f"{events[0]:,} to {events[-1]:,}"
        seeds = len(one["events"])
        kind = " (synthetic)" if timelines.startswith("demo") else ""
        lines.append(
            f"`{timelines}`{kind}: {span} {WHAT[result['part']]}; mean over {seeds} "
            f"{'seed' if seeds == 1 else 'seeds'}, 95 % intervals over sessions and seeds. Best classical "
            f"planner on validation: {one['best_classical'] or 'none was run'}.\n"
        )
        lines += [f"| {' | '.join(TITLES)} |", "|---" * len(TITLES) + "|"]
        for name, row in one["rows"].items():
            m = row["metrics"]
            cells = [
                name, row["planner"], _interval(m["reward_per_open"]),
                *(_interval(row["minus"].get(k), signed=True) for k in ("sft", "classical")),
                *(_number(m[k]["value"]) for k in ("saved_seconds_per_open", *RATES)),
                _number(m["waste_rate"]["value"], 2), _percent(m["oracle_share"]["value"]),
                _number(row["hit_rate_at_equal_waste"]), _number(row.get("hr@1")),
                _number(row["train_seconds"], 0), _number(row["peak_rss_mb"], 0),
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", *shares(one), ""]
        for name, row in one["rows"].items():
            kept = [k for k in row["kept"] if len(k.get("reward", {})) > 1]
            if kept:
                first, last = (float(np.mean([list(k["reward"].values())[i] for k in kept])) for i in (0, -1))
                times = sum(k["stage"] == "sft" for k in kept)
                lines.append(
                    f"- {name}: reward by threshold on validation {first:.4f} after SFT, {last:.4f} after "
                    f"the last round of preferences; SFT's adapter was kept in {times} of {len(kept)} seeds."
                )
        lines.append("")
    for name, why in result["left_out"].items():
        lines.append(f"Left out: {name} ({why}).")
    return "\n".join(lines).rstrip() + "\n"


def shares(one: dict[str, Any]) -> list[str]:
    """What each part of a policy's savings is of the oracle's, and what nobody could have had."""
    never = _percent(one["oracle_share_never_opened"]["value"])
    said = f"The oracle saves {never} of its seconds at opens of what their person had never opened. Of all "
    lines = [
        f"{said}(opens that were still loading count in *together* alone):\n",
        f"| policy | {' | '.join(PARTS.values())} | together | left |",
        "|---" * (3 + len(PARTS)) + "|",
    ]
    for name, row in one["rows"].items():
        m = row["metrics"]
        if name != "oracle" and m["prewarms_per_open"]["value"]:
            parts = [m[f"oracle_share_{why}"]["value"] for why in PARTS]
            whole = m["oracle_share"]["value"]
            cells = [_percent(x) for x in (*parts, whole, 1.0 - whole)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _number(x: float | None, digits: int = 3) -> str:
    return "" if x is None else f"{x:.{digits}f}"


def _percent(x: float | None) -> str:
    return "" if x is None else f"{100 * x:.1f} %"


def _interval(e: dict[str, Any] | None, *, signed: bool = False) -> str:
    if e is None or e["value"] is None:
        return ""
    sign = "+" if signed else ""
    if e["ci95"] is None:
        return f"{e['value']:{sign}.3f}"
    return f"{e['value']:{sign}.3f} [{e['ci95'][0]:{sign}.3f}, {e['ci95'][1]:{sign}.3f}]"


def put_between(path: Path, key: str, text: str) -> None:
    """Replace what stands between the markers of `key` in a file, or append it with new markers."""
    from rlmemo.runs.atomic import write_atomic

    begin, end = f"<!-- {key}: written by experiments/evidence.py -->", f"<!-- end of {key} -->"
    old = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    block = f"{begin}\n{text}{end}"
    if begin in old and end in old:
        head, _, rest = old.partition(begin)
        new = head + block + rest.partition(end)[2]
    else:
        new = f"{old.rstrip()}\n\n{block}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, new)


def write_all(spec: Spec, part: str, given: argparse.Namespace, arguments: Sequence[str]) -> None:
    """JSON, markdown and plots; says where they are."""
    from rlmemo.runs.atomic import write_atomic

    result = compare(spec, part)
    command = shlex.join(["python", "-m", "experiments.evidence", *arguments])
    text = markdown(result, command)
    data = json.dumps({**result, "command": command}, indent=1)
    write_atomic(spec.out / f"evidence-{part}.json", data + "\n")
    write_atomic(spec.out / f"evidence-{part}.md", text)
    if given.docs:
        put_between(Path(given.docs), f"evidence {slug(spec.title)} {part}", text)
    folder = Path(given.figures) if given.figures else spec.out / "figures"
    from experiments.evidence_figures import draw_all

    drawn = draw_all(spec, part, result, folder)
    print(text)
    print(f"wrote {spec.out / f'evidence-{part}.json'}, .md" + "".join(f", {p}" for p in drawn))
