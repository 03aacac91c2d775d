"""A second recording of the same person adds to the first: overlap without doubles, and `--replace`."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from env.errors import InputError
from env.sources import ImportReport, Loaded, load_timelines
from env.timeline import Event, Timeline
from rlmemo import timelines
from rlmemo.approval.placed_ratings import place_ratings, read_ratings
from rlmemo.predict import Options, predict
from rlmemo.store.database import Store, open_store
from rlmemo.store.forgetting import forget_recording
from rlmemo.store.records import Prediction, Prewarm
from tests.shared_cases import case

T = 1_767_600_000.0  # 2026-01-05T08:00Z


def recording(*opened: tuple[float, str], user: str = "ada", tz: str = "UTC", known: bool = True) -> Loaded:
    events = [Event(T + t, target) for t, target in opened]
    timeline = Timeline.from_events(user, events, tz=tz, tz_known=known)
    return Loaded("history.csv", [timeline], ImportReport("history.csv"))


def held(store: Store, user: str = "ada") -> list[tuple[float, str]]:
    rows = store.rows(
        """SELECT t, target FROM events JOIN timelines ON timelines.id = timeline_id WHERE user = ?
           ORDER BY t, events.id""",
        [user],
    )
    return [(r["t"] - T, r["target"]) for r in rows]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "memo.db")


def test_two_months_of_one_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    jan, feb = (str(case(f"timelines/23/{month}/history.csv")) for month in ("jan", "feb"))
    timelines.main(["import", jan])
    assert "rlmemo.db: 3 events of 1 user written" in capsys.readouterr().out
    timelines.main(["import", feb])
    out = capsys.readouterr().out
    assert "rlmemo.db: 2 new events of 1 user added to 3\n" in out
    assert "held before: 3 events of ada, 2026-01-05 to 2026-01-05" in out
    (both,) = load_timelines("rlmemo.db", collapsed=False).timelines
    assert [e.target for e in both] == ["Mail", "Notes", "Maps", "Mail", "Notes"]
    assert both.t.tolist() == [1767600000, 1767600060, 1767600120, 1770278400, 1770278460]
    timelines.main(["import", feb])
    assert "rlmemo.db: 0 new events of 1 user: all 2 were there already" in capsys.readouterr().out
    timelines.main(["import", feb, "--replace"])
    out = capsys.readouterr().out
    assert "rlmemo.db: 2 events of 1 user written, in place of 5 from an earlier import" in out
    assert "replaced: 5 events of ada, 2026-01-05 to 2026-02-05" in out
    (one,) = load_timelines("rlmemo.db", collapsed=False).timelines
    assert one.t.tolist() == [1770278400, 1770278460]


def test_overlap_is_stored_once_and_importing_again_changes_nothing(store: Store) -> None:
    first = store.add_timelines(recording((0, "A"), (60, "B"), (120, "C")))
    second = store.add_timelines(recording((60, "B"), (90, "X"), (120, "C"), (180, "D")))
    assert (first.events, first.known, second.events, second.known) == (3, 0, 2, 2)
    assert held(store) == [(0, "A"), (60, "B"), (90, "X"), (120, "C"), (180, "D")]
    before = store.rows("SELECT * FROM events"), store.rows("SELECT * FROM timelines")
    again = store.add_timelines(recording((60, "B"), (90, "X"), (120, "C"), (180, "D")))
    assert (again.events, again.known) == (0, 4)
    assert (store.rows("SELECT * FROM events"), store.rows("SELECT * FROM timelines")) == before


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ("ABA", "ABA", "ABA"),
        ("AB", "ABA", "ABA"),
        ("ABA", "AB", "ABA"),
        ("A", "BA", "BA"),
        ("AA", "A", "AA"),
        ("A", "AAA", "AAA"),
        ("BC", "ABC", "ABC"),
        ("AC", "ABC", "ABC"),
        ("AB", "BC", "ABC"),
        ("ABAB", "BABA", "ABAB"),
    ],
)
def test_openings_within_one_second_are_counted_and_keep_the_order_of_their_file(
    store: Store, first: str, second: str, both: str
) -> None:
    store.add_timelines(recording(*((0, x) for x in first)))
    store.add_timelines(recording(*((0, x) for x in second)))
    assert "".join(target for _, target in held(store)) == both


OPENED = st.lists(st.tuples(st.integers(0, 3).map(float), st.sampled_from("AB")), min_size=1, max_size=8)


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(OPENED, min_size=1, max_size=4))
def test_any_recordings_make_the_most_that_one_of_them_tells(
    tmp_path_factory: pytest.TempPathFactory, recordings: list[list[tuple[float, str]]]
) -> None:
    with open_store(tmp_path_factory.mktemp("merge") / "memo.db") as store:
        for opened in recordings:
            store.add_timelines(recording(*opened))
        found = held(store)
        assert {x: found.count(x) for x in found} == {
            x: max(opened.count(x) for opened in recordings) for opened in recordings for x in opened
        }
        assert [t for t, _ in found] == sorted(t for t, _ in found)
        for opened in recordings:
            assert store.add_timelines(recording(*opened)).events == 0


def test_kind_and_device_tell_openings_apart_and_what_is_stored_keeps_its_duration(store: Store) -> None:
    def loaded(*events: Event) -> Loaded:
        return Loaded("s", [Timeline.from_events("ada", events, tz_known=True)], ImportReport("s"))

    store.add_timelines(loaded(Event(T, "A", "app", 5.0, "phone")))
    again = store.add_timelines(
        loaded(Event(T, "A", "app", 5.0, "tablet"), Event(T, "A", "file", 5.0, "phone"))
    )
    assert (again.events, again.known) == (2, 0)
    more = store.add_timelines(loaded(Event(T, "B"), Event(T, "A", "app", None, "phone")))
    assert (more.events, more.known) == (1, 1)
    assert store.one("SELECT duration FROM events WHERE device = 'phone' AND kind = 'app'") == 5.0


def test_who_is_not_in_the_second_recording_stays(store: Store) -> None:
    two = recording((0, "A")), recording((0, "A"), user="bo")
    store.add_timelines(replace(two[0], timelines=[x for r in two for x in r.timelines]))
    gone = store.add_timelines(recording((60, "B")), replace=True)
    assert [(x.user, x.events, x.first, x.last) for x in gone.gone] == [
        ("ada", 1, "2026-01-05", "2026-01-05")
    ]
    assert (held(store), held(store, "bo")) == ([(60, "B")], [(0, "A")])


def test_all_of_it_or_nothing(store: Store) -> None:
    store.add_timelines(recording((0, "A")))
    good, bad = recording((60, "B")), recording((60, "B"), user="bo")
    bad.timelines[0].t[0] = float("nan")
    for instead in (False, True):
        with pytest.raises(InputError, match="cannot be stored"):
            store.add_timelines(replace(good, timelines=[*good.timelines, *bad.timelines]), replace=instead)
        assert held(store) == [(0, "A")]


def test_predictions_and_ratings_stay_with_their_timeline(store: Store) -> None:
    store.add_timelines(recording((0, "A"), (60, "B")))
    (row,) = store.timelines()
    identity = store.add_prediction(
        Prediction("ada", T, "mfu", "1", "", (Prewarm("B"),), {"B": 0.5}, 0.5, timeline_id=row.id)
    )
    store.rate(identity, "me", 1)
    store.add_timelines(recording((0, "X"), (0, "A"), (120, "C")))
    store.add_timelines(recording((0, "A")), replace=True)
    assert store.prediction(identity).timeline_id == row.id
    assert [x.id for x in store.timelines()] == [row.id]
    assert [r.thumbs for r in store.ratings()] == [1]


# time zones


def test_a_zone_that_was_not_known_is_taken_from_either(store: Store) -> None:
    store.add_timelines(recording((0, "A"), known=False))
    known = store.add_timelines(recording((0, "A"), (60, "B"), tz="Europe/Berlin"))
    assert known.notes == ("ada: the time zone, not known before, is Europe/Berlin",)
    stays = store.add_timelines(recording((120, "C"), known=False))
    assert stays.notes == ("ada: the time zone stays Europe/Berlin, as stored",)
    (row,) = store.timelines()
    assert (row.tz, row.tz_known, row.events) == ("Europe/Berlin", True, 3)


def test_two_zones_are_refused(store: Store) -> None:
    store.add_timelines(recording((0, "A"), tz="Europe/Berlin"))
    with pytest.raises(InputError, match=r"time zone Europe/Berlin, .* has Asia/Tokyo; nothing .* --replace"):
        store.add_timelines(recording((60, "B"), tz="Asia/Tokyo"))
    assert held(store) == [(0, "A")]
    store.add_timelines(recording((60, "B"), tz="Asia/Tokyo"), replace=True)
    assert (held(store), store.timelines()[0].tz) == ([(60, "B")], "Asia/Tokyo")


def test_local_times_read_in_another_zone_are_no_second_recording(store: Store) -> None:
    opened = [(600.0 * i, "AB"[i % 2]) for i in range(40)]
    store.add_timelines(recording(*opened, known=False))
    with pytest.raises(InputError, match="other times in the same days"):
        store.add_timelines(recording(*((t - 3601, x) for t, x in opened), tz="Europe/Berlin"))
    assert len(held(store)) == 40


# from the command line, and large


def test_another_database_adds_too_and_its_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_store("phone.db") as s:
        s.add_timelines(recording((0, "A"), (60, "B")))
    timelines.main(["import", "phone.db"])
    with open_store("phone.db") as s:
        s.add_timelines(recording((90, "C")))
    timelines.main(["import", "phone.db"])
    assert "1 new event of 1 user added to 2; 2 were there already" in capsys.readouterr().out
    assert [e.target for e in load_timelines("rlmemo.db").timelines[0]] == ["A", "B", "C"]
    with pytest.raises(InputError, match="holds these timelines already"):
        timelines.main(["import", "rlmemo.db"])


def test_a_large_recording_is_merged_in_seconds(store: Store) -> None:
    def many(start: int) -> Loaded:
        return recording(*((float(i // 2), f"App{i % 50}") for i in range(start, start + 100_000)))

    store.add_timelines(many(0))
    began = time.perf_counter()
    second = store.add_timelines(many(50_000))
    assert time.perf_counter() - began < 15.0
    assert (second.events, second.known) == (50_000, 50_000)
    assert store.timelines()[0].events == 150_000


def on(device: str, *opened: tuple[float, str]) -> Loaded:
    events = [Event(T + t, target, device=device or None) for t, target in opened]
    timeline = Timeline.from_events("ada", events, tz="UTC", tz_known=True)
    return Loaded("history.csv", [timeline], ImportReport("history.csv"))


@pytest.mark.parametrize(("first", "second", "new"), [("", "pc", 0), ("pc", "", 0), ("pc", "phone", 2)])
def test_a_recording_that_names_no_device_tells_of_the_same(
    store: Store, first: str, second: str, new: int
) -> None:
    store.add_timelines(on(first, (0, "A"), (60, "B")))
    assert store.add_timelines(on(second, (0, "A"), (60, "B"))).events == new


def test_the_device_that_is_named_is_matched_first(store: Store) -> None:
    store.add_timelines(on("pc", (0, "A")))
    store.add_timelines(on("phone", (0, "A")))
    both = on("", (0, "A"))
    phone = on("phone", (0, "A")).timelines[0]
    assert store.add_timelines(on("phone", (0, "A"))).events == 0
    assert store.add_timelines(replace(both, timelines=[phone])).events == 0
    assert store.add_timelines(both).events == 0
    assert len(held(store)) == 2


@pytest.mark.parametrize("path_first", [True, False])
def test_pages_as_hosts_and_with_paths_do_not_mix(tmp_path: Path, path_first: bool) -> None:
    (tmp_path / "mine.csv").write_text(
        f"user,t,target\nada,{T},https://x.example/a\nada,{T + 5},https://x.example/b\n"
    )
    one, other = (["--page", "path"], []) if path_first else ([], ["--page", "path"])
    args = ["import", str(tmp_path / "mine.csv"), "--db", str(tmp_path / "memo.db")]
    timelines.main([*args, *one])
    with pytest.raises(InputError, match=r"give the other --page, --replace .* or another --name"):
        timelines.main([*args, *other])
    assert timelines.main([*args, *one]) == 0
    assert timelines.main([*args, *other, "--replace"]) == 0
    with open_store(tmp_path / "memo.db") as store:
        assert len(held(store)) == 2


def test_another_file_name_of_the_same_person_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my jan.csv").write_text(f"user,t,target\nada,{T},A\n")
    (tmp_path / "feb.csv").write_text(f"user,t,target\nada,{T + 9},B\nbo,{T},B\n")
    db = ["--db", str(tmp_path / "memo.db")]
    timelines.main(["import", str(tmp_path / "my jan.csv"), *db])
    assert "as well" not in capsys.readouterr().out
    timelines.main(["import", str(tmp_path / "feb.csv"), *db])
    assert "note: ada is stored from my jan.csv as well, and this is another" in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "60")
    timelines.main(["import", str(tmp_path / "feb.csv"), *db, "--name", "mar.csv"])
    notes = capsys.readouterr().out.split("note: ada")[1].split("next:")[0]
    assert max(map(len, notes.split("\n"))) <= 60
    timelines.main(["import", str(tmp_path / "feb.csv"), *db, "--name", "my jan.csv"])
    out = capsys.readouterr().out
    assert "2 new events of 2 users added to 1" in out


def test_votes_find_their_person_when_another_recording_of_that_name_comes(tmp_path: Path) -> None:
    """Whoever was there first keeps the name; an older version renamed both then, and predictions in between
    are of a person called by file and name."""
    rows = "".join(f"me,{T + 600 * k},{'AB'[k % 2]}\n" for k in range(40))
    (tmp_path / "mine.csv").write_text(f"user,t,target\n{rows}")
    db = tmp_path / "memo.db"
    timelines.main(["import", str(tmp_path / "mine.csv"), "--tz", "UTC", "--db", str(db)])
    with open_store(db) as store:
        (mine,) = store.timelines()
        for k, called in enumerate(("me", "mine.csv/me")):
            made = Prediction(
                user=called, t=T + 600.0 * k, policy="mfu", policy_version="1", state="", probabilities={},
                plan=[Prewarm("AB"[(k + 1) % 2], 0.0)], propensity=1.0, timeline_id=mine.id,
            )  # fmt: skip
            store.rate(store.add_prediction(made), "me", 1, key=str(k))

        def placed() -> list[str]:
            found = load_timelines(str(db)).timelines
            return [found[p.user].user for p in place_ratings(read_ratings(store), found).placed]

        assert placed() == ["me", "me"]
        (tmp_path / "a.csv").write_text(f"user,t,target\nme,{T},A\nme,{T + 600},B\nme,{T + 1200},A\n")
        timelines.main(["import", str(tmp_path / "a.csv"), "--tz", "UTC", "--db", str(db)])
        assert [x.user for x in load_timelines(str(db)).timelines] == ["a.csv/me", "me"]
        assert placed() == ["me", "me"]
        assert predict(store, str(db), "markov1", Options(n=4, part="test", still=True))
        called_by = {p.timeline_id: p.user for p in store.predictions() if p.policy == "markov1"}
        assert called_by[mine.id] == "me"
        assert forget_recording(store, "mine.csv", "me").ratings == 2
        assert [x.user for x in load_timelines(str(db)).timelines] == ["me"]
        assert placed() == []
