"""Files are read ahead and dropped again: seen in the page cache itself, on real files."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from env.errors import InputError
from rlmemo.live import read_ahead, residency
from rlmemo.live.file_list import (
    FilePart,
    Watched,
    megabytes,
    needed_by,
    package_files,
    read_lists,
    write_lists,
)
from rlmemo.live.files_executor import FilesExecutor
from rlmemo.live.read_ahead import ReadAhead

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the page cache is looked at on Linux")
MB = 2**20
OnDisk = Callable[[str, float], Path]


@pytest.fixture
def on_disk(tmp_path: Path) -> OnDisk:
    """Makes a file of some MB that is on the disk and not in memory."""

    def make(name: str, size_mb: float) -> Path:
        path = tmp_path / name
        with path.open("wb") as file:
            file.write(os.urandom(int(size_mb * MB)))
            os.fsync(file.fileno())
        residency.drop([str(path)])
        if share(path) > 0:
            pytest.skip(f"{path} is on a file system that keeps everything in memory; set --basetemp")
        return path

    return make


def share(path: Path) -> float:
    """How much of a file is in memory."""
    pages = residency.resident(path)
    assert pages is not None
    return float(pages.mean())


def whole(path: Path) -> FilePart:
    return FilePart(str(path), 0, path.stat().st_size)


def test_what_is_read_ahead_is_in_memory_and_gone_after_stop(on_disk: OnDisk) -> None:
    path = on_disk("a", 3.3)
    with ReadAhead(lambda _: [whole(path)], 10) as ahead:
        loaded = ahead.load("mail").result()
        assert share(path) == 1.0
        assert loaded.read_mb == pytest.approx(3.3, abs=0.1)
        assert loaded.held_mb == ahead.held_mb == pytest.approx(3.3, abs=0.01)
        assert loaded.seconds > 0
        assert ahead.load("mail").result().read_mb == 0  # it is there
    assert share(path) == 0.0
    assert ahead.held_mb == 0


def test_only_the_parts_that_are_needed_are_read(on_disk: OnDisk) -> None:
    path = on_disk("a", 4)
    with ReadAhead(lambda _: [FilePart(str(path), 2 * MB, 1000)], 10) as ahead:
        ahead.load("mail").result()
        pages = residency.resident(path)
        assert pages is not None
        assert pages[2 * MB // residency.PAGE]
        assert pages.mean() < 0.5  # the kernel may add a little by itself, not half of the file


def test_the_limit_holds_over_all_targets(on_disk: OnDisk) -> None:
    paths = [on_disk(name, 3) for name in "ab"]
    lists = {path.name: [whole(path)] for path in paths}
    with ReadAhead(lists.get, 4) as ahead:
        ahead.load("a").result()
        second = ahead.load("b").result()
        assert ahead.held_mb == 4.0
        assert (second.held_mb, second.left_out_mb) == (1.0, 2.0)
        assert share(paths[1]) < 0.6
        ahead.let_go("a").result()
        assert ahead.load("b").result().left_out_mb == 0  # there is room now
        assert share(paths[1]) == 1.0


def test_memory_that_is_scarce_is_left_alone(on_disk: OnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    path = on_disk("a", 2)
    monkeypatch.setattr(read_ahead, "LEAVE_FREE", 0.0)
    with ReadAhead(lambda _: [whole(path)], 10) as ahead:
        assert ahead.load("mail").result().left_out_mb == 2.0
    assert share(path) == 0.0


def test_what_somebody_maps_stays(on_disk: OnDisk) -> None:
    path, other = on_disk("a", 2), on_disk("b", 2)
    with ReadAhead(lambda _: [whole(path), whole(other)], 10) as ahead:
        ahead.load("mail").result()
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
            dropped = ahead.let_go("mail").result()
            assert (dropped.dropped_mb, dropped.in_use_mb) == (2.0, 2.0)
            assert (share(path), share(other)) == (1.0, 0.0)
            assert residency.drop([str(path), str(other)]) == [str(other)]


def test_what_was_in_memory_before_stays(on_disk: OnDisk) -> None:
    path = on_disk("a", 2)
    path.read_bytes()
    with ReadAhead(lambda _: [whole(path)], 10) as ahead:
        loaded = ahead.load("mail").result()
        assert (loaded.read_mb, loaded.held_mb) == (0.0, 2.0)
    assert share(path) == 1.0


def test_what_two_targets_need_goes_with_the_last(on_disk: OnDisk) -> None:
    path = on_disk("a", 1)
    with ReadAhead(lambda _: [whole(path)], 10) as ahead:
        ahead.load("mail").result()
        ahead.load("news").result()
        assert ahead.held_mb == 1.0
        ahead.let_go("mail").result()
        assert share(path) == 1.0
        ahead.let_go("news").result()
        assert share(path) == 0.0


def test_a_file_that_is_gone_and_a_target_without_a_list_are_nothing(on_disk: OnDisk, tmp_path: Path) -> None:
    path = on_disk("a", 1)
    os.mkfifo(tmp_path / "pipe")
    lists = {"mail": [FilePart(str(tmp_path / x), 0, MB) for x in ("none", "pipe")] + [whole(path)]}
    with ReadAhead(lists.get, 10) as ahead:
        assert ahead.load("mail").result(timeout=20).held_mb == 1.0
        assert ahead.load("other").result().held_mb == 0


def test_reading_goes_last_and_stop_ends_it(on_disk: OnDisk) -> None:
    path = on_disk("a", 48)
    ahead = ReadAhead(lambda _: [whole(path)], 100)
    import threading

    found = ahead._worker.submit(lambda: psutil.Process(threading.get_native_id()).ionice()).result()
    assert found.ioclass == psutil.IOPRIO_CLASS_IDLE
    assert psutil.Process().ionice().ioclass != psutil.IOPRIO_CLASS_IDLE
    ahead.load("mail")
    ahead.stop()
    assert share(path) == 0.0
    with pytest.raises(RuntimeError):
        ahead.load("mail")


def test_a_program_that_runs_is_seen_with_the_parts_that_it_uses(on_disk: OnDisk, tmp_path: Path) -> None:
    path = on_disk("data", 8)
    code = (
        "import mmap, sys; f = open(sys.argv[1], 'rb'); "
        "m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ);"
        "m[3 << 20]; print('there', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "there\n"
        found = needed_by([child.pid])
        child.communicate("")
    mine = [x for x in found if x.path == str(path)]
    assert any(x.offset <= 3 * MB < x.offset + x.length for x in mine)
    assert megabytes(mine) < 4
    assert any("libc.so" in x.path for x in found)


def test_what_a_tracer_saw_being_read_counts_whole(tmp_path: Path) -> None:
    read, made = tmp_path / "read", tmp_path / "made"
    for path in (read, made):
        path.write_bytes(b"x" * 5000)
    log = tmp_path / "log"
    log.write_text(
        f'7 openat(AT_FDCWD</>, "read", O_RDONLY|O_CLOEXEC) = 3<{read}>\n'
        f'7 openat(AT_FDCWD</>, "made", O_WRONLY|O_CREAT, 0666) = 4<{made}>\n'
        '7 access("/etc/none", R_OK) = -1 ENOENT (No such file or directory)\n'
        '7 open("/proc/meminfo", O_RDONLY) = 5</proc/meminfo>\n7 exit_group(0) = ?\n'
    )
    watched = Watched()
    watched.add_read(log)
    read_or_looked_for = [FilePart(str(read), 0, 5000), FilePart("/made", 0, 0), FilePart("/etc/none", 0, 0)]
    assert watched.parts() == read_or_looked_for
    with ReadAhead(lambda _: read_or_looked_for, 10) as ahead:
        assert ahead.load("x").result().held_mb == 5000 / MB


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="no Debian")
def test_a_package_names_its_files() -> None:
    found = {x.path for x in package_files("dpkg")}
    assert "/usr/bin/dpkg" in found
    assert package_files("no-such-program") == []


def test_lists_are_kept_for_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "files.json"
    assert read_lists(path) == {}
    lists = {"mail": [FilePart("/usr/bin/perl", 4096, 100)]}
    write_lists(path, lists)
    assert read_lists(path) == lists
    assert path.stat().st_mode & 0o777 == 0o600
    for broken in ("{", '{"a": 1}', "[1]", '{"a": [[1]]}'):
        path.write_text(broken)
        with pytest.raises(InputError, match=r"is no list of files; remove it"):
            read_lists(path)


def test_the_executor_loads_lets_go_and_undoes(on_disk: OnDisk, tmp_path: Path) -> None:
    path, files = on_disk("a", 1), tmp_path / "files.json"
    write_lists(files, {"mail": [whole(path)]})
    acts = FilesExecutor(files, 10)
    assert acts.load("mail", "app")["held_mb"] == 1.0
    assert share(path) == 1.0
    assert acts.let_go("mail", "app")["dropped_mb"] == 1.0
    assert share(path) == 0.0
    acts.load("mail", "app")
    assert "page" in acts.load("example.org", "page")["failed"]
    assert "measure" in acts.load("no such program", "app")["failed"]
    acts.undo()
    assert share(path) == 0.0
    with pytest.raises(InputError, match="more than 0"):
        FilesExecutor(files, 0)


def test_the_executor_learns_from_what_was_opened(tmp_path: Path) -> None:
    tool, files = tmp_path / "mytool7", tmp_path / "files.json"
    shutil.copy(str(shutil.which("sleep")), tool)
    acts = FilesExecutor(files, 10)
    assert not acts.opened("MyTool7").result()
    with subprocess.Popen([str(tool), "60"]) as child:
        try:
            acts.let_go("MyTool7", "app")  # it runs, so it was opened
            assert acts.ahead.after(lambda: "MyTool7" in acts.lists).result()
        finally:
            child.kill()
    assert str(tool) in {x.path for x in read_lists(files)["MyTool7"]}
    assert acts.load("MyTool7", "app")["held_mb"] > 0
    acts.undo()
