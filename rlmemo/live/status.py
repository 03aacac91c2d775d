"""What live has seen, what it would have done, and what that would have saved: a few lines."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from env.timeline import zone
from rlmemo.runs.plan_file import shipped_in_charge
from rlmemo.store.database_file import DEFAULT_DB
from rlmemo.store.live_learned import IN_CHARGE, LEARNED
from rlmemo.store.live_ledger import PAST, LiveLedger

FIELDS = (
    "base_wait_s",
    "saved_s",
    "planned",
    "hit",
    "late",
    "wasted",
    "redundant",
    "wasted_mb_s",
    "base_cold",
)
DAY_S = 86400.0


def lines(ledger: LiveLedger, recording: int | None, now: float | None = None) -> list[str]:
    """The status of a recording. recording: the process that records, None where none does; now: unix
    seconds."""
    now = time.time() if now is None else now
    settings = ledger.state("settings") or {}
    told = [_who(ledger, settings, recording, now)]
    if trouble := ledger.state("trouble"):
        told.append(f"trouble: {trouble}")
    if (past := ledger.state(PAST)) and past["opens"]:
        until = _clock(past["until"], ledger.tz)
        told.append(f"began with {past['opens']:,} opens of {past['named']}, until {until}")
    told += _learned(ledger)
    if pause := paused(ledger, now):
        told.append(pause)
    every = ledger.totals(0.0, FIELDS)
    if not every["opens"]:
        told.append("nothing is known yet: the first plan is judged with the opens after it")
        return told
    lately = ledger.totals(now - DAY_S, FIELDS)
    if lately != every:
        told += _saved("the last 24 hours", lately)
    told += _saved("in all", every)
    held = ledger.state("now")
    if held:
        early = [name for name, unused in held["memory"].items() if unused]
        rest = [name for name, unused in reversed(held["memory"].items()) if not unused]
        told.append(f"in front {_clock(held['t'], ledger.tz)}: {held['front']}")
        told.append(f"would be ready early: {', '.join(early) or 'nothing'}; in memory: {', '.join(rest)}")
        if held.get("thumbs"):
            told.append(f"its plans mind {held['thumbs']:,} of what you said (dashboard, page Now)")
    if pages := ledger.came_to("took_s", "opened_s"):
        took, opened = (statistics.median(x) for x in zip(*pages, strict=True))
        told.append(
            f"pages loaded early and then opened: {len(pages):,}; they took {_long(took)} to load, and "
            f"{_long(opened)} to be there (medians)"
        )
    told += [f"not done, {n:,} times: {why}" for why, n in ledger.not_done(now - DAY_S)]
    if late := ledger.made_late():
        told.append(
            f"{late:,} plans were made up for later, when live was not running or the server was away: "
            "they are judged as if it had been"
        )
    return told


def paused(ledger: LiveLedger, now: float) -> str:
    """That nothing is recorded now, "" where that is not so."""
    for p in ledger.pauses():
        if p.off_t <= now and (p.back_t is None or now < p.back_t):
            until = f" until {_clock(p.back_t, ledger.tz)}" if p.back_t else ""
            here = "" if ledger.store.path == Path(DEFAULT_DB) else f" --db {ledger.store.path}"
            whose = "" if ledger.user == "me" else f" --user {ledger.user}"
            return f"paused{until}: nothing is recorded; go on with python -m rlmemo.live resume{here}{whose}"
    return ""


def _learned(ledger: LiveLedger) -> list[str]:
    """What was decided about the last training, and who is in charge by it."""
    told = []
    if charge := ledger.state(IN_CHARGE):
        told.append(f"in charge: {charge['run'] or 'the policy above'}{_shipped(charge['run'])}")
    if last := ledger.state(LEARNED):
        told.append(f"learned {_clock(last['at'], ledger.tz)}: {last['said']}")
    return told


def _who(ledger: LiveLedger, settings: Mapping[str, Any], recording: int | None, now: float) -> str:
    doing = f"recording (process {recording})" if recording else "not recording (live start does)"
    if not settings:
        return doing
    latest = ledger.latest_t()
    last = "nothing opened yet" if latest is None else f"last open {_ago(now - latest)} ago"
    return (
        f"{doing}; policy {settings['policy']}{_shipped(settings['policy'])}, act {settings['act']}, "
        f"memory {settings['budget_mb']:,.0f} MB, {settings['world']['costs']} costs, "
        f"times in {ledger.tz}; {last}"
    )


def _shipped(policy: str) -> str:
    """That a run's plans are the shipped model's, where that is so."""
    return " (the shipped model is in charge of it)" if policy and shipped_in_charge(Path(policy)) else ""


def _saved(what: str, sums: Mapping[str, float]) -> list[str]:
    opens = int(sums["opens"])
    if not opens:
        return [f"{what}: nothing was opened"]
    saved = sums["saved_s"]
    spared = f"saved {_long(saved)} of it" if saved >= 0 else f"added {_long(-saved)} to it"
    waited = (
        f"{what}: {opens:,} opens, {int(sums['base_cold']):,} of them cold without prewarming, "
        f"{_long(sums['base_wait_s'])} of waiting; its plans would have {spared}"
    )
    made = (
        f"  {int(sums['planned']):,} prewarms: {int(sums['hit']):,} hits, {int(sums['late']):,} late, "
        f"{int(sums['redundant']):,} redundant, {int(sums['wasted']):,} wasted "
        f"({sums['wasted_mb_s'] / 60.0:,.0f} MB x minutes)"
    )
    return [waited, made]


def _clock(t: float, tz: str) -> str:
    return f"{datetime.fromtimestamp(t, UTC).astimezone(zone(tz)):%Y-%m-%d %H:%M}"


def _ago(seconds: float) -> str:
    return _long(max(0.0, seconds))


def _long(seconds: float) -> str:
    size = abs(seconds)
    if size < 120:
        return f"{seconds:.1f} s" if size < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if size < 7200 else f"{seconds / 3600:.1f} hours"
