"""A report's first screen: what was compared, the result in words, a small table and one figure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from rlmemo.evaluation.bootstrap import Estimate
from rlmemo.evaluation.evaluate import BOUNDS, Evaluation, Judged
from rlmemo.policies.registry import COUNTING
from rlmemo.report.figures import KNOWN_COLORS, Axis, Line, Size, curves
from rlmemo.report.numbers import number
from rlmemo.report.page import Figure, Table

MOST = 6
"""As many rows as the table of the first screen has room for on a phone."""
SAVED = "saved_seconds_per_open"
COLUMNS = (
    ("hit_rate", "hits", "{:.1%}"), ("kept_rate", "kept", "{:.1%}"),
    ("waste_rate", "wasted\nper prewarm", "{:.0%}"),
    (SAVED, "saved\nper open", "{:.3f} s"), ("reward_per_open", "reward\nper open", "{:.3f}"),
    ("hr@1", "hr@1", "{:.0%}"),
)  # fmt: skip
"""Metric, title, and how it is written: short, as the sections have all digits."""
WORDS = {
    "mfu": "opened most so far",
    "mru": "opened last",
    "markov1": "counts what followed",
    "backoff3": "counts after the last three",
    "omnibox": "the browser's own rule",
    "gbdt": "decision trees",
    "gru4rec": "recurrent network",
    "sasrec": "small transformer",
    "base": "model as shipped",
    "sb3": "reinforcement learning",
}
"""What a policy goes by, in as few words as fit below its name."""
AS_COUNTS = "counts: too few events"
TERMS = (
    "Prewarm: load ahead of time. Hits: opens that were fast only because of it. Kept: opens that were fast "
    "only because another was let go instead. Wasted: prewarms that "
    "nobody needed. Saved: seconds of waiting, per open. Reward per open: {reward}. hr@1: how often the "
    "first guess was what was opened next."
)
SECONDS = "seconds saved, minus what memory and asking cost"
READ = "Up is better: more hits for equal waste. Dots: how it ran."


def badge(evaluation: Evaluation) -> str:
    """Whether a person did this."""
    return "synthetic data" if evaluation.synthetic else "recorded data"


def where(evaluation: Evaluation) -> str:
    """What policies were compared on, as the end of a sentence."""
    one = evaluation.n_users == 1
    people = ("invented " if evaluation.synthetic else "") + ("person" if one else "people")
    whose = f"one {people}" if one else f"{evaluation.n_users} {people}"
    new = (
        "none of whom they learned from"
        if evaluation.split == "user"
        else "later than what they learned from"
    )
    return f"judged on {evaluation.n_events:,} opens of {whose}, {new}"


def best_policy(evaluation: Evaluation) -> str:
    """The policy with the most reward, of equals the one that is right more often; the bounds only where
    there is no other."""
    names = [n for n in evaluation.policies if n not in BOUNDS] or list(evaluation.policies)
    return max(names, key=lambda n: _rank(evaluation.policies[n]))


def best_counting(evaluation: Evaluation, but: str = "") -> str | None:
    """The counting rule that saves most, other than `but`."""
    names = [n for n in COUNTING if n in evaluation.policies and n != but]
    return max(names, key=lambda n: _of(evaluation.policies[n], SAVED), default=None)


def telling(evaluation: Evaluation, of: str) -> list[str]:
    """The policies to look at first, best first: `of`, the reader's own and trained ones, the best counting
    rule, the trees and the untrained model; all, where they are few."""
    names = [n for n in evaluation.policies if n not in BOUNDS] or [of]
    if len(names) > MOST:
        own = [n for n in names if n not in KNOWN_COLORS and n != "base"]
        first = [of, best_counting(evaluation), "gbdt", *reversed(own), "base"]
        names = list(dict.fromkeys(n for n in first if n in names))[:MOST]
    return sorted(names, key=lambda n: _rank(evaluation.policies[n]), reverse=True)


def _rank(judged: Judged) -> tuple[float, float]:
    return _of(judged, "reward_per_open"), _of(judged, "hr@1")


def result(evaluation: Evaluation, of: str, called: str = "") -> list[str]:
    """What came out for `of`, in sentences: what it saves, beside what, and whether that is luck. called: how
    to name it."""
    return [re.sub(r"(?<=\d) (?=%|s\b)", "\u00a0", said) for said in _result(evaluation, of, called or of)]


def _result(evaluation: Evaluation, of: str, called: str) -> list[str]:
    judged = evaluation.policies[of]
    if evaluation.nothing:
        why = evaluation.nothing[0].upper() + evaluation.nothing[1:]
        return [f"{why}.", *_named_first(evaluation, of)]
    if not _of(judged, "prewarms_per_open"):
        said = f"{called} keeps still: it never prewarms, so it saves nothing."
        why = "On the events before these, where its threshold was chosen, keeping still was worth most."
        return [said, why, *_beside(evaluation, of)]
    saved = _of(judged, SAVED)
    if saved <= 0:
        why = "what it prewarmed pushed out what was needed"
        return [f"{called} costs {_seconds(-saved)} of waiting per open: {why}.", *_beside(evaluation, of)]
    share = _share(judged)
    bound = f", {share} of what a clairvoyant would" if share else ""
    return [f"{called} saves {_seconds(saved)} of waiting per open{bound}.", *_beside(evaluation, of)]


def _beside(evaluation: Evaluation, of: str) -> list[str]:
    """The best counting rule and the trees beside `of`, and whether the difference is more than luck."""
    counting = best_counting(evaluation, but=of)
    rule = "the next best counting rule" if of in COUNTING else "the best counting rule"
    others = {counting: (rule, evaluation.differences), "gbdt": (WORDS["gbdt"], evaluation.against_gbdt)}
    texts: list[str] = []
    untold = False
    for other, (what, differences) in others.items():
        if other is None or other == of or other not in evaluation.policies:
            continue
        judged = evaluation.policies[other]
        share = _share(judged)
        text = f"{other}, {what}, saves {_seconds(_of(judged, SAVED))}{f', {share}' if share else ''}."
        found = {m: e for m, (against, e) in differences.get(of, {}).items() if against == other}
        saved = found.get(SAVED)
        if saved is not None and saved.bounded:
            named = any("interval" in one for one in texts)
            text += _luck(saved, found.get("reward_per_open"), "" if named else "95 % interval ")
        untold = untold or (saved is not None and not saved.bounded)
        texts.append(text)
    if untold:
        which = "the difference is" if len(texts) == 1 else "the differences are"
        texts[-1] += f" There are too few sessions to say whether {which} luck."
    return texts


def _luck(saved: Estimate, reward: Estimate | None, what: str) -> str:
    """Whether a difference in seconds saved is luck, and one in reward, where that is another matter. what:
    stands before its interval."""
    luck = _verdict(saved)
    text = f" The difference, {_signed(saved.value)} s, {luck} ({what}{_span(saved)} s)."
    if reward is None or not reward.bounded or _verdict(reward) == luck:
        return text
    return f"{text} In reward, {_signed(reward.value)}, it {_verdict(reward)} ({_span(reward)})."


def _verdict(difference: Estimate) -> str:
    return "cannot be told from luck" if difference.low <= 0 <= difference.high else "is more than luck"


def _span(e: Estimate) -> str:
    return f"{_signed(e.low)} to {_signed(e.high)}"


def _named_first(evaluation: Evaluation, of: str) -> list[str]:
    """What is left to compare where nothing can be saved."""
    found = {n: j.metrics["hr@1"].value for n, j in evaluation.policies.items() if "hr@1" in j.metrics}
    shown = [n for n in dict.fromkeys([of, best_counting(evaluation, but=of)]) if n in found]
    if not shown:
        return []
    named = ", ".join(f"{n} {number(found[n], 'hr@1')}" for n in shown)
    return [f"What is left to compare is how often the next open was guessed: {named}."]


def first_table(evaluation: Evaluation, of: str, words: Mapping[str, str] = WORDS) -> Table:
    """The policies to look at first and what counts; words: what stands below a policy's name."""
    names = telling(evaluation, of)
    rows = []
    for name in names:
        metrics = evaluation.policies[name].metrics
        cells = [
            _written(form, metrics[m].value) if m in metrics and np.isfinite(metrics[m].value) else "–"
            for m, _, form in COLUMNS
        ]
        word = AS_COUNTS if evaluation.policies[name].note.endswith("instead") else words.get(name, "")
        rows.append([f"{name}\n{word}" if word else name, *cells])
    all_of = len([n for n in evaluation.policies if n not in BOUNDS])
    more = f" {len(names)} of {all_of} policies; below, all." if all_of > len(names) else ""
    reward = evaluation.setting.world.reward
    terms = TERMS.format(reward=SECONDS if reward == "net_seconds" else f"what {reward} counts")
    head = ["policy", *(title for _, title, _ in COLUMNS)]
    return Table(head, rows, terms + more, main=names.index(of) if of in names else None)


def first_figure(evaluation: Evaluation, of: str) -> Figure | None:
    """Hits against waste of the policies to look at first, where there was anything to hit."""
    if evaluation.nothing:
        return None
    return hits_against_waste(evaluation, telling(evaluation, of), small=True)


def hits_against_waste(evaluation: Evaluation, names: Sequence[str], *, small: bool = False) -> Figure | None:
    """A curve for each policy over all its thresholds, and a dot where it was run; a dot alone for one
    that plans by itself. None where there is no curve. small: beside a table."""
    lines: dict[str, Line] = {}
    for name in names:
        judged = evaluation.policies[name]
        if name in BOUNDS or "hit_rate" not in judged.metrics:
            continue
        wasted = _of(judged, "waste_rate") * _of(judged, "prewarms_per_open")
        mark = (float(wasted), float(_of(judged, "hit_rate")))
        curve = judged.curve or {"wasted_per_open": np.array(mark[:1]), "hit_rate": np.array(mark[1:])}
        lines[name] = Line(curve["wasted_per_open"], curve["hit_rate"], mark=mark)
    if not any(evaluation.policies[name].curve for name in lines):
        return None
    return curves(
        lines, x=Axis("wasted prewarms per open"), y=Axis("hits per open", percent=True),
        alt="Hits per open against wasted prewarms per open, one curve per policy",
        size=Size(3.5, 5.0, narrow=1.95) if small else Size(), among=list(evaluation.policies), note=READ,
    )  # fmt: skip


def _share(judged: Judged) -> str:
    """The share of what a clairvoyant would save, where there is one."""
    found = judged.metrics.get("oracle_share")
    return f"{100 * found.value:.0f} %" if found is not None and np.isfinite(found.value) else ""


def _of(judged: Judged, metric: str) -> float:
    value = judged.metrics[metric].value if metric in judged.metrics else 0.0
    return value if np.isfinite(value) else 0.0


def _written(form: str, value: float) -> str:
    return form.format(value).replace("%", "\u00a0%").replace("-", "−")


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if abs(value) >= 0.1 or not value else f"{value:.3f} s"


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
