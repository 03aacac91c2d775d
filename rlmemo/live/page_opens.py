"""A page opened cold, from the cache, and from a tab in the background, in a browser of its own.

cold     a context without cache, cookies or connections: from the request until the page is loaded, and a
         frame of it is drawn
cached   in a context that has loaded it once before, the tab closed since
warmed   loaded in a background tab beforehand; from bringing it to the front until a frame is drawn
warm     back to a tab in which it was looked at already
"""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from env.errors import InputError
from env.sources.names import target_and_kind
from rlmemo.live.browser_pipe import BrowserPipe
from rlmemo.live.programs import StartingPlace
from rlmemo.live.starts import Samples, say

DRAWN = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))"
CACHED = ", in the cache"
LOOKS, LOOK_S, STEADY_MB = 15, 0.3, 1.0
"""How often memory is looked at until it stands still, after how many seconds each, and what is still."""


def measure_page(url: str, place: StartingPlace, repeats: int) -> list[Samples]:
    """What opening a page takes with a background tab, and with its files in the cache. Raises InputError for
    an address that does not load."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise InputError(f"--page {url!r}: give an address that begins with http:// or https://")
    host, _ = target_and_kind(url)
    tab, cache = Samples(host, "page"), Samples(host + CACHED, "page")
    with BrowserPipe(Path(tempfile.mkdtemp(prefix="browser-", dir=place.folder))) as browser:
        for k in range(repeats):
            say(f"{host}: {k + 1} of {repeats}")
            _with_tab(browser, url, tab)
            _with_cache(browser, url, tab, cache)
    tab.memory_mb = cache.memory_mb = round(max(tab.memory_mb, 0.0) / repeats, 2)
    return [tab, cache]


class Tab:
    """A tab of a browser's context."""

    def __init__(self, browser: BrowserPipe, context: str, *, background: bool = False) -> None:
        self.browser = browser
        self.id = browser.call(
            "Target.createTarget", url="about:blank", browserContextId=context, background=background
        )["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=self.id, flatten=True)["sessionId"]
        for part in ("Page", "Network"):
            browser.call(f"{part}.enable", self.session)

    def load(self, url: str) -> None:
        """Go there, and wait until it is loaded. Raises InputError where it does not load."""
        said = self.browser.call("Page.navigate", self.session, url=url)
        if "errorText" in said:
            raise InputError(f"--page {url}: does not load ({said['errorText']}); is its server running?")
        self.browser.wait("Page.loadEventFired", self.session)

    def draw(self) -> None:
        """Wait until a frame is drawn."""
        self.browser.call("Runtime.evaluate", self.session, expression=DRAWN, awaitPromise=True)

    def front(self) -> None:
        """Bring it to the front, and wait until a frame is drawn."""
        self.browser.call("Page.bringToFront", self.session)
        self.draw()

    def fetched_mb(self) -> float:
        """What came over the network for it so far, MB."""
        mine = [x for x in self.browser.events if x.get("sessionId") == self.session]
        done = [x for x in mine if x["method"] == "Network.loadingFinished"]
        return sum(float(x["params"]["encodedDataLength"]) for x in done) / 2**20

    def close(self) -> None:
        """Close it."""
        self.browser.call("Target.closeTarget", targetId=self.id)


def _with_tab(browser: BrowserPipe, url: str, found: Samples) -> None:
    """One cold open; then one from a background tab, twice."""
    context = browser.call("Target.createBrowserContext")["browserContextId"]
    front = Tab(browser, context)
    began = time.perf_counter()
    front.load(url)
    front.draw()
    found.cold_s.append(round(time.perf_counter() - began, 4))
    browser.call("Target.disposeBrowserContext", browserContextId=context)

    context = browser.call("Target.createBrowserContext")["browserContextId"]
    front = Tab(browser, context)
    before = _steady_mb(browser)
    began = time.perf_counter()
    behind = Tab(browser, context, background=True)
    behind.load(url)
    found.read_s.append(round(time.perf_counter() - began, 4))
    found.read_mb.append(round(behind.fetched_mb(), 4))
    found.files_mb = found.read_mb[-1]
    found.memory_mb += _memory_mb(browser) - before
    front.front()
    found.warmed_s.append(_brought(behind))
    front.front()
    found.warm_s.append(_brought(behind))
    browser.call("Target.disposeBrowserContext", browserContextId=context)
    browser.events.clear()


def _with_cache(browser: BrowserPipe, url: str, with_tab: Samples, found: Samples) -> None:
    """One open of what is in the cache; cold and warm are those of the other samples."""
    context = browser.call("Target.createBrowserContext")["browserContextId"]
    Tab(browser, context)
    first = Tab(browser, context, background=True)
    began = time.perf_counter()
    first.load(url)
    found.read_s.append(round(time.perf_counter() - began, 4))
    found.read_mb.append(round(first.fetched_mb(), 4))
    found.files_mb = found.read_mb[-1]
    first.close()
    again = Tab(browser, context)
    began = time.perf_counter()
    again.load(url)
    again.draw()
    found.warmed_s.append(round(time.perf_counter() - began, 4))
    found.cold_s.append(with_tab.cold_s[-1])
    found.warm_s.append(with_tab.warm_s[-1])
    browser.call("Target.disposeBrowserContext", browserContextId=context)
    browser.events.clear()


def _brought(tab: Tab) -> float:
    began = time.perf_counter()
    tab.front()
    return round(time.perf_counter() - began, 4)


def _steady_mb(browser: BrowserPipe) -> float:
    """What the browser holds once it stands still: the process of a tab that was closed takes a while to end,
    on a busy machine more than a second."""
    held = _memory_mb(browser)
    for _ in range(LOOKS):
        time.sleep(LOOK_S)
        before, held = held, _memory_mb(browser)
        if abs(held - before) < STEADY_MB:
            break
    return held


def _memory_mb(browser: BrowserPipe) -> float:
    held = 0
    for process in browser.family():
        with suppress(psutil.Error, OSError):
            held += process.memory_full_info().pss
    return held / 2**20
