"""`live measure`: real programs, started cold, warmed and warm; a cost file that every command takes."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from env.errors import InputError
from env.judge.cost import Cost
from env.judge.cost_presets import cost_model
from env.judge.world_options import WorldOptions
from experiments.slow_pages import serve
from rlmemo.live import measure, page_opens, programs, residency, starts
from rlmemo.live.cost_table import shown
from rlmemo.live.file_list import read_lists
from rlmemo.live.page_opens import measure_page
from rlmemo.live.programs import Program, StartingPlace, start, start_watched
from rlmemo.live.recipes import RECIPES
from rlmemo.live.starts import Samples

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="live measure works on Linux")
PYTHON = f"{sys.executable} -I -c"


def run(folder: Path, *given: str) -> int:
    files = ("--files", str(folder / "files.json"), "--cold", "files")
    return measure.run(measure.parser().parse_args([*given, *files]))


@pytest.fixture
def place() -> Iterator[StartingPlace]:
    with StartingPlace() as made:
        yield made
    assert not made.folder.exists()


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file of 24 MB that is on the disk and not in memory."""
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.write(os.urandom(24 << 20))
        os.fsync(file.fileno())
    residency.drop([str(path)])
    pages = residency.resident(path)
    assert pages is not None
    if pages.any():
        pytest.skip(f"{path} is on a file system that keeps everything in memory; set --basetemp")
    return path


def test_a_program_is_measured_and_the_cost_file_is_taken_by_costs(
    tmp_path: Path, big: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program that maps 24 MB: they are read ahead, and gone from memory in the end."""
    (tmp_path / "reads.py").write_text(
        "import mmap, sys, time\nf = open(sys.argv[1], 'rb')\n"
        "m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "print(sum(m[k] for k in range(0, len(m), 4096)))\ntime.sleep(0.2)\n"
    )
    out, every = tmp_path / "costs.json", tmp_path / "all.json"
    out.write_text(
        json.dumps({"name": "mine", "targets": {"old": {"memory_mb": 7, "cold_s": 2, "warm_s": 1}}})
    )
    command = f"reader={sys.executable} -I {tmp_path / 'reads.py'} {big}"
    run(tmp_path, "--program", command, "--repeats", "2", "--out", str(out), "--json", str(every))

    told = json.loads(every.read_text())["targets"][0]
    assert all(len(told[name]) == 2 and min(told[name]) > 0.2 for name in ("cold_s", "warmed_s", "warm_s"))
    assert min(told["read_mb"]) >= 23
    assert told["memory_mb"] > 24
    assert str(big) in {x.path for x in read_lists(tmp_path / "files.json")["reader"]}
    pages = residency.resident(big)
    assert pages is not None
    assert pages.mean() < 0.1  # everything is undone

    WorldOptions(costs=str(out)).check()
    model = cost_model(str(out))
    assert (model.name, model.cost("old")) == ("mine", Cost(7.0, 2.0, 1.0))
    cost = model.cost("reader")
    assert cost.memory_mb == told["memory_mb"]
    assert cost.load == pytest.approx(sum(told["read_s"]) / 2, abs=1e-3)
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (out, every, tmp_path / "files.json"))
    said = capsys.readouterr()
    assert "| reader " in said.out
    assert "what others use stayed in memory" in said.out
    assert "reader: 2 of 2" in said.err


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_a_recipe_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "Git Gui=git", "--repeats", "1")
    assert "| Git Gui " in capsys.readouterr().out
    found = read_lists(tmp_path / "files.json")["Git Gui"]
    assert any(os.path.basename(x.path) == "git" for x in found)
    assert not [x for x in found if "strace" in x.path or "rlmemo-measure" in x.path]


def test_ready_when_its_port_answers_or_when_it_says_so(place: StartingPlace) -> None:
    server = Program("server", f"{sys.executable} -I -m http.server {{port}} --bind 127.0.0.1", "port")
    code = "import time; time.sleep(.3); print(chr(105) + chr(116) + ' is on', flush=True); time.sleep(60)"
    says = Program("says", f'{PYTHON} "{code}"', "line:it is on")
    before = set(os.listdir("/proc"))
    assert 0.01 < start(server, place) < 60
    assert 0.3 < start(says, place) < 30
    left = [x for x in set(os.listdir("/proc")) - before if "http.server" in _command(x)]
    assert left == []  # what was started has ended


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_a_start_has_a_home_of_its_own_unless_it_is_the_persons(place: StartingPlace, tmp_path: Path) -> None:
    code = f"import os; open({str(tmp_path / 'home')!r}, 'w').write(os.environ['HOME'])"
    for at_home in (False, True):
        start(Program("x", f'{PYTHON} "{code}"', at_home=at_home), place)
        assert (tmp_path / "home").read_text().startswith(str(place.folder)) is not at_home


def test_memory_is_that_of_the_program_and_its_children(place: StartingPlace) -> None:
    code = "import subprocess, sys, time; x = bytearray(60 << 20); time.sleep(.4)"
    parent = (
        f"import subprocess, sys; x = bytearray(30 << 20); subprocess.run([sys.executable, '-c', '{code}'])"
    )
    seen = start_watched(Program("x", f'{PYTHON} "{parent}"'), place, trace=False)
    assert 90 < seen.memory_mb < 150


@pytest.mark.parametrize("trace", [("false",), ("no-such-tracer",)])
def test_without_a_tracer_what_is_mapped_is_seen(
    place: StartingPlace, monkeypatch: pytest.MonkeyPatch, trace: tuple[str, ...]
) -> None:
    for module in (starts, programs):
        monkeypatch.setattr(module, "TRACE", trace)
    found = Samples("x")
    files = starts.learn(Program("x", f"{PYTHON} 'import time, json; time.sleep(.4)'"), place, found)
    assert any("libc.so" in x.path for x in files)
    assert all(x.length for x in files)
    assert found.memory_mb > 3


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["gitt"], "there is no recipe for 'gitt'; there are chromium,"),
        (["git", "--repeats", "0"], "--repeats is 0; give 1 to 1000"),
        (["git", "--limit-mb", "nan"], "--limit-mb is nan; give megabytes"),
        (["--program", "mail"], "--program 'mail': give NAME=PROGRAM"),
        (["--program", "a=b 'c"], "is no command"),
        (["--program", "a=no-such-thing-here -v"], "'no-such-thing-here' is not installed here"),
        (
            ["--program", "a=perl -v", "--ready", "a=soon"],
            "ready when 'soon'? give one of exit, port, line:TEXT",
        ),
        (["--program", "a=perl -v", "--ready", "a=port"], "write {port} where its command has one"),
        (["--program", "a=perl -v", "--ready", "b=exit"], "there is no --program b=COMMAND"),
        (["--page", "ftp://x.example/"], "begins with http:// or https://"),
        (["--out", "no/such/folder/costs.json", "git"], "there is no folder"),
        (["--program", "a=perl -e 'die qq(boom\\n)'"], "failed: boom"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(tmp_path: Path, given: list[str], says: str) -> None:
    with pytest.raises(InputError) as caught:
        run(tmp_path, *given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_cost_file_that_is_none_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    (tmp_path / "costs.json").write_text("[]")
    with pytest.raises(InputError, match="give a mapping"):
        run(tmp_path, "git", "--out", str(tmp_path / "costs.json"))


def test_only_root_is_truly_cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "may_drop_all", lambda: False)
    with pytest.raises(InputError, match="only root may empty the page cache; give --cold files"):
        measure.run(measure.parser().parse_args(["git", "--cold", "machine"]))


def test_what_does_not_get_ready_is_ended(place: StartingPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "LONGEST_S", 0.5)
    for ready in ("exit", "line:never", "port"):
        with pytest.raises(InputError, match=r"was not ready after 0\.5 s"):
            start(Program("slow", f"{PYTHON} 'import time; time.sleep(60)' {{port}}", ready), place)


def test_one_that_fails_is_left_out_and_the_rest_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, "--program", "bad=perl -e 'exit 3'", "--program", "good=perl -e 1", "--repeats", "1")
    said = capsys.readouterr()
    assert "left out: bad: perl -e 'exit 3' failed" in said.err
    assert list(read_lists(tmp_path / "files.json")) == ["good"]


def test_numbers_of_a_target() -> None:
    found = Samples(
        "mail", "app", [2.0, 3.0, 9.0], [1.4, 1.5, 1.6], [1.0, 1.0, 1.0], [0.5] * 3, [70.0] * 3, 300.0
    )
    assert found.taken_away() == pytest.approx(0.75)
    assert found.cost() == Cost(300.0, 3.0, 1.5, 0.5)
    assert "| mail   | 3.00 (2.00–9.00) | 1.50 (1.40–1.60) | 1.00 (1.00–1.00) | 75 %" in shown([found])[2]
    noise = Samples("git", "app", [0.02], [0.03], [0.02], [0.01], [0.0])
    assert math.isnan(noise.taken_away())
    assert noise.to_json()["taken_away"] is None
    assert noise.cost().cold_s == noise.cost().warm_s == 0.03  # a cost file wants cold >= warm


@pytest.mark.slow
@pytest.mark.parametrize("program", RECIPES, ids=lambda x: x.target)
def test_every_recipe_of_a_program_that_is_here_works(program: Program, place: StartingPlace) -> None:
    if not program.is_here():
        pytest.skip(f"{program.executable} is not installed")
    told = subprocess.run([program.executable, "--version"], capture_output=True, text=True, check=False)
    if "is not installed here" in told.stderr + told.stdout:
        pytest.skip(f"{program.executable} is a stand-in")
    assert start(program, place) > 0


@pytest.mark.parametrize(("held", "found"), [([90.0, 90.2], 90.2), ([150.0, 120.0, 61.0, 60.5, 10.0], 60.5)])
def test_a_closed_tab_takes_a_while_to_give_its_memory_back(
    monkeypatch: pytest.MonkeyPatch, held: list[float], found: float
) -> None:
    left = iter(held)
    monkeypatch.setattr(page_opens, "LOOK_S", 0.0)
    monkeypatch.setattr(page_opens, "_memory_mb", lambda _: next(left))
    assert page_opens._steady_mb(None) == found  # type: ignore[arg-type]


@pytest.mark.browser
def test_a_page_in_a_background_tab_opens_at_once(chromium: str, place: StartingPlace) -> None:
    server = serve(0, 0.2)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        tab, cached = measure_page(f"http://news.localhost:{server.server_port}/", place, 1)
        (kept,) = measure_page(f"http://uncached.localhost:{server.server_port}/", place, 1)[1:]
    finally:
        server.shutdown()
        server.server_close()
    assert tab.target == f"news.localhost:{server.server_port}"
    assert tab.cold_s[0] > 0.4  # the page, then its parts
    assert tab.warmed_s[0] < tab.cold_s[0] / 2
    assert cached.warmed_s[0] < tab.cold_s[0]
    assert kept.warmed_s[0] > 0.4  # what may not be kept is asked for again
    assert tab.read_mb[0] > 0.1
    assert tab.memory_mb > 1
    with pytest.raises(InputError, match=r"does not load \(net::ERR_CONNECTION_REFUSED\)"):
        measure_page(f"http://127.0.0.1:{server.server_port}/", place, 1)
