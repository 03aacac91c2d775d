"""Who rates, and what raters set up for themselves: the guidelines that all of them read, and how many votes
each wants to give in a sitting."""

from __future__ import annotations

import json

from env.errors import InputError
from env.sources.names import clean_name
from rlmemo.store.database import Store

USUAL_GOAL = 20
MOST_GOAL = 10_000
LONGEST_GUIDELINES = 20_000
GUIDELINES = "guidelines"


def raters(store: Store) -> list[str]:
    """Who has rated something that counts, by name."""
    return [str(row["rater"]) for row in store.rows("SELECT DISTINCT rater FROM latest_ratings ORDER BY 1")]


def guidelines(store: Store) -> str:
    """What raters go by, as Markdown; "" where nobody has written anything."""
    return str(_read(store, GUIDELINES, ""))


def write_guidelines(store: Store, text: str) -> None:
    """Put these in the place of the guidelines before. Raises InputError where they are too long."""
    if len(text) > LONGEST_GUIDELINES:
        raise InputError(
            f"the guidelines have {len(text):,} characters; {LONGEST_GUIDELINES:,} can be kept, shorten them"
        )
    _write(store, GUIDELINES, text.strip())


def goal(store: Store, rater: str) -> int:
    """How many votes a rater wants to give in a sitting."""
    return int(_read(store, f"goal {clean_name(rater)}", USUAL_GOAL))


def set_goal(store: Store, rater: str, votes: int) -> None:
    """Keep how many it shall be. Raises InputError for what is no number of votes."""
    if not 1 <= votes <= MOST_GOAL:
        raise InputError(f"{votes} is no goal for a sitting; give 1 to {MOST_GOAL:,} votes")
    _write(store, f"goal {clean_name(rater)}", int(votes))


def _read(store: Store, name: str, otherwise: str | int) -> str | int:
    rows = store.rows("SELECT value FROM settings WHERE name = ?", [name])
    found: str | int = json.loads(rows[0]["value"]) if rows else otherwise
    return found


def _write(store: Store, name: str, value: str | int) -> None:
    with store.write():
        store.db.execute(
            "INSERT INTO settings (name, value) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            [name, json.dumps(value, ensure_ascii=False)],
        )
