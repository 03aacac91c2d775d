"""Votes as a list and as a table: found, changed, taken back, exported; and what raters set up."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from predictions_to_rate import fill

from env.errors import InputError
from env.sources import load_timelines
from rlmemo.approval.placed_ratings import read_ratings
from rlmemo.evaluation.after_vote import after_vote
from rlmemo.policies.registry import to_follow
from rlmemo.predict import Options, predict
from rlmemo.store import forgetting, raters, ratings, votes
from rlmemo.store.database import Store, open_store
from rlmemo.store.votes import Sought

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(fill(tmp_path / "a.db", 12)) as opened:
        yield opened


def vote(store: Store, thumbs: int, reason: str = "", rater: str = "me") -> ratings.Rated:
    showing = ratings.open_showing(store, rater) or ratings.show_next(store, rater, 0.0)
    assert showing is not None
    ratings.rate(store, showing, thumbs)
    last = ratings.latest(store, rater)
    assert last is not None
    if reason:
        ratings.explain(store, last, reason)
        last = ratings.latest(store, rater)
        assert last is not None
    return last


def test_a_changed_vote_counts_instead_and_says_that_the_outcome_was_known(store: Store) -> None:
    first = vote(store, 0, "wrong thing")
    (before,) = read_ratings(store)
    ratings.change(store, first, 1)
    ratings.change(store, first, 1)  # a double click
    (now,) = store.ratings()
    assert (now.thumbs, now.reason, now.blind) == (1, "", 0)
    assert store.one("SELECT COUNT(*) FROM ratings") == 3
    (read,) = read_ratings(store)
    assert (read.share, read.pool) == (before.share, before.pool)  # it was given on the same showing
    assert read.share is not None
    last = ratings.latest(store, "me")
    assert last is not None
    ratings.change(store, last, 0)
    assert [r.thumbs for r in store.ratings()] == [0]
    last = ratings.latest(store, "me")
    assert last is not None
    ratings.withdraw(store, last)
    assert store.ratings() == []


def test_votes_are_found(store: Store) -> None:
    for k in range(6):
        vote(store, k % 2, "too LOUD" if k == 3 else "")
    other = ratings.show_next(store, "ada", 0.0)
    mine = {r.prediction_id: r.thumbs for r in store.ratings(rater="me")}
    while other is not None and other.moment.id not in mine:
        ratings.skip(store, other)
        other = ratings.show_next(store, "ada", 0.0)
    assert other is not None
    ratings.rate(store, other, 1 - mine[other.moment.id])

    def found(sought: Sought, **pages: int) -> list[int]:
        n, some = votes.votes(store, "me", sought, **pages)
        assert n >= len(some)
        return [r.rating.prediction_id for r in some]

    assert found(Sought()) == list(mine)[::-1]
    assert found(Sought(), limit=2, skipped=1) == list(mine)[::-1][1:3]
    assert found(Sought(thumbs=1)) == [p for p in list(mine)[::-1] if mine[p]]
    assert len(found(Sought(policy="markov1"))) == 6
    assert found(Sought(policy="base")) == []
    assert found(Sought(text="loud")) == found(Sought(reasons=True)) == [list(mine)[3]]
    assert len(found(Sought(text="NEWS.ex"))) == 6
    assert found(Sought(text="nothing has this")) == []
    assert found(Sought(disputed=True)) == [other.moment.id]
    assert votes.votes(store, "nobody", Sought()) == (0, [])


def test_the_table_holds_what_was_said_and_no_formula(store: Store, tmp_path: Path, cli: Cli) -> None:
    vote(store, 1, '=cmd|"x", and a "quote"')
    taken = vote(store, 0)
    ratings.withdraw(store, taken)
    vote(store, 0, rater="ada")
    done = cli("rlmemo.feedback", "export", "--db", str(store.path))
    assert (done.returncode, done.stderr) == (0, "2 ratings\n")
    assert done.stdout == "".join(votes.table(store))
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [tuple(r) for r in rows] == [votes.COLUMNS] * 2
    assert [(r["rater"], r["thumbs"], r["blind"]) for r in rows] == [
        ("me", "up", "yes"),
        ("ada", "down", "yes"),
    ]
    first = rows[0]
    assert first["reason"] == '\'=cmd|"x", and a "quote"'
    assert (first["plan"], first["delays_s"]) == ("Chat | news.example", "0 | 300")
    assert (first["opened_next"], first["prewarms"]) == ("Chat", "hit | wasted")
    assert first["moment"].endswith("+02:00")
    assert (first["time_zone"], first["open_then"], first["person"]) == ("Europe/Berlin", "Editor", "ada")
    assert cli("rlmemo.feedback", "export", "--db", str(store.path), "--csv", "r.csv").stdout == ""
    assert (tmp_path / "r.csv").read_text() == done.stdout
    assert (tmp_path / "r.csv").stat().st_mode & 0o777 == 0o600


def test_show_as_json_alone(store: Store, tmp_path: Path, cli: Cli) -> None:
    vote(store, 1)
    for last in ([], ["-"]):
        done = cli("rlmemo.feedback", "show", "--db", str(store.path), "--json", *last)
        assert json.loads(done.stdout)["ratings"] == 1
        assert "1 ratings that count" in done.stderr
    assert not (tmp_path / "-").exists()


def test_what_raters_set_up(store: Store) -> None:
    assert (raters.guidelines(store), raters.goal(store, "me"), raters.raters(store)) == ("", 20, [])
    raters.write_guidelines(store, "  *Ask* “twice”. ")
    raters.set_goal(store, "me", 7)
    assert (raters.goal(store, "me"), raters.goal(store, "ada")) == (7, 20)
    for bad in (0, -3, raters.MOST_GOAL + 1):
        with pytest.raises(InputError, match="no goal"):
            raters.set_goal(store, "me", bad)
    with pytest.raises(InputError, match="shorten"):
        raters.write_guidelines(store, "x" * (raters.LONGEST_GUIDELINES + 1))
    assert raters.guidelines(store) == "*Ask* “twice”."
    assert any('"guidelines"' in line for line in forgetting.export(store))
    vote(store, 1, rater="ada")
    assert raters.raters(store) == ["ada"]


def test_forgetting_reaches_what_people_wrote(store: Store) -> None:
    vote(store, 0, "rather Solitaire")
    kept = vote(store, 1)
    raters.write_guidelines(store, 'never "Solitaire"')
    raters.set_goal(store, "me", 7)
    gone = forgetting.forget_target(store, "Solitaire")
    assert (gone.predictions, gone.ratings) == (1, 2)
    assert [r.id for r in store.ratings()] == [kept.rating.id]
    assert (raters.guidelines(store), raters.goal(store, "me")) == ("", 7)
    assert "Solitaire" not in "".join(forgetting.export(store))
    forgetting.forget_everything(store)
    assert store.one("SELECT COUNT(*) FROM settings") == 0


def test_a_prediction_says_what_was_in_memory_and_whom_it_cost(tmp_path: Path) -> None:
    with open_store(tmp_path / "a.db") as store:
        predict(store, "demo", "markov1", Options(n=120, explore=0.5))
        cost = 0
        for p in store.predictions():
            shown = ratings.moment(store, p.id or 0)
            assert shown.memory
            times = [t for t, _ in shown.memory]
            assert times == sorted(times, reverse=True)
            assert times[0] < p.t
            current = shown.steps[-1][1]
            names = [name for _, name in shown.memory]
            assert current not in names
            assert len(set(names)) == len(names)
            last_other = next(x for x in reversed(shown.steps) if x[1] != current)
            assert list(shown.memory[0]) == list(last_other)  # the one before is always still there
            pushed_out = (p.outcome or {}).get("pushed_out", [])
            assert bool(pushed_out) >= ((p.outcome or {})["pollution"] > 0)
            assert set(pushed_out) <= {x.target for x in p.plan} | set(names) | {current}
            cost += bool(pushed_out)
        assert cost
        named = names[-1]
        assert forgetting.forget_target(store, named).predictions
        assert store.rows("SELECT 1 FROM moments WHERE instr(memory, ?)", [f'"{named}"']) == []


def test_what_a_vote_changes(tmp_path: Path) -> None:
    with open_store(tmp_path / "a.db") as store:
        predict(store, "demo", "base", Options(n=60, explore=0.0))
        people = {x.user: x for x in load_timelines(str(store.path)).timelines}
        used = to_follow("base")
        fell = rose = fewer = 0
        for k in range(24):
            last = vote(store, int(k % 4 == 1))
            p = last.moment.prediction
            rated = read_ratings(store)
            found = after_vote(used, people[p.user], rated, last.rating.id)
            assert found is not None
            assert found.loads_from == used.planner.theta  # type: ignore[union-attr]
            for x in p.plan:
                was, now = found.before.chance[x.target], found.now.chance[x.target]
                fell, rose = fell + (now < was), rose + (now > was)
            fewer += len(found.now.targets) < len(found.before.targets)
            for plan in (found.before, found.now):
                assert all(plan.chance[x] >= found.loads_from for x in plan.targets)
            if k == 0:  # nobody has said anything before: it would have loaded what the card says
                assert found.before.targets == tuple(x.target for x in p.plan)
            ratings.withdraw(store, last)
            assert after_vote(used, people[p.user], read_ratings(store), last.rating.id) is None
            again = vote(store, int(k % 4 == 1))
            same = after_vote(used, people[p.user], read_ratings(store), again.rating.id)
            assert same == found  # taken back and said again: every number is what it was
        assert fell >= 4
        assert rose >= 3
        assert fewer
        other = next(x for name, x in people.items() if name != p.user)
        assert after_vote(used, other, read_ratings(store), again.rating.id) is None
