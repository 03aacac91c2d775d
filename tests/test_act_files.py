"""`--act files` in the loop: what a plan names is read ahead, what it lets go is dropped."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from rlmemo.live import residency
from rlmemo.live.acts import executor
from rlmemo.live.file_list import FilePart, write_lists
from rlmemo.live.files_executor import FilesExecutor
from tests.fake_watch import FakeServer
from tests.test_live_loop import APPS, StillClock, loop_on, one_day

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files are read ahead on Linux")


def test_what_a_plan_names_is_read_ahead_and_gone_in_the_end(tmp_path: Path) -> None:
    lists = {}
    for app in sorted(set(APPS)):
        path = tmp_path / app
        with path.open("wb") as file:
            file.write(os.urandom(1 << 20))
            os.fsync(file.fileno())
        lists[app] = [FilePart(str(path), 0, 1 << 20)]
    paths = [part.path for parts in lists.values() for part in parts]
    residency.drop(paths)
    if any(_in_memory(path) for path in paths):
        pytest.skip(f"{tmp_path} is on a file system that keeps everything in memory; set --basetemp")
    write_lists(tmp_path / "files.json", lists)
    acts = executor("files", limit_mb=100.0, lists=tmp_path / "files.json")
    assert isinstance(acts, FilesExecutor)
    server, clock = FakeServer(), StillClock()
    with loop_on(tmp_path / "a.db", server, clock, acts) as loop:  # type: ignore[arg-type]
        for k in range(24):
            one_day(server, clock, k)
            loop.turn()
        told = [dict(row) for row in loop.ledger.store.rows("SELECT * FROM live_acts")]
        assert any(_in_memory(path) == 1.0 for path in paths)
        assert acts.ahead.held_mb > 0
        loop.stop.set()
        loop.run()
    assert any('"held_mb": 1.0' in str(row) for row in told)
    assert acts.ahead.held_mb == 0
    assert not any(_in_memory(path) for path in paths)


def _in_memory(path: str) -> float:
    pages = residency.resident(path)
    assert pages is not None
    return float(pages.mean())
