"""The report: one file that needs nothing else, says what is synthetic, and can be read on a phone."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env.sources import load_timelines
from env.splits import chrono
from rlmemo.evaluation.bootstrap import Estimate
from rlmemo.evaluation.evaluate import Evaluation, Judged, Setting, evaluate
from rlmemo.policies.registry import make_policies
from rlmemo.report.evaluation import CALIBRATION, evaluation_page, evaluation_sections
from rlmemo.report.figures import OWN_COLORS, Axis, Line, colors, curves, heat, intervals
from rlmemo.report.page import Figure, Page, Section, Table
from rlmemo.report.result import best_policy, first_table, hits_against_waste, result, telling
from rlmemo.report.terminal import in_a_hundred, result_table
from tests.test_gain import round_and_round

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
    assert "Cold opens at each memory budget" in text


def told(**saved: tuple[float, float, float]) -> Evaluation:
    """An evaluation of policies of which nothing is known but (saved, share of the bound, prewarms)."""
    policies = {
        name: Judged(
            name,
            {
                "saved_seconds_per_open": Estimate(seconds), "oracle_share": Estimate(share),
                "prewarms_per_open": Estimate(prewarms), "reward_per_open": Estimate(seconds),
                "hr@1": Estimate(0.5), "hit_rate": Estimate(0.1), "waste_rate": Estimate(float("nan")),
            },
        )
        for name, (seconds, share, prewarms) in saved.items()
    }  # fmt: skip
    return Evaluation(
        "t", "chrono", True, False, Setting(), 900, 2, policies, {n: {} for n in policies}, {"a": 900}, []
    )


def test_the_result_in_words() -> None:
    found = told(dpo=(0.09, 0.13, 0.4), markov1=(0.05, 0.07, 0.2), mru=(0.0, 0.0, 0.0), none=(0.0, 0.0, 0.0))
    assert best_policy(found) == "dpo"
    assert result(found, "dpo") == [
        "dpo saves 0.090\u00a0s of waiting per open, 13\u00a0% of what a clairvoyant would.",
        "markov1, the best counting rule, saves 0.050\u00a0s, 7\u00a0%.",
    ]
    for low, luck in ((0.01, "is more than luck"), (-0.01, "cannot be told from luck")):
        difference = ("markov1", Estimate(0.04, low, 0.07))
        found.differences["dpo"] = {"saved_seconds_per_open": difference}
        assert luck in result(found, "dpo")[1]
    assert "(95\u00a0% interval −0.01 to 0.07\u00a0s)" in result(found, "dpo")[1]
    assert result(found, "dpo", "The trained model")[0].startswith("The trained model saves 0.090")
    assert "the next best counting rule" in result(found, "markov1")[1]
    assert result(found, "mru")[0] == "mru keeps still: it never prewarms, so it saves nothing."


def test_the_trees_stand_beside_the_result_and_luck_is_named_for_reward_too() -> None:
    found = told(dpo=(0.09, 0.13, 0.4), mru=(0.05, 0.07, 0.2), gbdt=(0.08, 0.11, 0.3))
    saved, reward = Estimate(0.02, 0.01, 0.03), Estimate(0.07, -0.01, 0.15)
    found.against_gbdt["dpo"] = {
        "saved_seconds_per_open": ("gbdt", saved),
        "reward_per_open": ("gbdt", reward),
    }
    assert result(found, "dpo")[2] == (
        "gbdt, decision trees, saves 0.080\u00a0s, 11\u00a0%. The difference, 0.02\u00a0s, is more than luck "
        "(95\u00a0% interval 0.01 to 0.03\u00a0s). In reward, 0.07, it cannot be told from "
        "luck (−0.01 to 0.15)."
    )
    found.against_gbdt["dpo"]["reward_per_open"] = ("gbdt", saved)
    assert "In reward" not in result(found, "dpo")[2], "said once where both are the same"
    assert not any("gbdt, decision" in said for said in result(found, "gbdt")), "not beside itself"
    untold = Estimate(0.02)
    found.against_gbdt["dpo"] = {"saved_seconds_per_open": ("gbdt", untold)}
    found.differences["dpo"] = {"saved_seconds_per_open": ("mru", untold)}
    said = " ".join(result(found, "dpo"))
    assert said.count("too few sessions") == 1
    assert said.endswith("to say whether the differences are luck.")


def test_who_plans_without_a_threshold_is_named(evaluation: Evaluation) -> None:
    own = replace(evaluation.policies["mru"], threshold=float("nan"))
    found = replace(evaluation, policies={**evaluation.policies, "mru": own})
    (section,) = [s for s in evaluation_sections(found) if s.title == "What prewarming brought"]
    chosen, without = section.notes
    assert chosen.startswith("Thresholds chosen on validation: markov1 ")
    assert without == "By plans of their own, without a threshold: mru."


def test_the_result_of_who_makes_it_worse_and_of_who_stands_alone() -> None:
    found = told(base=(-0.2, -0.1, 1.0))
    assert result(found, "base") == [
        "base costs 0.20\u00a0s of waiting per open: what it prewarmed pushed out what was needed."
    ]
    alone = told(none=(0.0, 0.0, 0.0))
    assert best_policy(alone) == "none"
    assert [row[0] for row in first_table(alone, "none").rows] == ["none"]


def test_where_nothing_can_be_saved_the_first_screen_says_why() -> None:
    timelines = [round_and_round(6)]
    setting = Setting(replicates=40, latency_decisions=3, budgets=(8.0,))
    found = evaluate(make_policies("mru,markov1"), timelines, chrono(timelines), setting=setting)
    assert found.nothing
    assert found.nothing in found.notes
    page = evaluation_page(found)
    assert page.result[0].startswith("None of 60 opens was cold without prewarming, so there is nothing to ")
    assert page.figure is None
    assert "try --budget" in page.result[0]
    assert page.result[1].startswith("What is left to compare is how often the next open was guessed: m")
    assert "fit into memory" in page.html()


def test_of_many_policies_the_first_screen_has_those_that_matter() -> None:
    counting = {name: (0.01 * k, 0.0, 1.0) for k, name in enumerate(("mfu", "mru", "markov1", "backoff3"))}
    found = told(
        **counting, omnibox=(0.0, 0.0, 1.0), gbdt=(0.02, 0.0, 1.0), sft=(0.05, 0, 1), dpo=(0.04, 0, 1)
    )
    assert telling(found, "dpo") == ["sft", "dpo", "backoff3", "gbdt"]
    table = first_table(found, "dpo")
    assert table.main == 1
    assert [row[0].partition("\n")[0] for row in table.rows] == telling(found, "dpo")
    assert "4 of 8 policies" in table.caption
    for word in ("Prewarm:", "Hits:", "Wasted:", "Saved:", "Reward per open:", "hr@1:"):
        assert word in table.caption


@pytest.mark.parametrize(
    ("columns", "headers"),
    [
        (80, [["hr@1", "hr@5", "mrr@5", "hits", "kept", "wasted", "saved", "s", "oracle", "reward"]]),
        (60, [["hr@1", "hr@5", "mrr@5"], ["hits", "kept", "wasted", "saved", "s", "oracle", "reward"]]),
    ],
)
def test_the_terminal_has_room_for_the_table_and_says_the_result(
    columns: int, headers: list[list[str]], evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = result_table(evaluation, "mru").splitlines()
    assert max(map(len, lines)) <= columns
    assert [line.split()[1:] for line in lines if line.startswith("policy ")] == headers
    said = " ".join(lines[lines.index("", len(lines) - 6) + 1 :])
    assert said == " ".join(result(evaluation, "mru")).replace("\u00a0", " ")


def test_what_was_loaded_kept_and_let_go_in_a_hundred_opens(evaluation: Evaluation) -> None:
    metrics = evaluation.policies["markov1"].metrics
    loaded, hits = (f"{100 * metrics[name].value:.1f}" for name in ("prewarms_per_open", "hit_rate"))
    said = in_a_hundred(evaluation, "markov1", "The trained model (the SFT model)")
    assert said.startswith("in 100 opens the trained model (the SFT model) loaded ")
    assert f"loaded {loaded} early, {hits} of them hits; kept 0.0 by" in said
    assert in_a_hundred(evaluation, "markov1").startswith("in 100 opens markov1 loaded")
    assert in_a_hundred(evaluation, "none") == "", "it did nothing"


def test_every_policy_has_one_colour_on_a_page(evaluation: Evaluation) -> None:
    own = replace(evaluation, policies=dict(evaluation.policies))
    own.policies |= {"runs/a": own.policies["mru"], "runs/b": own.policies["markov1"]}
    few, all_of = (hits_against_waste(own, names) for names in (["runs/b", "mru"], list(own.policies)))
    assert few is not None
    assert all_of is not None
    assert dict(few.keys)["runs/b"] == dict(all_of.keys)["runs/b"]


def test_few_events_get_a_table_and_no_curve(evaluation: Evaluation) -> None:
    def calibrated(n: int) -> Section:
        sections = evaluation_sections(replace(evaluation, n_events=n))
        return next(s for s in sections if s.title == CALIBRATION)

    few, many = calibrated(113), calibrated(500)
    assert "113 events are too few for a curve" in few.text[0]
    assert "113 events" in few.inside
    (table,) = few.parts
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows[::2]] == telling(evaluation, "markov1")
    assert all(isinstance(part, Figure) for part in many.parts)
    assert len(many.parts) == 3


def test_neighbouring_bins_are_put_together(evaluation: Evaluation) -> None:
    found = evaluation.policies["markov1"].calibration
    assert found is not None
    ((said, right, size),) = found.merged(1)
    assert size == found.size.sum()
    assert said == pytest.approx(found.predicted @ found.size / size)
    assert right == pytest.approx(found.observed @ found.size / size)
    assert sum(part[2] for part in found.merged(3)) == size
    assert len(found.merged(100)) == len(found.size)


def test_all_but_the_first_screen_is_folded_and_says_what_is_inside(
    evaluation: Evaluation, text: str
) -> None:
    sections = evaluation_sections(evaluation)
    assert text.count("<details>") == text.count("<summary>") == len(sections) + 1
    assert "<details open" not in text
    for section in sections:
        assert section.inside
        assert section.inside.endswith(")") or not section.inside.endswith(".")
    header = text[text.index("<header>") : text.index("</header>")]
    assert all(f">{name}<" in header for name in ("mru", "markov1", "omnibox"))
    assert '<div class="result"><p>' in header


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
    curves({"a": Line(x, np.array([np.nan, 1.0]))}, x=Axis("x"), y=Axis("y"), alt="with a gap")
    intervals([("t", {"a": (float("nan"),) * 3, "b": (0.5, 0.4, 0.6)})], alt="with a missing value")
    figure = heat(["u"], ["p"], np.array([[np.nan]]), alt="empty")
    assert figure.wide.startswith("<svg")
    assert "<?xml" not in figure.narrow


def test_text_is_escaped() -> None:
    table = Table(["<h>"], [["<c>\n<small>"]], "<i>")
    page = Page(
        title="<b>", lead="a & b", badge="recorded data", result=["<i>"], table=table,
        figure=Figure("", "", "<i>", (("<i>", "<i>"),), "<i>"), facts=[("<i>", "<i>")],
        sections=[Section("<i>", ["<i>"], [table], ["<i>"], "<i>")], command="<i>",
    ).html()  # fmt: skip
    body = page.split("</style>")[1]
    for raw in ("<b>", "<i>", "<h>", "<c>", "<small><small>"):
        assert raw not in body


def test_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = Page("t", "l", "recorded data").write(tmp_path / "sub" / "report.html")
    assert path.read_text().endswith("</html>\n")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_sticks_out_at_the_side(width: int, text: str, tmp_path: Path, shell: str) -> None:
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
        [shell, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
         "--window-size=1400,1000", "--virtual-time-budget=4000", "--dump-dom", f"file://{outer}"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    found = re.search(r"wide:(\d+):(\d+):(\w+)", done.stdout)
    assert found, done.stderr[-500:]
    assert int(found[1]) <= int(found[2]) == width
    assert found[3] == ("block" if width < 640 else "none")


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_first_screen_has_the_result(
    width: int, dark: bool, text: str, tmp_path: Path, browser: Any
) -> None:
    """What was compared, the words, the table and the figure lie within the first 800 pixels, whole."""
    path = tmp_path / "report.html"
    path.write_text(text)
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light"
    )
    page = context.new_page()
    page.goto(f"file://{path}")
    for what in (".badge", "h1", ".lead", ".result", ".shown table", ".shown caption", ".shown figure"):
        box = page.locator(what).bounding_box()
        assert box["height"] > 8, what
        assert box["x"] >= 0, what
        assert box["x"] + box["width"] <= width, what
        assert box["y"] + box["height"] <= 800, what
    assert page.evaluate("document.documentElement.scrollHeight") < 2200
    assert page.evaluate("document.documentElement.scrollWidth") == width
    context.close()


@pytest.mark.browser
@pytest.mark.slow
def test_a_click_a_link_and_print_open_what_is_folded(text: str, tmp_path: Path, browser: Any) -> None:
    path = tmp_path / "report.html"
    path.write_text(text)
    page = browser.new_page()
    page.goto(f"file://{path}")
    assert not page.locator("#s0").is_visible()
    page.locator("summary").first.click()
    assert page.locator("#s0").is_visible()
    page.goto(f"file://{path}#setting")
    assert page.locator("#setting").is_visible()
    folded = page.evaluate("document.documentElement.scrollHeight")
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollHeight") > 2 * folded
    page.close()
