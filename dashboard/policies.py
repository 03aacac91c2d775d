"""Policies: what each of them is worth, side by side, and how people liked what it did."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import streamlit as st

from dashboard import look, own_days, plots, runs, why, words
from dashboard.look import e, html
from dashboard.plots import Policies
from dashboard.setting import Started, opened
from dashboard.words import shown
from env.judge.world_options import WorldOptions
from rlmemo.policies.registry import POLICIES
from rlmemo.report.evaluation import BINS, EVENTS_A_BIN
from rlmemo.runs.stages import STAGES
from rlmemo.store import ratings
from rlmemo.store.database import Store
from rlmemo.store.waiting import Told, desk

TITLE = "Policies"
ICON = ":material/balance:"

# metric: (what it is called here, how it is written, what it means)
COLUMNS = {
    "hr@1": ("First guess right", "{:.1%}", "Share of opens whose target stood first in the list"),
    "hr@5": ("In the first five", "{:.1%}", "Share of opens whose target was among the first five"),
    "saved_seconds_per_open": ("Saved per open", "{:.3f} s", "Waiting saved, per open"),
    "hit_rate": ("Hits", "{:.1%}", "Opens that were ready and would have been cold"),
    "waste_rate": ("Wasted", "{:.1%}", "Prewarms that nobody needed"),
    "reward_per_open": ("Reward", "{:.3f}", "Reward per open"),
    "oracle_share": (
        "Of the possible",
        "{:.1%}",
        "Saved seconds as a share of what a clairvoyant would save",
    ),
    "ece": (
        "Odds off by",
        "{:.1%}",
        "How far a first guess's probability is from how often it is right, on average",
    ),
    "ece_none": (
        "Odds of new off by",
        "{:.1%}",
        "How far the probability is off that it is none of the listed",
    ),
    "new_auc": ("Foresees the new", "{:.2f}", "How well the probability of none tells new targets; 0.5: not"),
}

NAMES = {**POLICIES, **{name: stage.what for name, stage in STAGES.items()}}
"""What each policy does, for whom its name says nothing."""
LEAST_EVENTS = BINS * EVENTS_A_BIN
LESS_IS_BETTER = ("waste_rate", "ece", "ece_none")
KINDS = {"first": "The first guess", "none": "None of these"}
FIRST_CURVES = ("loss", "reward", "eval_loss", "rewards/margins")


def show(where: Started) -> None:
    st.title("Policies")
    found = runs.find_runs(where.runs)
    done = {r.name: r for r in found if r.finished}
    if done:
        _reports(done)
    else:
        data = shlex.quote(where.db.name) if own_days.own(where) else "demo"
        name = "mine" if own_days.own(where) else "first"
        look.empty(
            "No finished run yet",
            f"Nothing with a report in {where.runs.name}/. Train one, or compare the baselines.",
            f"python -m rlmemo.train --timelines {data} --out {where.runs.name}/{name}\n"
            f"python -m rlmemo.benchmark --timelines {data} --json {where.runs.name}/baselines.json",
        )
    if where.db.exists():
        _approval(opened(where))
        _decisions(opened(where), where.rater)
    unfinished = [r for r in found if not r.finished]
    if unfinished:
        html(
            '<div class="quiet">Not shown: '
            + ", ".join(f"{e(r.name)} ({e('; '.join(r.remarks))})" for r in unfinished[:5])
            + ".</div>"
        )


def _reports(done: dict[str, runs.RunFiles]) -> None:
    chosen = st.multiselect("Runs", list(done), default=list(done)[:1], format_func=shown)
    if not chosen:
        st.info("Choose at least one run.")
        return

    def together(part: Callable[[runs.RunFiles], Mapping[str, Any]]) -> dict[str, Any]:
        return {
            shown(f"{name}: {policy}" if len(chosen) > 1 else policy): found
            for name in chosen
            for policy, found in part(done[name]).items()
        }

    policies: Policies = together(lambda run: run.policies)
    for name in chosen:
        facts = done[name].facts
        html(f'<div class="quiet"><b>{e(name)}</b> {e(_measured_on(facts), 300)}</div>')
        for note in done[name].notes:
            html(f'<div class="quiet" data-testid="note">{e(words.sentence(note), 400)}</div>')
    st.subheader("Side by side")
    offered = [m for m in COLUMNS if any(m in v for v in policies.values())]
    if offered:
        metric = st.pills("Shown", offered, default=offered[0], format_func=lambda m: COLUMNS[m][0])
        metric = metric or offered[0]
        best = "least" if metric in LESS_IS_BETTER else "most"
        plots.dots(policies, metric, percent="%" in COLUMNS[metric][1], best=best)
        html(f'<div class="quiet">{e(words.sentence(COLUMNS[metric][2]), 160)}</div>')
    known = [f"{name}: {NAMES[name]}" for name in dict.fromkeys(n.split(": ")[-1] for n in policies)
             if name in NAMES]  # fmt: skip
    if known:
        html(f'<div class="quiet" data-testid="names">{e(words.sentence("; ".join(known)), 900)}</div>')
    with st.expander("All numbers"):
        _table(policies)
        meant = "; ".join(f"{COLUMNS[m][0]}: {COLUMNS[m][2][0].lower()}{COLUMNS[m][2][1:]}" for m in offered)
        html(f'<div class="quiet">{e(words.sentence(meant), 1200)}</div>')
    if sum("hit_rate" in m and "wasted_mb_minutes_per_open" in m for m in policies.values()) > 1:
        st.subheader("Hits against waste")
        plots.trade(policies, together(lambda run: run.sweeps))
    rewards = together(lambda run: run.terms)
    if rewards:
        st.subheader("Where the reward comes from")
        plots.terms(rewards)
    if any(done[name].reliability.get("first") for name in chosen):
        st.subheader("Can the probabilities be believed?")
        kind = st.pills(
            "Of", list(KINDS), default="first", format_func=KINDS.__getitem__, label_visibility="collapsed"
        )
        kind = kind or "first"
        bins = together(lambda run: run.reliability.get(kind, {}))
        few = min(int(done[name].facts.get("n_events") or LEAST_EVENTS) for name in chosen)
        if few < LEAST_EVENTS:
            said = f"{words.count(few, 'event')} are too few for a curve, which takes {LEAST_EVENTS:,}"
            html(
                f'<div class="quiet" data-testid="few">{e(said, 120)}: its points would be mostly luck.</div>'
            )
        else:
            plots.reliability(bins, KINDS[kind], list(policies))
    for name in chosen:
        _curves(done[name])


def _measured_on(facts: Mapping[str, Any]) -> str:
    """What a report's numbers were measured on, in words."""
    said = [f"on {facts['timelines']}"] if "timelines" in facts else []
    said += [f"split {facts['split']}"] if "split" in facts else []
    said += [words.count(facts["n_events"], "test event")] if isinstance(facts.get("n_events"), int) else []
    if "collapsed" in facts:
        said.append("repeats collapsed" if facts["collapsed"] else "repeats kept")
    said += [f"seed {facts['seed']}"] if "seed" in facts else []
    return words.sentence(", ".join(said)) if said else ""


def _approval(store: Store) -> None:
    """How often what a policy would have done was welcome."""
    found: Policies = {}
    rows: list[list[object]] = []
    for row in ratings.approval(store):
        low, high = runs.wilson(row["up"], row["rated"])
        share = row["up"] / row["rated"]
        version = row["policy_version"]
        name = shown(row["policy"] if version == row["policy"] else f"{row['policy']} ({version})")
        found[name] = {"thumbs up": runs.Value(share, low, high)}
        rows.append([name, f"{row['rated']:,}", f"{share:.0%} ({low:.0%} to {high:.0%})"])
    if rows:
        st.subheader("What people said")
        if len(rows) > 1:
            plots.dots(found, "thumbs up", percent=True, best="most")
        look.table(["policy", "rated", "thumbs up (95 %)"], rows, numeric={1, 2})
        html(
            '<div class="quiet">Of what was shown; the most telling moments are shown first. What a policy '
            "would have got that nobody rated: python -m rlmemo.feedback evaluate.</div>"
        )


def _decisions(store: Store, rater: str) -> None:
    """One decision and why. Only rated ones: the others are to be rated without knowing the outcome."""
    rated = ratings.rated_predictions(store, rater)
    if not rated:
        return
    st.subheader("One decision, and why")
    by_id = {r.moment.id: r for r in rated}

    def called(identity: int) -> str:
        r = by_id[identity]
        said = "yes" if r.rating.thumbs else "no"
        what = ", ".join(shown(p.target, 24) for p in r.moment.prediction.plan) or "nothing"
        return f"{words.moment(r.moment.prediction.t, r.moment.tz)}: {what} ({said})"

    chosen = st.selectbox("A moment that you rated", list(by_id), format_func=called)
    if chosen is None:
        return
    moment = by_id[chosen].moment
    p, told = moment.prediction, ratings.tell_after(store, rater, moment)
    planned = {x.target: words.delay(x.delay_s) for x in p.plan}
    listed = sorted(p.probabilities.items(), key=lambda pair: -pair[1])
    hides = desk(store, rater).hides
    statistics = {
        name: replace(k, ago_s=None) if k.ago_s is not None and hides(p.user, p.t - k.ago_s) else k
        for name, k in why.of_moment(store, moment, [name for name, _ in listed]).items()
    }
    rows = "".join(
        _candidate(name, share, planned.get(name), statistics.get(name), moment, told)
        for name, share in listed
    )
    if p.none_probability is not None:
        rows += _candidate(None, p.none_probability, None, None, moment, told)
    html(
        f'<div class="card" data-testid="why">{look.strip(moment.steps)}<div class="ask">What {e(p.policy)} '
        f'thought would come next, and what was known then</div><div class="candidates">{rows}</div></div>'
    )
    happened = " ".join(words.outcome_sentences(p, told)) or "What happened next is not known yet."
    chance = f"A few plans are tried at random; the chance that this one was shown was {p.propensity:.1%}."
    if moment.world != WorldOptions():
        chance += f" It was made for {moment.world.in_words()}."
    if not statistics:
        chance += " The opens that it was made from are not in the store (any more), so nothing is counted."
    html(f'<div class="quiet" style="margin-top:.5rem">{e(happened, 400)} {e(chance, 400)}</div>')


def _candidate(
    name: str | None, share: float, planned: str | None, known: why.Known | None, moment: ratings.Moment,
    told: Told,
) -> str:  # fmt: skip
    """One candidate's line: name, when it would be made ready, probability, and what was known of it."""
    outcome = {} if told is Told.NOTHING else moment.prediction.outcome or {}
    chips = f'<span class="step now">ready {e(planned)}</span>' if planned else ""
    if name is not None and outcome.get("next_target") == name:
        chips += '<span class="step">opened next</span>'
    called = "<i>none of these</i>" if name is None else e(name)
    reasons = (
        f'<div class="quiet">{e(words.sentence(why.sentence(known, moment.steps)), 300)}</div>'
        if known
        else ""
    )
    return (
        f'<div><div class="head"><span class="name">{called} {chips}</span>'
        f'<span class="n">{share:.1%}</span></div><div class="bar" style="padding:0"><i style="width:'
        f'{100 * share:.1f}%"></i></div>{reasons}</div>'
    )


def _table(policies: Policies) -> None:
    offered = [m for m in COLUMNS if any(m in v for v in policies.values())]
    rows: list[list[object]] = []
    for name, metrics in policies.items():
        row: list[object] = [name]
        for m in offered:
            v = metrics.get(m)
            if v is None:
                row.append("–")
                continue
            write = COLUMNS[m][1]
            half = (v.high - v.low) / 2
            row.append(write.format(v.value) + (f" ± {write.format(half)}" if half > 0 else ""))
        rows.append(row)
    look.table(["policy", *(COLUMNS[m][0] for m in offered)], rows, numeric=set(range(1, len(offered) + 1)))


def _curves(run: runs.RunFiles) -> None:
    import pandas as pd

    table = pd.DataFrame(runs.curves(run), columns=["stage", "name", "step", "value"])
    if table.empty:
        return
    st.subheader("How it learned")
    html(f'<div class="when">{e(run.name)}</div>')
    names = sorted(table["name"].unique(), key=lambda n: (n not in FIRST_CURVES, n))
    shown_curves = st.multiselect(
        "Curves", names, default=names[:2], key=f"curves-{run.name}", format_func=shown
    )
    for name in shown_curves:
        plots.curve(run, table[table["name"] == name], name, shown(name))
