"""webtrackr: what was published is what is read; what was not known is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from env.errors import InputError
from env.sources import load_timelines, webtrackr

real = pytest.mark.real_data("webtrackr")


@real
def test_the_published_counts() -> None:
    loaded = load_timelines("webtrackr")
    report = loaded.report
    assert (report.rows_read, report.kept, report.collapsed) == (49_612, 14_275, 35_337)
    assert not report.dropped
    sizes = {x.user: len(x) for x in loaded.timelines}
    assert sizes == {
        "AiDS4k1rQZ": 2475,
        "D1ujrEQbxp": 4476,
        "WOPGJF8TIN": 1550,
        "XExRVyU6ui": 2749,
        "uNzUWueZw3": 3025,
    }
    assert not loaded.synthetic


@real
def test_hosts_waves_and_devices_are_kept_and_nothing_else() -> None:
    people = load_timelines("webtrackr", collapsed=False).timelines
    assert {"www.facebook.com", "(no host)"} <= {n for x in people for n in x.names}
    assert len({n for x in people for n in x.names}) == 1712
    assert not any("/" in n or "?" in n for x in people for n in x.names)
    assert all(set(np.unique(x.wave)) == {1, 2} for x in people)
    assert all(set(x.devices) == {"mobile", "desktop"} for x in people)
    assert all((np.diff(x.t) >= 0).all() for x in people)


@real
def test_paths_by_setting() -> None:
    names = {n for x in load_timelines("webtrackr", page="path", collapsed=False).timelines for n in x.names}
    assert len(names) > 10_000
    assert not any("?" in n or "#" in n for n in names)


@real
def test_the_unknown_zone_is_said_not_guessed() -> None:
    default = load_timelines("webtrackr")
    assert all(x.tz == "UTC" and not x.tz_known for x in default.timelines)
    assert "time zones" in " ".join(default.report.notes)
    chosen = load_timelines("webtrackr", tz="America/Chicago")
    assert all(x.tz == "America/Chicago" and x.tz_known for x in chosen.timelines)
    assert "given, not recorded" in " ".join(chosen.report.notes)


def test_a_file_that_is_not_the_published_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "webtrackr"
    folder.mkdir()
    (folder / webtrackr.FILE).write_bytes(b"RDX3 but another one")
    monkeypatch.setenv("RLMEMO_DATA", str(tmp_path))
    with pytest.raises(InputError, match="sha256"):
        load_timelines("webtrackr")


def test_without_file_and_network_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    def offline(*_: object, **__: object) -> str:
        raise OSError("Network is unreachable")

    monkeypatch.setenv("RLMEMO_DATA", str(tmp_path))
    monkeypatch.setattr(pooch, "retrieve", offline)
    with pytest.raises(InputError, match=r"cannot be downloaded.*RLMEMO_DATA"):
        load_timelines("webtrackr")


def test_the_download_is_pinned_to_a_commit_and_a_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pooch

    asked: dict[str, object] = {}

    def retrieve(url: str, **options: object) -> str:
        asked.update(url=url, **options)
        return str(tmp_path / "x.rda")

    monkeypatch.setenv("RLMEMO_DATA", str(tmp_path))
    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert webtrackr.find() == tmp_path / "x.rda"
    assert str(asked["url"]).startswith(
        "https://raw.githubusercontent.com/gesistsa/webtrackR/a78e37d3bc8dd6d952cb1efc"
    )
    assert asked["known_hash"] == "sha256:80139149502a2d280613028d83760169f879621ad913dea12d71ef2c63c14e5c"
