"""webtrackR's sample of web tracking: 5 people, 49,612 page visits, February to August 2019.

Source: github.com/gesistsa/webtrackR, MIT licence, `data/testdt_tracking.rda`, fully anonymised by its
authors (the paths of the URLs are random strings, the hosts are real). Columns: panelist_id, wave,
timestamp (unix seconds), url, device.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from env.errors import InputError
from env.sources.names import NO_HOST, clean_name, page_target
from env.sources.recordings import published
from env.sources.report import ImportReport, Loaded
from env.sources.rows import Rows, finish, timelines_of

if TYPE_CHECKING:
    import pandas

COMMIT = "a78e37d3bc8dd6d952cb1efc1777630b0ec82de7"
URL = f"https://raw.githubusercontent.com/gesistsa/webtrackR/{COMMIT}/data/testdt_tracking.rda"
SHA256 = "80139149502a2d280613028d83760169f879621ad913dea12d71ef2c63c14e5c"
FILE = "testdt_tracking.rda"
COLUMNS = ("panelist_id", "wave", "timestamp", "url", "device")


def find() -> Path:
    """The recording on this machine, downloaded from its public repository where it is not there.

    Raises InputError when it is neither here nor to be had, or is not the recording that was published.
    """
    return published("webtrackr", FILE, URL, SHA256)


@lru_cache(maxsize=2)
def _frame(path: Path) -> pandas.DataFrame:
    import rdata

    with warnings.catch_warnings():
        # rdata has no constructor for R's time class; the seconds underneath are what is wanted
        warnings.filterwarnings("ignore", message="Missing constructor")
        tables = rdata.read_rda(path)
    frame = tables.get("testdt_tracking")
    missing = [c for c in COLUMNS if frame is None or c not in frame]
    if frame is None or missing:
        raise InputError(f"{path}: no table testdt_tracking with columns {', '.join(COLUMNS)}")
    return frame


def load(*, collapsed: bool = True, tz: str | None = None, page: str = "host") -> Loaded:
    """The recording as five timelines, sorted by user and time (stable), waves and devices kept.

    A page is its host (`page="path"`: host and path); the 30 addresses without one are one target,
    `(no host)`. The panel lived in the United States, in time zones that were not
    published: hours are in UTC unless `tz` names one, and `tz_known` says which.
    """
    path = find()
    frame = _frame(path)
    report = ImportReport(source="webtrackr", rows_read=len(frame))
    rows = Rows()
    pages: dict[str, tuple[str, str]] = {}
    columns = [frame[c].tolist() for c in COLUMNS]
    for i, (user, wave, t, url, device) in enumerate(zip(*columns, strict=True)):
        if url not in pages:
            target, kind = page_target(url, page)
            # `file:` addresses and the one malformed one ("blob://") all have an empty netloc: one
            # target, as in the setting of the published baselines
            hostless = kind != "page" or not target or target.endswith(":")
            pages[url] = (NO_HOST, "page") if hostless else (target, kind)
        target, kind = pages[url]
        if not math.isfinite(t):
            report.drop("no time", f"row {i + 1}")
            continue
        rows.add(clean_name(user), t, target, kind, device=clean_name(device), wave=int(wave))
    timelines = timelines_of(rows, report, tz=tz or "UTC", tz_known=tz is not None)
    if tz is None:
        report.notes.append(
            "the participants' time zones (United States) were not published: hours and weekdays are in UTC; "
            "give --tz to set one"
        )
    else:
        report.notes.append(f"the time zone {tz} was given, not recorded")
    return finish("webtrackr", timelines, report, collapsed=collapsed)
