"""A step of the store's migrations: what an older version stored of addresses is reduced to their host.

Older versions took `localhost:3000/login?token=…` for an app's name. It stands in events, and in what
predictions say of them: all of it is put right together, so that forgetting a target still finds both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from env.sources.names import kept_target

if TYPE_CHECKING:
    from sqlite_utils import Database

_STEP = re.compile(r'(-?\d+ s ago )(".*")')  # a line of a prediction's state: rlmemo.predict.state_text
_IN_JSON = (
    ("predictions", "id", "plan"),
    ("predictions", "id", "probabilities"),
    ("predictions", "id", "outcome"),
    ("moments", "prediction_id", "steps"),
)


def reduce_targets(db: Database) -> None:
    """Reduce the targets of events, predictions and moments as an import does today."""
    known = {
        (target, kind): kept_target(target, kind)
        for target, kind in db.execute("SELECT DISTINCT target, kind FROM events").fetchall()
    }
    changed = {old: new for old, new in known.items() if old != new}
    if changed:
        db.conn.create_function("kept_name", 2, lambda *old: known[old][0], deterministic=True)
        db.conn.create_function("kept_kind", 2, lambda *old: known[old][1], deterministic=True)
        db.execute(
            """UPDATE events SET target = kept_name(target, kind), kind = kept_kind(target, kind)
               WHERE kept_name(target, kind) <> target OR kept_kind(target, kind) <> kind"""
        )
    names = {old[0]: new[0] for old, new in known.items()}

    def renamed(name: str) -> str:
        if name not in names:  # of a recording that is not stored here
            names[name] = kept_target(name, "app")[0] if name else name
        return names[name]

    for table, key, column in _IN_JSON:
        _rewrite(db, table, key, column, lambda text: _reduced(text, renamed))
    _rewrite(
        db, "predictions", "id", "state", lambda text: "\n".join(_line(x, renamed) for x in text.split("\n"))
    )


def _rewrite(db: Database, table: str, key: str, column: str, change: Callable[[str], str]) -> None:
    """Change a text column, row by row, where that makes a difference."""
    rows = db.execute(f"SELECT {key}, {column} FROM {table} WHERE {column} IS NOT NULL").fetchall()
    new = [(changed, i) for i, text in rows if (changed := change(text)) != text]
    db.conn.executemany(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", new)


def _reduced(text: str, renamed: Callable[[str], str]) -> str:
    """JSON with every name in it renamed; as it stands where that changes none."""
    value = json.loads(text)
    new = _walk(value, renamed)
    return text if new == value else _json(new)


def _walk(value: Any, renamed: Callable[[str], str]) -> Any:
    """Every name in a JSON value renamed; probabilities of targets that are one now are summed."""
    if isinstance(value, str):
        return renamed(value)
    if isinstance(value, list):
        return [_walk(x, renamed) for x in value]
    if not isinstance(value, dict):
        return value
    out: dict[str, Any] = {}
    for key, x in value.items():
        name, x = renamed(key), _walk(x, renamed)
        out[name] = min(1.0, out[name] + x) if name in out and isinstance(x, float) else x
    return out


def _line(line: str, renamed: Callable[[str], str]) -> str:
    match = _STEP.fullmatch(line)
    if match is None:
        return line
    try:
        return match[1] + _json(renamed(str(json.loads(match[2]))))
    except ValueError:
        return line


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
