"""The report: one file that needs nothing else, says what is synthetic, and can be read on a phone."""

from __future__ import annotations

import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from env.sources import load_timelines
from env.splits import chrono
from rlmemo.evaluation.evaluate import Evaluation, Setting, evaluate
from rlmemo.policies.registry import make_policies
from rlmemo.report.evaluation import evaluation_page, evaluation_sections, headlines
from rlmemo.report.figures import OWN_COLORS, colors, curves, heat, intervals
from rlmemo.report.page import Headline, Page, Section, Table

VOID = {"meta", "br", "img", "hr", "link", "input"}


class Checker(HTMLParser):
    """Notes every id and every tag that is opened and not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [v for k, v in attrs if k == "id" and v]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [v for k, v in attrs if k == "id" and v]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    timelines = load_timelines("demo", weeks=2).timelines[:2]
    return evaluate(
        make_policies("none,mru,markov1,omnibox,oracle"),
        timelines,
        chrono(timelines),
        name="demo",
        synthetic=True,
        setting=Setting(replicates=60, latency_decisions=5),
    )


@pytest.fixture(scope="module")
def text(evaluation: Evaluation) -> str:
    return evaluation_page(evaluation, command="python -m rlmemo.benchmark <&>").html()


def test_the_page_is_whole_and_stands_alone(text: str) -> None:
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert {"script", "link", "img", "iframe"}.isdisjoint(checker.tags)
    outside = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?(https?://[^"\')\s]+)', text)
    assert not [u for u in outside if "www.w3.org" not in u]
    assert "&lt;&amp;&gt;" in text
    assert len(text) < 2_000_000


def test_clip_paths_of_different_figures_do_not_mix(text: str) -> None:
    clips = re.findall(r'<clipPath id="([^"]+)"', text)
    assert len(clips) == len(set(clips))


def test_it_says_what_is_synthetic_and_what_the_numbers_depend_on(text: str) -> None:
    for words in ("synthetic data", "collapsed", "chrono", "8 typical targets", "bootstrap over sessions"):
        assert words in text
    assert "no person did this" in text


def test_colours_follow_the_readers_light_or_dark(text: str) -> None:
    assert "prefers-color-scheme: dark" in text
    assert "var(--ink)" in text
    assert not re.search(r"#01020[345]", text)  # the marker colours were all replaced
    assert "viewport" in text


def test_every_section_is_there_and_every_policy_named(evaluation: Evaluation, text: str) -> None:
    titles = [s.title for s in evaluation_sections(evaluation)]
    assert len(titles) >= 8
    for name in evaluation.policies:
        assert f">{name}<" in text
    assert "Hits against waste" in titles
    assert "More memory, less memory" in titles


def test_headlines_are_of_the_best_or_of_the_one_asked_for(evaluation: Evaluation) -> None:
    best = headlines(evaluation)
    assert [h.label for h in best][:2] == ["next target named first", "next target among five"]
    asked = headlines(evaluation, of="mru")
    assert asked[0].value == f"{100 * evaluation.policies['mru'].metrics['hr@1'].value:.1f} %"
    assert asked[0].beside.startswith("mru; ")
    assert headlines(evaluation, of="nobody") == []


def test_one_user_and_one_policy_still_make_a_page() -> None:
    timelines = load_timelines("demo", weeks=2).timelines[:1]
    setting = Setting(replicates=40, latency_decisions=3, budgets=(8.0,))
    one = evaluate(make_policies("none"), timelines, chrono(timelines), setting=setting)
    page = evaluation_page(one).html()
    assert "Hits against waste" not in page
    assert "What prewarming brought" in page


def test_own_policies_get_colours_of_their_own() -> None:
    found = colors(["markov1", "runs/a", "runs/b"])
    assert found["runs/a"] in OWN_COLORS
    assert len(set(found.values())) == 3


def test_figures_take_gaps_and_nothing() -> None:
    x = np.array([0.0, 1.0])
    curves({"a": (x, np.array([np.nan, 1.0]))}, x_label="x", y_label="y", alt="with a gap")
    intervals([("t", {"a": (float("nan"),) * 3, "b": (0.5, 0.4, 0.6)})], alt="with a missing value")
    figure = heat(["u"], ["p"], np.array([[np.nan]]), alt="empty")
    assert figure.wide.startswith("<svg")
    assert "<?xml" not in figure.narrow


def test_text_is_escaped() -> None:
    page = Page(
        title="<b>", lead="a & b", badge="recorded data", headlines=[Headline("<1", "x")],
        sections=[Section("s", ["<i>"], [Table(["<h>"], [["<c>\n<small>"]])])],
    ).html()  # fmt: skip
    for raw in ("<b>a", "<i>", "<h>", "<c>"):
        assert raw not in page.split("</style>")[1].replace("<b>&lt;1</b>", "")


def test_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = Page("t", "l", "recorded data").write(tmp_path / "sub" / "report.html")
    assert path.read_text().endswith("</html>\n")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_sticks_out_at_the_side(width: int, text: str, tmp_path: Path, chromium: str) -> None:
    """The page is no wider than the window, on a phone and on a desk: tables scroll inside their box."""
    probe = (
        "<script>document.title = 'wide:' + document.documentElement.scrollWidth + ':'"
        " + window.innerWidth + ':' + getComputedStyle(document.querySelector('.narrow')).display;</script>"
    )
    path = tmp_path / "report.html"
    framed = text.replace("</body>", f"{probe}</body>")
    path.write_text(framed)
    # Headless windows have a least width: the phone is an iframe.
    outer = tmp_path / "outer.html"
    outer.write_text(
        f"<iframe id=f src=report.html style='width:{width}px;height:900px;border:0'></iframe><script>"
        "f.onload = () => { document.title = f.contentDocument.title }</script>"
    )
    done = subprocess.run(
        [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
         "--window-size=1400,1000", "--virtual-time-budget=4000", "--dump-dom", f"file://{outer}"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    found = re.search(r"wide:(\d+):(\d+):(\w+)", done.stdout)
    assert found, done.stderr[-500:]
    assert int(found[1]) <= int(found[2]) == width
    assert found[3] == ("block" if width < 640 else "none")
