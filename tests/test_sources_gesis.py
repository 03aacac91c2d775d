"""gesis: what was published is what is read; what was not known is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from env.errors import InputError
from env.sources import gesis, load_timelines

real = pytest.mark.real_data("gesis")


@real
def test_the_published_counts() -> None:
    loaded = load_timelines("gesis", tz="Europe/Berlin")
    report = loaded.report
    assert (report.rows_read, report.kept, report.collapsed) == (18_878, 4_468, 14_410)
    assert not report.dropped
    assert len(loaded.timelines) == 10
    assert not loaded.synthetic
    whole = load_timelines("gesis", collapsed=False).timelines
    assert len({n for x in whole for n in x.names}) == 579
    assert all(len(n) == 16 for x in whole for n in x.names)
    assert all((np.diff(x.t) >= 0).all() for x in whole)
    # 2013-05-24 08:19:06, the first row, and what its page was active for
    first = next(x for x in whole if x.user == "b1dcb5d717657d39")
    at = np.flatnonzero(first.t == 1_369_383_546.0)
    assert 70.0 in first.duration[at]


@real
def test_the_unknown_zone_is_said_not_guessed() -> None:
    default, german = load_timelines("gesis"), load_timelines("gesis", tz="Europe/Berlin")
    assert all(x.tz == "UTC" and not x.tz_known for x in default.timelines)
    assert "was not published" in " ".join(default.report.notes)
    assert all(x.tz == "Europe/Berlin" and x.tz_known for x in german.timelines)
    assert "given, not recorded" in " ".join(german.report.notes)
    shift = {float(a.t[0] - b.t[0]) for a, b in zip(default.timelines, german.timelines, strict=True)}
    assert shift == {7200.0}  # summer time


def test_a_file_that_is_not_the_published_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gesis").mkdir()
    (tmp_path / "gesis" / gesis.FILE).write_text(",".join(gesis.COLUMNS) + "\n")
    monkeypatch.setenv("RLMEMO_DATA", str(tmp_path))
    with pytest.raises(InputError, match="sha256"):
        load_timelines("gesis")
