"""The reward's terms: small pure functions of an outcome record, each with a name, a weight and a unit.

A term gets a record: anything with the judge's fields as attributes (floats or arrays of one shape;
`env.judge.plans.FIELDS` names them), and returns the term's quantity in the same shape. Terms are linear: the
quantity of two records added is the sum of their quantities. So a reward can be computed per open, per
plan or per timeline, and always adds up; composing a reward checks it.

A term's own weight is its default: what it counts when a reward names the term without a number. It turns
the term's unit into seconds of waiting, with the sign of what is wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TermFunction = Callable[[Any], Any]


@dataclass(frozen=True)
class Term:
    """One named quantity. weight: its default weight, in seconds of waiting per `unit`."""

    name: str
    weight: float
    unit: str
    function: TermFunction

    def __call__(self, outcome: Any) -> Any:
        """The term's quantity, in `unit`, unweighted."""
        return self.function(outcome)


TERMS: dict[str, Term] = {}


def term(weight: float, unit: str, name: str | None = None) -> Callable[[TermFunction], Term]:
    """Register a function of an outcome record as a term. Raises ValueError for a name that is taken."""

    def register(function: TermFunction) -> Term:
        made = Term(name or function.__name__, float(weight), unit, function)
        if made.name in TERMS:
            raise ValueError(f"a reward term called {made.name!r} exists already")
        TERMS[made.name] = made
        return made

    return register


@term(weight=1.0, unit="s")
def saved_seconds(outcome: Any) -> Any:
    """Waiting in the no-prewarm world minus waiting in the actual world. Hits, lates, redundancy and
    pollution are all in it."""
    return outcome.saved_s


@term(weight=-4e-5, unit="MB*min")
def held_mb_minutes(outcome: Any) -> Any:
    """Memory-time of prewarms while unused, whatever became of them. The price, 4e-5 s per MB-minute
    (2.5 s per GB-hour), makes a prewarm that nobody uses cost about a sixth of what a hit saves: an app of
    the desktop preset held for its whole 30 minutes costs 400 * 30 * 4e-5 = 0.48 s, and a hit saves 3.0 s;
    a web page 100 * 30 * 4e-5 = 0.12 s against 1.48 s. So it pays to keep still below a chance of some
    10 to 20 %."""
    return outcome.held_mb_s / 60.0


@term(weight=-4e-5, unit="MB*min")
def wasted_mb_minutes(outcome: Any) -> Any:
    """Memory-time of the wasted prewarms only, charged when they are resolved. An alternative to
    `held_mb_minutes`; using both charges waste twice."""
    return outcome.wasted_mb_s / 60.0


@term(weight=-0.0084, unit="prewarm")
def planned(outcome: Any) -> Any:
    """Prewarms asked for, whatever became of them. Price: 8.4 ms, the published cost of dispatching an
    action on a Pixel 6a (quoted in the project's issue 3); it makes asking for what is warm already
    strictly worse than keeping still."""
    return outcome.planned


@term(weight=1.0, unit="prewarm")
def hit(outcome: Any) -> Any:
    """Prewarms that were opened while warm and would have been cold."""
    return outcome.hit


@term(weight=0.5, unit="prewarm")
def late(outcome: Any) -> Any:
    """Prewarms that were opened while still loading and would have been cold."""
    return outcome.late


@term(weight=0.0, unit="prewarm")
def redundant(outcome: Any) -> Any:
    """Prewarms of what was, or would have been, warm anyway."""
    return outcome.redundant


@term(weight=-0.5, unit="prewarm")
def wasted(outcome: Any) -> Any:
    """Prewarms that expired, were evicted or stayed unused."""
    return outcome.wasted


@term(weight=-1.0, unit="open")
def pollution(outcome: Any) -> Any:
    """Opens that were not warm only because a prewarm had evicted the target. Already in
    `saved_seconds`; for rewards that count instead of timing."""
    return outcome.pollution


@term(weight=0.5, unit="thumb")
def rating(outcome: Any) -> Any:
    """What the user said of the prediction that was shown: +1, -1, or 0 for nothing. Half a second of
    waiting per thumb."""
    return outcome.rating
