"""The votes that count, as a list to look through, and as a table for other programs (CSV)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from env.sources.names import clean_name
from env.timeline import zone
from rlmemo.store.database import Store
from rlmemo.store.ratings import Rated, moment
from rlmemo.store.records import Rating

COLUMNS = (
    "rating", "rated_at", "rater", "thumbs", "reason", "blind", "person", "moment", "time_zone", "open_then",
    "plan", "delays_s", "policy", "policy_version", "part", "propensity", "opened_next", "prewarms",
)  # fmt: skip
"""Of the table. thumbs: up or down; blind: whether the rater did not know what came; moment: local time of
what was rated, ISO 8601; plan: targets that would be made ready, empty for keeping still, and delays_s, when,
joined by `JOIN`; propensity: probability with which the policy chose that plan; opened_next, prewarms: what
really came, and what became of each of the plan's targets."""
JOIN = " | "
FORMULA = ("=", "+", "-", "@", "\t")


@dataclass(frozen=True)
class Sought:
    """Which votes are looked for. thumbs: 1, 0, or None for both; policy: whose plan it was; text: stands in
    the plan or in the reason, whatever its case; reasons: only those with one; disputed: only where another
    rater said the other thing."""

    thumbs: int | None = None
    policy: str | None = None
    text: str = ""
    reasons: bool = False
    disputed: bool = False


def votes(
    store: Store, rater: str, sought: Sought, *, limit: int = 20, skipped: int = 0
) -> tuple[int, list[Rated]]:
    """(how many votes of this rater there are of the kind, some of them, the latest first)."""
    found = """FROM latest_ratings AS r JOIN predictions AS p ON p.id = r.prediction_id
        WHERE r.rater = :rater AND (:thumbs IS NULL OR r.thumbs = :thumbs)
          AND (:policy IS NULL OR p.policy = :policy) AND (NOT :reasons OR r.reason <> '')
          AND (:text = '' OR instr(lower(r.reason), lower(:text)) OR EXISTS (
               SELECT 1 FROM json_each(p.plan)
               WHERE instr(lower(json_extract(value, '$.target')), lower(:text))))
          AND (NOT :disputed OR EXISTS (
               SELECT 1 FROM latest_ratings AS o WHERE o.prediction_id = r.prediction_id
                   AND o.rater <> r.rater AND o.thumbs <> r.thumbs))"""
    values = {"rater": clean_name(rater), "thumbs": sought.thumbs, "policy": sought.policy,
              "text": sought.text.strip(), "reasons": sought.reasons, "disputed": sought.disputed,
              "limit": limit, "skipped": skipped}  # fmt: skip
    rows = store.rows(f"SELECT r.* {found} ORDER BY r.id DESC LIMIT :limit OFFSET :skipped", values)
    many = store.rows(f"SELECT COUNT(*) AS n {found}", values)[0]["n"]
    return int(many), [Rated(Rating(**row), moment(store, row["prediction_id"])) for row in rows]


def table(store: Store) -> Iterator[str]:
    """All votes that count as CSV, a line at a time, with a header. What a spreadsheet would take for a
    formula begins with an apostrophe."""
    yield _line(COLUMNS)
    for row in store.rows(
        """SELECT r.id AS rating, r.rated_at, r.rater, r.thumbs, r.reason, r.blind, p.user AS person, p.t,
                  m.tz, m.steps, p.plan, p.policy, p.policy_version, m.part, p.propensity, p.outcome
           FROM latest_ratings AS r JOIN predictions AS p ON p.id = r.prediction_id
           LEFT JOIN moments AS m ON m.prediction_id = p.id ORDER BY r.id"""
    ):
        plan, outcome = json.loads(row["plan"]), json.loads(row["outcome"] or "{}")
        steps, tz = json.loads(row["steps"] or "[]"), row["tz"] or "UTC"
        rated_at = datetime.fromtimestamp(row["rated_at"], UTC)
        there = datetime.fromtimestamp(row["t"], UTC).astimezone(zone(tz))
        found = {
            **row,
            "rated_at": rated_at.isoformat(timespec="seconds"),
            "thumbs": "up" if row["thumbs"] else "down",
            "blind": "yes" if row["blind"] else "no",
            "moment": there.isoformat(timespec="seconds"),
            "time_zone": tz,
            "open_then": steps[-1][1] if steps else "",
            "plan": JOIN.join(x["target"] for x in plan),
            "delays_s": JOIN.join(f"{x['delay_s']:g}" for x in plan),
            "opened_next": outcome.get("next_target") or "",
            "prewarms": JOIN.join(outcome.get("prewarms") or []),
        }
        yield _line([_plain(found[name]) for name in COLUMNS])


def _plain(value: object) -> object:
    text = value if isinstance(value, str) else None
    return f"'{text}" if text and text.startswith(FORMULA) else "" if value is None else value


def _line(cells: Iterable[object]) -> str:
    made = io.StringIO()
    csv.writer(made, lineterminator="\n").writerow(cells)
    return made.getvalue()
