"""What a vote changes, told right after it: the plan of the same moment without the vote, and with it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import streamlit as st

from dashboard import words
from dashboard.look import e
from dashboard.setting import Started, opened
from dashboard.words import shown
from env.judge.world_options import WorldOptions
from env.sources import load_timelines
from env.timeline import Timeline
from rlmemo.approval.placed_ratings import place_ratings, read_ratings
from rlmemo.evaluation.after_vote import AfterVote, after_vote
from rlmemo.policies.registry import POLICIES, setup, to_follow
from rlmemo.policies.run import Setup
from rlmemo.store.database import Store
from rlmemo.store.ratings import Rated

LOOK_S = 0.05
BASE = "base"
_worker = ThreadPoolExecutor(1)
"""A press of a button is heard while a model is asked: that happens beside the page."""
_asked: dict[tuple[str, int], Future[AfterVote | None]] = {}


def show(where: Started, last: Rated) -> None:
    """Below the vote: what it changes at once. Drawn last, as a model may have to be loaded first."""
    policy = last.moment.prediction.policy
    name = reads_thumbs(last, where)
    if name is None:
        if policy in POLICIES:
            _say([f"{policy} reads no votes: they count once a run is trained with them (Train)."])
        return
    place = st.empty()
    future = _ask(where, last, name)
    while not future.done():
        _say(["What does that change? The model is asked again …"], place)
        time.sleep(LOOK_S)
    try:
        found = future.result()
    except Exception as error:  # whatever lies in a run folder, the page stays
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        _say([words.sentence(f"What that changes cannot be told: {reason}")], place)
        return
    if found is not None:
        p = last.moment.prediction
        _say(sentences([x.target for x in p.plan], found, p.probabilities), place)


def reads_thumbs(last: Rated, where: Started) -> str | None:
    """The name or folder of who made a prediction, if it minds votes and can be asked again."""
    p = last.moment.prediction
    if p.policy == BASE:
        return BASE
    folder = where.runs / Path(p.policy).name
    there = p.policy == p.policy_version and (folder / "adapter").is_dir()
    return str(folder) if there else None


def sentences(card: Sequence[str], found: AfterVote, then: Mapping[str, float]) -> list[str]:
    """The same in words, what it comes to first. card: what the plan that was rated would have loaded. then:
    the chance of each target when it was made."""
    before, now = found.before.targets, found.now.targets
    if before != now:
        was = f"Before your vote it would have {_loaded(before, 'loaded', 'kept')}."
        lines = [f"{was} Now it would {_loaded(now, 'load', 'keep')}."]
    else:
        lines = [f"The plan stays: it would {_loaded(now, 'load', 'keep')}."]
    for name in dict.fromkeys([*card, *before, *now]):
        chances = found.before.chance.get(name), found.now.chance.get(name)
        if None in chances:
            continue
        earlier, later = (f"{chance:.1%}" for chance in chances)
        same = earlier == later
        lines.append(f"Chance of {shown(name, 24)}: {earlier} before{' and' if same else f', {later}'} now.")
    if found.loads_from is not None:
        lines.append(f"It loads what has {found.loads_from:.0%} or more.")
    if other := set(card) - set(before):
        least = found.loads_from
        # Its propensity does not tell a try: of those that are stored it may be the only one there was.
        lines.append(
            "The card tried that out, or was made with a lower threshold."
            if least is not None and any(then.get(name, 0.0) < least for name in other)
            else "The card was made before other votes, or when something else was in memory."
        )
    return lines


def _loaded(names: Sequence[str], load: str, keep: str) -> str:
    return f"{load} {', '.join(shown(x, 24) for x in names)}" if names else f"{keep} still"


def _say(lines: Sequence[str], place: st.delta_generator.DeltaGenerator | None = None) -> None:
    first, *others = lines
    markup = f'<div class="band quiet" data-testid="after-vote"><b>{e(first, 300)}</b> '
    (place or st).html(f"{markup}{e(' '.join(others), 600) if others else ''}</div>")


def _ask(where: Started, last: Rated, name: str) -> Future[AfterVote | None]:
    """The answer for a vote, which is worked out once."""
    key = str(where.db), last.rating.id
    if key not in _asked:
        while len(_asked) > 50:
            _asked.pop(next(iter(_asked)))
        store = opened(where)
        _asked[key] = _worker.submit(_answer, store, last, name, where.db)
    return _asked[key]


def _answer(store: Store, last: Rated, name: str, db: Path) -> AfterVote | None:
    stamps = str([(x.id, x.events, x.imported_at, x.tz) for x in store.timelines()])
    people = _people(db, stamps)
    rated = read_ratings(store)
    placed = place_ratings([r for r in rated if r.id == last.rating.id], people).placed
    if not placed:
        return None
    used = _setup(name, _changed(name), last.moment.world)
    return after_vote(used, people[placed[0].user], rated, last.rating.id)


@lru_cache(maxsize=1)
def _people(db: Path, stamps: str) -> list[Timeline]:
    return load_timelines(str(db)).timelines


def _changed(name: str) -> float:
    folder = Path(name) / "adapter"
    return folder.stat().st_mtime if folder.is_dir() else 0.0


@lru_cache(maxsize=2)
def _setup(name: str, changed: float, world: WorldOptions) -> Setup:
    return (to_follow if name == BASE else setup)(name, asdict(world))
