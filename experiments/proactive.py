"""The approval model on real people's judgements: ProactiveAgent's reward data (Lu et al., ICLR 2025,
arXiv 2410.12361, github.com/thunlp/ProactiveAgent, Apache-2.0).

Three annotators judged what an assistant proposed, or that it kept silent, after watching a person's
events; the majority counts (`valid`). 1,629 judgements to train on, 120 to test on: 30 each of silence that
was right, silence where help was needed, proposals accepted, proposals rejected. The published fine-tuned
8-billion-parameter reward model judges the same 120 rows: given the events and the proposal, accepted or not.
It reaches accuracy .9167, precision .9032, recall .9333, F1 .918.

The moment and the proposal are text here: TF-IDF of hashed word n-grams, then the same weighted, calibrated
logistic regression as for plans. Everything is chosen by cross-validation on the training rows; the test
rows are judged once. The split is not by person or trace: every one of the 120 test moments stands in the
training rows too, with another proposal. Their field `help_needed` would give away the 60 silent test rows;
it is not used.
"""

from __future__ import annotations

import argparse
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import InputError, run_main
from env.sources.recordings import data_root
from rlmemo.approval.logistic import Logistic, fit, folds_of, log_loss, out_of_fold, platt
from rlmemo.evaluation.bootstrap import Estimate
from rlmemo.runs.atomic import write_atomic

BITS = 17
PUBLISHED = {"accuracy": 0.9167, "precision": 0.9032, "recall": 0.9333, "f1": 0.9180, "false_alarms": 0.0}
CATEGORIES = ("Missed-Need (MN)", "Correct-Rejection (CR)", "Correct-Detection (CD)", "False-Alarm (FA)")
READINGS = ("last", "recent", "all", "ordered")
"""How much of the events is read: the last, the last three, all, all with how far back."""
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0)
METRICS = ("accuracy", "precision", "recall", "f1", "false_alarms")


@dataclass(frozen=True)
class JudgedProposals:
    """One judgement: what had happened (oldest first), what was proposed (None: silence), whether people
    agreed, the trace it is from."""

    events: tuple[str, ...]
    proposal: str | None
    valid: bool
    category: str

    @property
    def trace(self) -> str:
        return self.events[0] if self.events else ""


def text_rows(documents: list[list[tuple[str, str]]], bits: int, words: int = 2) -> Any:
    """Rows of documents, each a list of (field, text): hashed word n-grams of 1..`words` per field, counted
    once each, a sparse matrix [n, 2**bits]."""
    from scipy.sparse import csr_matrix

    size = 1 << bits
    rows: list[int] = []
    columns: list[int] = []
    for i, document in enumerate(documents):
        seen: set[int] = set()
        for name, text in document:
            tokens = re.findall(r"\w+", text.lower())
            for length in range(1, words + 1):
                for at in range(len(tokens) - length + 1):
                    said = f"{name}\0{' '.join(tokens[at : at + length])}"
                    seen.add(zlib.crc32(said.encode("utf-8", "surrogatepass")) % size)
        rows += [i] * len(seen)
        columns += sorted(seen)
    return csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(documents), size))


def inverse_frequency(rows: Any) -> np.ndarray:
    """log((1 + n) / (1 + documents with the feature)) + 1, float64 [size]; 0 where none has it."""
    n = rows.shape[0]
    in_documents = np.bincount(rows.indices, minlength=rows.shape[1])
    idf: np.ndarray = np.where(in_documents > 0, np.log((1.0 + n) / (1.0 + in_documents)) + 1.0, 0.0)
    return idf


def weighted(rows: Any, idf: np.ndarray) -> Any:
    """TF-IDF: each row times `idf`, brought to length 1."""
    from scipy.sparse import diags

    made = rows @ diags(idf)
    length = np.sqrt(np.asarray(made.multiply(made).sum(axis=1)).ravel())
    return diags(1.0 / np.maximum(length, 1e-12)) @ made


def folder() -> Path:
    """Where the two files lie on this machine, there or not."""
    return data_root() / "proactiveagent" / "reward_data"


def read(part: str) -> list[JudgedProposals]:
    """The judgements of a part, "train" or "test". Raises InputError where the file is missing or damaged."""
    path = folder() / f"{part}_data.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); get dataset/reward_data of "
            "github.com/thunlp/ProactiveAgent, or name the data folder in RLMEMO_DATA"
        ) from None
    made = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            task = row["pred_task"]
            made.append(
                JudgedProposals(
                    tuple(str(e["event"]) for e in row["obs"]),
                    None if task is None else str(task),
                    bool(row["valid"]),
                    str(row["category"]),
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}:{number}: is no judgement ({error}); get the file again") from None
    return made


def document(x: JudgedProposals, reading: str) -> list[tuple[str, str]]:
    """A judgement as (field, text): what is read of silence and of a proposal has names of its own."""
    how = "silent" if x.proposal is None else "proposal"
    fields = [(how, "bias")]
    if x.proposal is not None:
        fields.append(("task", x.proposal))
    back = {"last": 1, "recent": 3, "all": len(x.events), "ordered": len(x.events)}[reading]
    events = x.events[len(x.events) - min(back, len(x.events)) :]
    for k, event in enumerate(reversed(events)):
        if reading == "ordered":
            fields.append((f"{how} {min(k, 3)}", event))
            fields.append(("any", event))
        else:
            fields += [(how, event), ("any", event)]
    fields.append((f"{how} events", f"about {int(np.log2(1 + len(x.events)))}"))
    return fields


def balance(rows: Sequence[JudgedProposals]) -> np.ndarray:
    """Weights of mean 1 that make the four categories count alike, as the published test does."""
    count = {c: max(1, sum(x.category == c for x in rows)) for c in CATEGORIES}
    weight = np.array([1.0 / count.get(x.category, 1) for x in rows])
    scaled: np.ndarray = weight / weight.mean()
    return scaled


@dataclass(frozen=True)
class TextApproval:
    """An approval model over text: p >= threshold is accepted."""

    model: Logistic
    idf: np.ndarray
    reading: str
    threshold: float

    def probability(self, rows: Sequence[JudgedProposals]) -> np.ndarray:
        """Probability of being accepted, float64 [n]."""
        documents = [document(x, self.reading) for x in rows]
        return self.model.probability(weighted(text_rows(documents, BITS), self.idf))

    def save(self, path: Path) -> None:
        """Write it as JSON: hashed places and weights, no words."""
        places = np.flatnonzero(self.idf)
        data = {
            "what": "rlmemo text approval model", "version": 1, "reading": self.reading,
            "threshold": self.threshold, "idf": {str(int(i)): float(self.idf[i]) for i in places},
            "model": self.model.as_json(),
        }  # fmt: skip
        write_atomic(path, json.dumps(data) + "\n")


def train(
    rows: Sequence[JudgedProposals], seed: int = 0, by_trace: bool = False
) -> tuple[TextApproval, np.ndarray]:
    """(model, out-of-fold probabilities [n]): reading, penalty and threshold chosen by cross-validation.

    by_trace: keep the rows of a trace in one fold, for an estimate on people's traces never seen.
    """
    valid = np.array([x.valid for x in rows], np.float64)
    weight = balance(rows)
    groups = np.array([x.trace for x in rows]) if by_trace else np.arange(len(rows)).astype(str)
    fold = folds_of(groups, seed)
    found: dict[tuple[str, float], np.ndarray] = {}
    for reading in READINGS:
        counts = text_rows([document(x, reading) for x in rows], BITS)
        made = weighted(counts, inverse_frequency(counts)).tocsr()
        for penalty in PENALTIES:
            found[reading, penalty] = out_of_fold(made, valid, weight, penalty, fold)
    best = min(found, key=lambda k: log_loss(found[k], valid, weight))
    slope, shift = platt(found[best], valid, weight)
    held_out = 0.5 * (1.0 + np.tanh(0.5 * (slope * found[best] + shift)))
    threshold = best_threshold(held_out, valid, weight)
    counts = text_rows([document(x, best[0]) for x in rows], BITS)
    idf = inverse_frequency(counts)
    model = fit(weighted(counts, idf).tocsr(), valid, weight, best[1])
    return TextApproval(
        Logistic(model.weights, model.bias, slope, shift, best[1]), idf, best[0], threshold
    ), held_out


def best_threshold(p: np.ndarray, valid: np.ndarray, weight: np.ndarray) -> float:
    """The threshold between .3 and .7 with the highest weighted F1."""
    grid = np.linspace(0.3, 0.7, 41)
    scores = [scores_of(p >= x, valid > 0, np.zeros(len(p), bool), weight)["f1"] for x in grid]
    return float(grid[int(np.argmax(scores))])


def scores_of(
    said: np.ndarray, valid: np.ndarray, alarm: np.ndarray, weight: np.ndarray | None = None
) -> dict[str, float]:
    """Accuracy, precision, recall, F1, and the share of rejected proposals (`alarm`) that are accepted."""
    w = np.ones(len(said)) if weight is None else weight
    tp, fp = (w * (said & valid)).sum(), (w * (said & ~valid)).sum()
    fn = (w * (~said & valid)).sum()
    return {
        "accuracy": float((w * (said == valid)).sum() / w.sum()),
        "precision": float(tp / (tp + fp)) if tp + fp else 0.0,
        "recall": float(tp / (tp + fn)) if tp + fn else 0.0,
        "f1": float(2 * tp / (2 * tp + fp + fn)) if tp + fp + fn else 0.0,
        "false_alarms": float(said[alarm].mean()) if alarm.any() else 0.0,
    }


def with_intervals(said: np.ndarray, rows: Sequence[JudgedProposals], seed: int = 0) -> dict[str, Estimate]:
    """`scores_of` with 95 % intervals by bootstrap over rows within their categories."""
    valid = np.array([x.valid for x in rows])
    kind = np.array([x.category for x in rows])
    alarm = kind == CATEGORIES[3]
    value = scores_of(said, valid, alarm)
    if max(np.unique(kind, return_counts=True)[1], default=0) < 2:  # rows can only be drawn as they are
        return {m: Estimate(value[m]) for m in METRICS}
    rng = np.random.default_rng([seed, 13])
    places = [np.flatnonzero(kind == c) for c in np.unique(kind)]
    drawn = []
    for _ in range(2000):
        k = np.concatenate([rng.choice(p, len(p)) for p in places])
        drawn.append(list(scores_of(said[k], valid[k], alarm[k]).values()))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return {m: Estimate(value[m], float(low[i]), float(high[i])) for i, m in enumerate(METRICS)}


def compare(seed: int = 0) -> tuple[TextApproval, dict[str, Any]]:
    """Train, and judge the test rows once: (model, what was found)."""
    rows, test = read("train"), read("test")
    model, held_out = train(rows, seed)
    _, by_trace = train(rows, seed, by_trace=True)
    valid = np.array([x.valid for x in rows])
    alarm = np.array([x.category == CATEGORIES[3] for x in rows])
    weight = balance(rows)
    said = model.probability(test) >= model.threshold
    kind = np.array([x.category for x in test])
    right = said == np.array([x.valid for x in test])
    return model, {
        "train": len(rows),
        "test": len(test),
        "chosen": {"reading": model.reading, "penalty": model.model.penalty, "threshold": model.threshold},
        "cross_validation": scores_of(held_out >= model.threshold, valid, alarm, weight),
        "cross_validation_by_trace": scores_of(by_trace >= 0.5, valid, alarm, weight),
        "rows": {
            "this model": with_intervals(said, test, seed),
            "majority of the training rows: reject": with_intervals(np.zeros(len(test), bool), test, seed),
            "accept everything": with_intervals(np.ones(len(test), bool), test, seed),
        },
        "right_by_category": {c: float(right[kind == c].mean()) for c in CATEGORIES if (kind == c).any()},
    }


def main(argv: list[str] | None = None) -> int:
    """Train, judge once, print the table; `--out FILE` keeps the model, `--json FILE` the numbers."""
    p = argparse.ArgumentParser(
        prog="python -m experiments.proactive", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    p.add_argument("--seed", type=int, default=0, help="of folds and draws (default: 0)")
    p.add_argument("--out", metavar="FILE", help="write the model as JSON")
    p.add_argument("--json", metavar="FILE", help="write what was found as JSON too")
    args = p.parse_args(argv)
    model, found = compare(args.seed)
    print(f"trained on {found['train']} judgements ({found['chosen']}), judged once on {found['test']}:")
    print(f"{'':<40}" + "".join(f"{m.replace('_', ' '):<22}" for m in METRICS))
    for name, row in found["rows"].items():
        print(f"{name:<40}" + "".join(f"{shown(row[m]):<22}" for m in METRICS))
    print(f"{'published, an 8 B model fine-tuned':<40}" + "".join(f"{PUBLISHED[m]:<22.3f}" for m in METRICS))
    for name in ("cross_validation", "cross_validation_by_trace"):
        said = f"{name.replace('_', ' ')} (training rows)"
        print(f"{said:<40}" + "".join(f"{found[name][m]:<22.3f}" for m in METRICS))
    said = ", ".join(f"{name} {value:.0%}" for name, value in found["right_by_category"].items())
    print(f"right by category: {said}")
    if args.out:
        model.save(Path(args.out))
    if args.json:
        rows = {n: {m: e.as_json() for m, e in row.items()} for n, row in found["rows"].items()}
        write_atomic(Path(args.json), json.dumps({**found, "rows": rows, "published": PUBLISHED}) + "\n")
    return 0


def shown(x: Estimate) -> str:
    """A share and its interval."""
    return f"{x.value:.3f} [{x.low:.3f}, {x.high:.3f}]"


if __name__ == "__main__":
    run_main(main)
