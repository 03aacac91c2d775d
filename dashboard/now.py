"""Now: what is open, what is ready, what has left memory and why, as live goes on; and what one says of it.

The page asks the store every second. A thumb is committed before the page thanks for it, and live minds it
with its next plan.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Sequence

import streamlit as st

from dashboard import look, why, words
from dashboard.look import e, html
from dashboard.setting import Started, opened, said
from rlmemo.live import lock
from rlmemo.store import now as live_now
from rlmemo.store import now_votes, ratings
from rlmemo.store.database import Store
from rlmemo.store.now import LiveMoment, LiveRecording, LiveStanding
from rlmemo.store.records import Prediction

TITLE = "Now"
ICON = ":material/bolt:"

EVERY_S = 1.0
MOST_LEFT = 6
SOONEST_VOTE_S = 0.3
"""A second click of a double click comes that fast, and may reach what has moved below the pointer."""
LEFT_WORDS = {
    "off": "the machine was off",
    "unused": "it was ready and not opened in time",
    "room": "others needed the room",
}
CAME_WORDS = {
    "hit": "was opened and ready",
    "late": "was opened, and still loading",
    "redundant": "was opened, and warm anyway",
    "wasted": "was loaded in vain",
}


def show(where: Started) -> None:
    st.title("Now")
    known = live_now.recordings(opened(where)) if where.db.exists() else []
    if not known:
        look.empty(
            "Live has recorded nothing here yet",
            "It reads what you open, says what it would have ready, and hears what you say of it.",
            command(where),
        )
        return
    of = known[0]
    if len(known) > 1:
        of = st.selectbox("Whose", known, format_func=lambda x: words.shown(x.user))

    @st.fragment(run_every=EVERY_S)
    def follow() -> None:
        now(where, of)

    follow()


def command(where: Started, user: str = "me") -> str:
    """How live is started for this database."""
    whose = "" if user == "me" else f" --user {shlex.quote(user)}"
    return f"python -m rlmemo.live start --db {shlex.quote(where.db.name)}{whose}"


def now(where: Started, of: LiveRecording) -> None:
    """Everything on the page that follows."""
    store = opened(where)
    t = time.time()
    how = live_now.standing(store, of, t)
    now_votes.note_shown(store, of, how, where.rater)
    _runs(where, of, how)
    failed = st.session_state.pop("now-failed", None) or st.session_state.pop("said", None)
    if failed:
        html(f'<div class="band" role="alert" data-testid="failed">{e(words.sentence(failed), 300)}</div>')
    if not how.moments:
        html('<div class="card" data-testid="waits">It waits for the first thing that you open.</div>')
        return
    _card(where, store, of, how, t)
    _left(how.left, t)
    _earlier(where, store, of, how)


def _runs(where: Started, of: LiveRecording, how: LiveStanding) -> None:
    """Whether live runs, and what is to be done where it does not."""
    if lock.recorder(where.db) is None:
        html(
            '<div class="band" data-testid="not-running"><b>Live does not run.</b> What stands below is how '
            f'it was left. Start it:<code class="cmd">{e(command(where, of.user), 400)}</code></div>'
        )
        return
    act = str(how.settings.get("act", "none"))
    does = "only says what it would do" if act == "none" else f"does it (--act {act})"
    said_so = f"live runs: {how.settings.get('policy', '')} plans, and {does}"
    heard = f"this plan minds {words.count(how.heard, 'thumb')} of yours" if how.heard else ""
    html(
        f'<div class="meta"><span data-testid="running">{e(said_so, 200)}</span>'
        + (f'<span class="quiet" data-testid="heard">{e(heard, 120)}</span>' if heard else "")
        + "</div>"
    )
    if how.paused is not None:
        until = "" if math.isinf(how.paused) else f" until {words.moment(how.paused, of.tz)}"
        html(f'<div class="band" data-testid="paused">Paused{e(until)}: nothing is recorded.</div>')
    if how.trouble:
        html(f'<div class="band" role="alert" data-testid="trouble">{e(how.trouble, 300)}</div>')


def _card(where: Started, store: Store, of: LiveRecording, how: LiveStanding, t: float) -> None:
    moment = how.moments[0]
    about = _why(store, of, moment)
    picks = "".join(_pick(store, of, moment, x.target, how, about) for x in moment.plan)
    plan = {x.target for x in moment.plan}
    others = [x for x in how.early if x not in plan]
    html(
        f'<div class="card" data-testid="now" data-plan="{moment.plan_id}">'
        f'<div class="when">{e(words.moment(moment.t, of.tz))}</div>'
        f'<div class="quiet">{e(words.shown(of.user))}, {e(words.span(t - moment.t))} ago</div>'
        + look.strip(moment.steps)
        + (
            f'<div class="ask">{_ready_word(how)}</div>{picks}'
            if picks
            else '<div class="ask">Its plan</div><div class="still">keep still: nothing made ready</div>'
        )
        + _names("Ready from before", others, "early")
        + _names("In memory besides", [x for x in how.warm if x != moment.target], "warm")
        + "</div>"
    )
    _votes(where, store, of, how, moment)


def _ready_word(how: LiveStanding) -> str:
    return "It would have ready" if how.settings.get("act", "none") == "none" else "It gets ready"


def _names(what: str, names: Sequence[str], called: str) -> str:
    if not names:
        return ""
    shown = ", ".join(f"<b>{e(x)}</b>" for x in names[:12])
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f'<div class="quiet" data-testid="{called}">{what}: {shown}{more}</div>'


def _pick(
    store: Store, of: LiveRecording, moment: LiveMoment, target: str, how: LiveStanding, about: dict[str, str]
) -> str:
    """A target that is made ready: since when, how likely it is, and why."""
    reasons = [x for x in (about.get(target, ""), _said_before(store, of, target)) if x]
    p = moment.probabilities.get(target)
    share = "" if p is None else f"{100 * p:.0f}% likely next"
    done = moment.done.get(target)
    state = "" if done is None else f"not done: {done['failed']}" if "failed" in done else "loaded"
    gone = "" if target in how.early or not how.since or done is not None else "not held any more"
    right = "; ".join(x for x in (share, state, gone) if x)
    return (
        f'<div class="pick" data-testid="pick"><b>{e(target)}</b><span>{e(right, 200)}</span></div>'
        + (f'<div class="quiet">{e("; ".join(reasons), 400)}</div>' if reasons else "")
    )  # fmt: skip


def _why(store: Store, of: LiveRecording, moment: LiveMoment) -> dict[str, str]:
    """What the past says of every target of a plan; counted once for each plan."""
    kept = st.session_state.setdefault("now-why", {})
    if moment.plan_id not in kept:
        kept.clear()
        asked = Prediction(
            of.user, moment.t, moment.policy, moment.policy_version, "", moment.plan, {}, 1.0,
            timeline_id=of.timeline_id,
        )  # fmt: skip
        found = why.of_moment(
            store, ratings.Moment(asked, "live", of.tz, False, moment.steps), [x.target for x in moment.plan]
        )
        kept[moment.plan_id] = {x: why.sentence(k, moment.steps) for x, k in found.items()}
    known: dict[str, str] = kept[moment.plan_id]
    return known


def _said_before(store: Store, of: LiveRecording, target: str) -> str:
    """What was said of plans with a target, in words."""
    ups, downs = now_votes.said_of_target(store, of, target)
    return f"of plans with it you said {ups} times yes, {downs} times no" if ups + downs else ""


def _left(left: Sequence[live_now.Left], t: float) -> None:
    rows = "".join(
        f'<div class="name">{e(x.target)}</div><div>{e(LEFT_WORDS.get(x.why, x.why))}</div>'
        f'<div class="n quiet">{e(words.span(max(0.0, t - x.t)))} ago</div>'
        for x in left[:MOST_LEFT]
    )
    if rows:
        html(f'<div class="ask">Let go</div><div class="grid" data-testid="left">{rows}</div>')


def _earlier(where: Started, store: Store, of: LiveRecording, how: LiveStanding) -> None:
    """The plans before, with what came of them; they can be spoken about, too."""
    if len(how.moments) < 2:
        return
    html('<div class="ask">The plans before</div>')
    for moment in how.moments[1:]:
        plan = ", ".join(x.target for x in moment.plan)
        came = [
            f"{words.shown(x.target)} {CAME_WORDS[c]}"
            for x, c in zip(moment.plan, moment.came, strict=False)
            if c in CAME_WORDS
        ]
        then = f"then {words.shown(moment.next[1])}" if moment.next else ""
        said_then = "; ".join([*came, then])
        with st.container(key=f"plan-{moment.plan_id}"):
            about, votes = st.columns([5, 2], vertical_alignment="center")
            with about:
                html(
                    f'<div data-testid="earlier" data-plan="{moment.plan_id}"><b>{e(moment.target)}</b>: '
                    f'{e(plan or "keep still", 120)}<div class="quiet">{e(said_then, 300)}</div></div>'
                )
            with votes:
                _votes(where, store, of, how, moment)


def _votes(where: Started, store: Store, of: LiveRecording, how: LiveStanding, moment: LiveMoment) -> None:
    """Two buttons, or what was said and how it is taken back."""
    before = now_votes.said_of(store, of, moment, where.rater)
    latest = moment is how.moments[0]
    name = f"{moment.plan_id}-{before.given}"
    if before.thumbs is not None:
        spoken = "yes" if before.thumbs else "no"
        with st.container(horizontal=True, vertical_alignment="center", key=f"said-{name}"):
            band = ("band good" if before.thumbs else "band") if latest else "quiet"
            thanks = " The next plan minds it." if latest else ""
            html(f'<div class="{band}" data-testid="said"><b>You said {spoken}.</b>{thanks}</div>')
            st.button(
                "Undo", icon=":material/undo:", key=f"undo-{name}", type="tertiary", on_click=_take_back,
                args=(where, of, moment),
            )  # fmt: skip
        return
    with st.container(key="votes" if latest else f"votes-{name}", horizontal=True):
        for thumbs, label, icon in ((1, "Yes, good", "thumb_up"), (0, "No, not this", "thumb_down")):
            st.button(
                label if latest else label.partition(",")[0], icon=f":material/{icon}:",
                key=f"{thumbs}-{name}", type="secondary" if latest else "tertiary", on_click=_vote,
                width="stretch" if latest else "content",
                args=(where, of, how, moment, thumbs, before.given),
            )  # fmt: skip


@said
def _vote(
    where: Started, of: LiveRecording, how: LiveStanding, moment: LiveMoment, thumbs: int, given: int
) -> None:
    clicked = time.monotonic()
    if clicked - st.session_state.get("now-voted", -math.inf) < SOONEST_VOTE_S:
        return
    st.session_state["now-voted"] = clicked
    if not now_votes.vote(opened(where), of, how, moment, where.rater, thumbs, given):
        st.session_state["now-failed"] = "That was answered already, in another window; that vote stands"


@said
def _take_back(where: Started, of: LiveRecording, moment: LiveMoment) -> None:
    now_votes.take_back(opened(where), of, moment, where.rater)
