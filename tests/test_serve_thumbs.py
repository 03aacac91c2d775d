"""What is said at a device reaches its server's next plan: hashed, once however often it is sent, and later
where the server was away."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_watch import FakeServer, T

from env.thumbs import Thumb, Thumbs
from rlmemo.live.activitywatch import BucketReader
from rlmemo.live.loop import Loop
from rlmemo.live.mind import Mind
from rlmemo.serve.thumbs_sent import MOST, MOST_CHARACTERS, digest, sent_of, thumbs_of
from rlmemo.store.database import open_store
from rlmemo.store.live_ledger import NOT_YET, LiveLedger, Seen
from rlmemo.store.now import recordings, standing
from rlmemo.store.now_votes import take_back, vote
from tests.test_live_loop import StillClock, one_day
from tests.test_live_mind import TZ, Said, a_person
from tests.test_serve import Device, Served, impatient, planned, served

__all__ = ["impatient", "served"]


def no_to(*targets: str, hit: bool | None = False) -> Thumbs:
    """Somebody said no to plans with each of these, six times."""
    return Thumbs.of([Thumb(-math.inf, h, False, hit, (x,)) for x in targets for h in (8, 9, 12, 15, 18, 21)])


def plans(mind: Mind, ledger: LiveLedger, heard: Mapping[int, Thumbs | None]) -> Said:
    """The plans after each event; heard: what is said before some of them."""
    made = []
    for k, row in enumerate(list(ledger.rows())):
        if k in heard:
            mind.hear(heard[k])
        thought = mind.think(row)
        if row.planned == NOT_YET:
            assert ledger.decide(row, thought.plan, thought.record, thought.came, at=row.event.t)
        made.append(([p.target for p in thought.plan.plan], list(thought.plan.let_go)))
    return made


def test_the_server_plans_as_a_device_that_heard_it_itself(
    served: Callable[..., Served], tmp_path: Path
) -> None:
    server, person = served("base"), a_person(150)
    device = Device(server, tmp_path / "device")
    often = [person.names[k] for k in np.argsort(-np.bincount(person.target))[:2]]
    heard = {70: no_to(*often), 110: no_to(often[0], hit=None), 130: None}
    with open_store(device.db) as store:
        ledger = LiveLedger(store, "me", TZ)
        ledger.add([Seen(f"{k}", e) for k, e in enumerate(person)], at=0.0)
        found = plans(device.minding().mind(), ledger, heard)
        expected, deaf = (plans(Mind(planned("base")), ledger, x) for x in (heard, {}))
    assert found == expected
    changed = [k for k in range(150) if found[k] != deaf[k]]
    assert len(changed) > 5
    assert changed[0] >= 70
    assert (set(device.policies()), device.said) == ({"base"}, [])
    assert server.ask("GET", f"/v1/people/{device.person}", token=server.token)[1]["thumbs"] == ""
    server.kill()
    wrote = b"".join(x.read_bytes() for x in server.folder.iterdir())
    assert [x for x in person.names if x.encode() in wrote] == []


@pytest.mark.usefixtures("impatient")
def test_what_was_said_while_the_server_was_away_it_is_told_later(
    served: Callable[..., Served], tmp_path: Path
) -> None:
    """And it knows it after its own death, too."""
    server, person = served("base"), a_person(60)
    device = Device(server, tmp_path / "device")
    said = no_to(person.names[0], person.names[1])

    def there() -> Any:
        return server.ask("GET", f"/v1/people/{device.person}", token=server.token)[1]["thumbs"]

    with open_store(device.db) as store:
        ledger = LiveLedger(store, "me", TZ)
        ledger.add([Seen(f"{k}", e) for k, e in enumerate(person)], at=0.0)
        mind, rows = device.minding().mind(), list(ledger.rows())
        for k, row in enumerate(rows):
            if k == 20:
                server.kill()
                mind.hear(said)
            if k in (30, 40):
                server.kill()
                server.begin()
                assert (there() == "") == (k == 30)
            thought = mind.think(row)
            assert ledger.decide(row, thought.plan, thought.record, thought.came, at=row.event.t)
            if k == 30:  # with the next event
                assert there() == digest(sent_of(said, device.reached.names().target))
        mind.hear(None)  # taken back
        ledger.add([Seen("more", person.event(0).__class__(person.t[-1] + 60.0, "something new"))], at=0.0)
        *_, row = ledger.rows()
        mind.think(row)
        assert there() == ""


def test_a_vote_on_the_page_goes_there_and_undo_as_well(
    served: Callable[..., Served], tmp_path: Path
) -> None:
    server = served("base")
    device = Device(server, tmp_path / "device")
    watch, clock = FakeServer(), StillClock()

    def there() -> Any:
        return server.ask("GET", f"/v1/people/{device.person}", token=server.token)[1]["thumbs"]

    with open_store(device.db) as store, open_store(device.db) as page:
        loop = Loop(
            LiveLedger(store, "me", TZ), BucketReader(watch, T - 1.0), device.minding(), None, clock, T - 1.0
        )
        for k in range(30):
            one_day(watch, clock, k)
            loop.turn()
        (of,) = recordings(page)
        how = standing(page, of, clock.now())
        assert there() == ""
        assert vote(page, of, how, how.moments[0], "me", 0, 0)
        one_day(watch, clock, 30)
        loop.turn()
        told = there()
        assert told
        one_day(watch, clock, 31)
        loop.turn()
        assert there()
        take_back(page, of, how.moments[0], "me")
        one_day(watch, clock, 32)
        loop.turn()
        assert there() == ""


def test_what_is_sent_counts_once_and_what_cannot_be_read_is_refused(served: Callable[..., Served]) -> None:
    server = served()
    path, one = "/v1/people/me/thumbs", {"hour": 9, "up": False, "hit": None, "targets": ["a", "b"]}

    def put(*thumbs: Any, token: str | None = server.token, **more: Any) -> tuple[int, Any]:
        return server.ask("PUT", path, {"tz": "UTC", "thumbs": list(thumbs), **more}, token=token)

    assert put(one, token=None)[0] == 401
    assert put(one, token="x" * 40)[0] == 401
    status, first = put(one)
    assert (status, first["thumbs"]) == (200, digest([one]))
    assert put(one) == (200, first)
    bad = (
        {**one, "hour": 24}, {**one, "up": 1}, {**one, "hit": "yes"}, {**one, "targets": "a"},
        {**one, "targets": [""]}, {**one, "more": 1}, {"up": True}, 3,
    )  # fmt: skip
    for wrong in bad:
        status, said = put(one, wrong)
        assert status == 422, wrong
        assert "\n" not in said["error"]
    assert put(one, tz="Nowhere/At all")[0] == 422
    assert put(*[one] * (MOST + 1))[0] in (413, 422)
    assert server.ask("GET", "/v1/people/me", token=server.token)[1]["thumbs"] == digest([one])
    assert put()[1]["thumbs"] == ""
    path = "/v1/people/me%2F../thumbs"
    assert put()[0] in (404, 422)


def test_there_and_back_it_is_the_same_and_of_very_many_the_latest_go() -> None:
    few = Thumbs.of([Thumb(-math.inf, 3, True, None, ("a",)), Thumb(-math.inf, 4, False, True, ("b", "c"))])
    back = thumbs_of(sent_of(few, str))
    assert back is not None
    assert back.targets == few.targets
    for name in ("since", "hour", "up", "hit"):
        np.testing.assert_array_equal(getattr(back, name), getattr(few, name))
    assert thumbs_of(sent_of(None, str)) is None
    many = Thumbs.of(Thumb(-math.inf, k % 24, True, None, (f"t{k}",)) for k in range(MOST + 9))
    assert [x["targets"] for x in sent_of(many, str)][:: MOST - 1] == [["t9"], [f"t{MOST + 8}"]]
    long = sent_of(many, lambda x: x * 100)
    assert len(str(long)) < MOST_CHARACTERS
    assert long[-1]["targets"] == [f"t{MOST + 8}" * 100]
