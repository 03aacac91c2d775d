"""JSON that holds records, as a table: a list of objects, one object a line, or a well-known export."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

from env.sources.names import clean_name

_AW_KIND = {"currentwindow": "app", "web.tab.current": "page"}
_MEMO = {"window_focus": ("app", "process_name", ""), "browser_history": ("page", "url", "Z")}
_FRAMES = ("AUTO_SUBFRAME", "MANUAL_SUBFRAME")
_MEMO_ONLY = ("window_focus", "process_start", "session_start")


def table_of(text: str) -> tuple[list[str], list[list[str]], tuple[str, ...]] | str:
    """(header, rows, notes) of JSON text; or, where it holds no records, what it is.

    What lies within an object is called outer.inner. Numbers stay as they are written, so that no digit of a
    time is lost.
    """
    data = _parsed(text)
    if data is None and (at := _damaged(text)):
        return f"JSON that breaks off or is damaged at line {at}; export it anew"
    left_out: Counter[str] = Counter()
    if isinstance(data, dict) and isinstance(data.get("buckets"), dict):
        records, what = _activitywatch(data["buckets"], left_out), " (an export of ActivityWatch)"
    elif isinstance(data, dict) and isinstance(data.get("events"), list) and data.get("type"):
        # one bucket of ActivityWatch without the name that an export gives it
        records, what = _activitywatch({"": data}, left_out), " (a bucket of ActivityWatch)"
    elif isinstance(data, dict):
        # Takeout has its sessions and typed addresses beside the history
        lists = [v for v in data.values() if isinstance(v, list)]
        records, what = data.get("Browser History", lists[0] if len(lists) == 1 else []), ""
    else:
        records, what = data, ""
    if not isinstance(records, list) or not records or not all(isinstance(x, dict) for x in records):
        return f"JSON{what} without records of openings"
    if any(x.get("type") in _MEMO_ONLY for x in records):
        records = _memo(records, left_out)
        if not records:
            return "JSON (a log of MEMO) without records of openings"
    if all(isinstance(x.get("products"), list) and "time" in x for x in records):
        records = _my_activity(records, left_out)
        if not records:
            return "JSON (Google Takeout's My Activity) without pages of Chrome or apps of Android"
    elif any("page_transition" in x and "time_usec" in x for x in records):
        records = _seen_by_chrome(records, left_out)
        if not records:
            return "JSON (Google Takeout's browser history) without visits that opened a page"
    notes: tuple[str, ...] = ("from JSON: a line number counts its records",)
    if left_out:
        kinds = ", ".join(f"{n:,} of {clean_name(kind)}" for kind, n in sorted(left_out.items()))
        notes += (f"records that are no openings were left out: {kinds}",)
    flat = [dict(_flat(x)) for x in records]
    header = list(dict.fromkeys(key for x in flat for key in x))
    return header, [[x.get(key, "") for key in header] for x in flat], notes


def _parsed(text: str) -> Any:
    """The JSON text, or, of text with one object a line, the list of them; None where it is neither."""
    for wanted in (text, "[" + ",".join(line for line in text.splitlines() if line.strip()) + "]"):
        try:
            return json.loads(wanted, parse_int=str, parse_float=str, parse_constant=str)
        except (json.JSONDecodeError, RecursionError):
            continue
    return None


def _damaged(text: str) -> int:
    """The line at which JSON cannot be read any further, 0 where that is not what is wrong with it."""
    lines = [(n, x) for n, x in enumerate(text.splitlines(), start=1) if x.strip()]
    try:
        for k, (number, line) in enumerate(lines):  # one object a line
            try:
                json.loads(line)
            except json.JSONDecodeError:
                if k:
                    return number
                break
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.lineno
    except RecursionError:
        pass
    return 0


def _flat(record: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in record.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            yield f"{prefix}{key}", "" if value is None else str(value)


def _activitywatch(buckets: dict[str, Any], left_out: Counter[str]) -> list[dict[str, Any]]:
    """The openings of an export; how many events of what other kinds it has is counted."""
    records: list[dict[str, Any]] = []
    for bucket in map(_object, buckets.values()):
        events = bucket.get("events")
        if not isinstance(events, list):
            continue
        kind = _AW_KIND.get(str(bucket.get("type")))
        if kind is None:
            left_out[str(bucket.get("type"))] += len(events)
            continue
        for event in map(_object, events):
            data = _object(event.get("data"))
            records.append(
                {
                    "aw.timestamp": event.get("timestamp"),
                    "aw.target": data.get("url" if kind == "page" else "app"),
                    "aw.kind": kind,
                    "aw.duration": event.get("duration"),
                    "aw.device": bucket.get("hostname"),
                    "aw.private": data.get("incognito"),
                }
            )
    return records


def _memo(records: list[dict[str, Any]], left_out: Counter[str]) -> list[dict[str, Any]]:
    """The openings of MEMO's log: its windows' times are local, those of the browsers' history are UTC."""
    openings = []
    for record in records:
        said = str(record.get("type"))
        if said not in _MEMO:
            left_out[said] += 1
            continue
        kind, name, zone = _MEMO[said]
        openings.append(
            {
                "memo.timestamp": f"{record.get('timestamp') or ''}{zone}",
                "memo.target": record.get(name),
                "memo.kind": kind,
            }
        )
    return openings


def _my_activity(records: list[dict[str, Any]], left_out: Counter[str]) -> list[dict[str, Any]]:
    """The openings of Google's My Activity: pages of Chrome, apps of Android. Their titles are in the
    person's language ("Visited …", "… besucht"), so the products tell."""
    openings = []
    for record in records:
        products = [str(x) for x in record["products"]]
        address = str(record.get("titleUrl") or "")
        target: Any
        if "Chrome" in products and address:
            target, kind = _behind_google(address), "page"
        elif "Android" in products:
            target, kind = record.get("header"), "app"
        else:
            left_out[products[0] if products else "no product"] += 1
            continue
        openings.append({"activity.time": record["time"], "activity.target": target, "activity.kind": kind})
    return openings


def _behind_google(address: str) -> str:
    """The page behind www.google.com/url?q=…, as My Activity writes addresses."""
    parts = urlsplit(address)
    if parts.hostname == "www.google.com" and parts.path == "/url":
        return next(iter(parse_qs(parts.query).get("q", [])), address)
    return address


def _seen_by_chrome(records: list[dict[str, Any]], left_out: Counter[str]) -> list[dict[str, Any]]:
    """Takeout's browser history without frames within pages."""
    frames = sum(x.get("page_transition") in _FRAMES for x in records)
    if frames:
        left_out["frames"] += frames
    return [x for x in records if x.get("page_transition") not in _FRAMES]


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
