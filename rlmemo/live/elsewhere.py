"""Plans from a server of one's own (`rlmemo.serve`), and from the shipped base while it is away.

Every event goes there, with names hashed unless told otherwise; what is answered is done here. The shipped
base follows along, so that it plans at once where no answer comes in time, and the server is told afterwards
what was planned without it. The recording here is what counts: where the server knows something else (because
something was forgotten here), it is told to forget that, and gets all anew.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from env.errors import InputError
from env.judge.cost_presets import PRESETS
from env.judge.world_options import WorldOptions
from env.sources.names import clean_name
from env.timeline import Event
from rlmemo.live.mind import Minding, Thought
from rlmemo.options import world_given
from rlmemo.policies.registry import to_follow
from rlmemo.runs.atomic import write_atomic
from rlmemo.serve.chain import Chain
from rlmemo.serve.client import Differs, Server, ServerAway
from rlmemo.serve.secret import secret_of
from rlmemo.serve.thumbs_sent import Sent, digest, sent_of
from rlmemo.serve.told import ToldMind
from rlmemo.store.live_ledger import LivePlan, LiveRow
from rlmemo.store.records import Prewarm

if TYPE_CHECKING:
    from env.thumbs import Thumbs
    from rlmemo.policies.run import Setup

SALT_FILE, ABOUT_FILE = "device.salt", "device.server.json"
TRY_S, RETRY_S = 2.0, 5.0
"""How long answers for one event may take; how long a server that was away is left alone."""
FIRST_S = 10.0
BATCH = 200
HASH = 20  # hex digits of a hashed name


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def is_address(policy: str) -> bool:
    """Whether `--policy` names a server."""
    return policy.startswith(("http://", "https://"))


@dataclass(frozen=True)
class Names:
    """What a server is told instead of names. plain: targets as they are."""

    salt: bytes
    plain: bool = False

    def target(self, name: str) -> str:
        """A target's."""
        return name if self.plain else "x" + self._hash("target", name)

    def person(self, user: str) -> str:
        """A recording's, of this device."""
        return "d" + self._hash("person", user)

    def event(self, row: LiveRow) -> str:
        """An event's."""
        return self._hash("event", f"{row.id} {row.event.t!r} {row.event.target}")

    def _hash(self, what: str, name: str) -> str:
        return hmac.new(self.salt, f"{what} {name}".encode(), hashlib.sha256).hexdigest()[:HASH]


@dataclass
class Logged:
    """An event to be sent, and what was decided after it here."""

    event: Event
    off: float
    done: LivePlan | None


@dataclass(frozen=True)
class FarMinding(Minding):
    """What a mind is made of that asks a server. setup: the shipped base, in the server's world."""

    server: Server | None = None
    names: Names = Names(b"")
    say: Callable[[str], None] = _to_stderr

    def mind(self) -> FarMind:
        """A mind that has seen nothing."""
        return FarMind(self)


class FarMind(ToldMind):
    """Follows one recording, and asks a server what to plan; see the module."""

    made: FarMinding

    def __init__(self, made: FarMinding) -> None:
        super().__init__(made)
        self._log: list[Logged] = []
        self._chain = Chain()
        self._name_of: dict[str, str] = {}
        self._known: int | None = None
        self._said: Sent = []
        self._said_digest = ""
        self._heard_there: str | None = None
        self._again_at = 0.0
        self._path = f"/v1/people/{made.names.person(clean_name(made.user))}"

    def restore(self, rows: Sequence[LiveRow]) -> None:
        """As `Mind.restore`; what was decided is told to the server with the next event."""
        super().restore(rows)
        followed = set(self._rows)
        for row in rows:
            if row.id in followed:
                self._note(
                    row, LivePlan("base", self.made.version, row.plan, row.let_go, made_at=row.event.t)
                )

    def hear(self, thumbs: Thumbs | None) -> None:
        """As `Mind.hear`, for the shipped base; the server is told with the next event."""
        super().hear(thumbs)
        self._said = sent_of(thumbs, self.made.names.target)
        self._said_digest = digest(self._said)

    def think(self, row: LiveRow, told: LivePlan | None = None) -> Thought:
        """Take in the next event, and decide as the server says, else as the shipped base does."""
        logged = self._note(row, None)
        thought = super().think(row, told or self._asked())
        logged.done = replace(thought.plan, probabilities={})
        return thought

    def _note(self, row: LiveRow, done: LivePlan | None) -> Logged:
        off = row.off
        logged = Logged(row.event, off, done)
        self._log.append(logged)
        self._chain.add(self.made.names.event(row))
        self._name_of[self.made.names.target(row.event.target)] = row.event.target
        return logged

    def _asked(self) -> LivePlan | None:
        """What the server plans after the latest event; None where it does not say so in time."""
        if time.monotonic() < self._again_at:
            return None
        try:
            plan = self._caught_up(time.monotonic() + TRY_S)
        except (ServerAway, Differs) as error:
            self._again_at = time.monotonic() + RETRY_S
            self._say(f"{error}; the shipped base plans meanwhile")
            return None
        if plan is None:
            self._say(
                f"{self.server.address} is told what it does not know yet; the shipped base plans meanwhile"
            )
        else:
            self._say("")
        return plan

    @property
    def server(self) -> Server:
        """Who is asked."""
        assert self.made.server is not None
        return self.made.server

    def _caught_up(self, until: float) -> LivePlan | None:
        """Send what is not known there; the plan after the latest event, None where time ran out."""
        known = self._standing() if self._known is None else self._known
        anew = False
        while True:
            self._tell_said()
            batch = self._log[known : known + BATCH]
            body = {
                "tz": self.made.tz, "memory_mb": self.made.budget_mb,
                "after": {"events": known, "digest": self._chain.digest(known)},
                "events": [self._message(known + k, x) for k, x in enumerate(batch)],
            }  # fmt: skip
            try:
                answer = self.server.ask("POST", f"{self._path}/events", body)
            except Differs:
                if anew:
                    raise
                anew, known = True, self._standing(anew=True)
                continue
            known += len(batch)
            self._heard_there = answer.get("thumbs")
            if known == len(self._log):
                plan = self._read(answer.get("plan"))
                self._known = known
                return plan
            self._known = known
            if time.monotonic() >= until:
                return None

    def _tell_said(self) -> None:
        """Tell the server what was said, unless it knows, or is too old to mind it."""
        if self._heard_there is None or self._heard_there == self._said_digest:
            return
        body = {"tz": self.made.tz, "memory_mb": self.made.budget_mb, "thumbs": self._said}
        there = self.server.ask("PUT", f"{self._path}/thumbs", body)
        self._heard_there = str(there.get("thumbs"))

    def _standing(self, *, anew: bool = False) -> int:
        """How many of our events the server knows, less the last of them: its plan may not be what was done.
        Where it knows something else, or `anew`, it forgets all."""
        there = self.server.ask("GET", self._path)
        count, heard = there.get("events"), there.get("thumbs")
        self._heard_there = heard if isinstance(heard, str) else None
        if not isinstance(count, int) or count < 0:
            raise ServerAway(f"what answers at {self.server.address} is no rlmemo.serve")
        agreed = count <= len(self._log) and there.get("digest") == self._chain.digest(count)
        zone = there.get("tz") in (None, self.made.tz)
        if count and (anew or not agreed or not zone):
            self.server.ask("DELETE", self._path, timeout=FIRST_S)
            self._heard_there = None if self._heard_there is None else ""
            return 0
        return max(0, count - 1)

    def _message(self, place: int, logged: Logged) -> dict[str, Any]:
        event, said = logged.event, self.made.names.target
        message: dict[str, Any] = {
            "id": self._chain.ids[place], "t": event.t, "target": said(event.target), "kind": event.kind
        }  # fmt: skip
        if math.isfinite(logged.off):
            message["off"] = logged.off
        if logged.done is not None:
            message["done"] = {
                "policy": logged.done.policy, "policy_version": logged.done.policy_version,
                "prewarms": [
                    {"target": said(p.target), "delay_s": float(p.delay_s)} for p in logged.done.plan
                ],
                "let_go": [said(x) for x in logged.done.let_go],
                "made_at": max(0.0, float(logged.done.made_at)),
            }  # fmt: skip
        return message

    def _read(self, plan: Any) -> LivePlan:
        """A plan with the names of this device. Raises ServerAway for what is none."""
        try:
            none = plan["none_probability"]
            return LivePlan(
                str(plan["policy"]), str(plan["policy_version"]),
                [
                    Prewarm(self._name_of[p["target"]], float(p["delay_s"]))
                    for p in plan["prewarms"]
                    if p["target"] in self._name_of
                ],
                [self._name_of[x] for x in plan["let_go"] if x in self._name_of],
                {self._name_of[x]: float(p) for x, p in plan["probabilities"].items() if x in self._name_of},
                None if none is None else float(none),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ServerAway(f"what answers at {self.server.address} is no rlmemo.serve") from None

    def _say(self, what: str) -> None:
        """Say once that something is wrong, and once that it is right again."""
        if what != self.trouble:
            self.trouble = what
            self.made.say(what or f"{self.server.address} plans again")


@dataclass(frozen=True)
class Reached:
    """A server, and the shipped base in its world. folder: the device's own; plain: see `Names`; told: what
    the server said of itself."""

    server: Server
    setup: Setup
    folder: Path
    plain: bool
    told: Mapping[str, Any]

    def names(self) -> Names:
        """What the server is told instead of names. The salt is made where there is none."""
        return Names(secret_of(self.folder / SALT_FILE)[0].encode(), self.plain)

    def minding(self, near: Minding) -> FarMinding:
        """The same minding, with this server asked; what it said of itself is kept for a start without it."""
        write_atomic(self.folder / ABOUT_FILE, json.dumps(self.told))
        given = {f.name: getattr(near, f.name) for f in fields(Minding)}
        return FarMinding(**given, server=self.server, names=self.names())


def reach(args: argparse.Namespace, db: Path) -> Reached:
    """The server that `--policy` names; nothing is written yet. Where it is away, what it said at an earlier
    start counts. Raises InputError where that is not known either, or where something is given here that is
    the server's."""
    given = [*world_given(args), *(["threshold"] if args.threshold is not None else [])]
    if given:
        named = ", ".join("--" + x.replace("_", "-") for x in given)
        raise InputError(f"{named}: this is the server's to say; give it to python -m rlmemo.serve")
    folder = db.expanduser().resolve().parent
    server = Server(args.policy, folder)
    if server.warning:
        _to_stderr(server.warning)
    try:
        answer = server.ask("GET", "/v1/about", timeout=FIRST_S)
        world = dict(answer["world"])
        told: dict[str, Any] = {"address": server.address, "policy": str(answer["policy"]), "world": world}
    except (ServerAway, Differs, KeyError, TypeError, ValueError) as error:
        told = _told_before(folder)
        if told.get("address") != server.address:
            raise InputError(f"{error}; at the first start it has to be there, later it need not") from None
        _to_stderr(f"{error}; the shipped base plans meanwhile")
    rules = WorldOptions.of(told["world"])
    if rules.costs not in PRESETS:  # a file there; what is waited for here is judged by the usual costs
        rules = replace(rules, costs=WorldOptions.costs)
    return Reached(server, to_follow("base", asdict(rules)), folder, args.names, told)


def _told_before(folder: Path) -> dict[str, Any]:
    """What a server said of itself at an earlier start; nothing where none did, or it cannot be read."""
    try:
        found = json.loads((folder / ABOUT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("world"), dict) else {}
