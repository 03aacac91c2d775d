"""Costs that have a name, each with its source and what of it is an assumption; one's own, measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from env.errors import InputError
from env.judge.cost import Cost, CostModel
from env.judge.cost_file import read_costs


def _web_page() -> Cost:
    return Cost(memory_mb=100.0, cold_s=1.80, warm_s=0.32)


DESKTOP = CostModel(
    name="desktop",
    source=(
        "apps: geometric means of the typical ranges that UL publishes for PCMark 10 App Start-up "
        "(support.benchmarks.ul.com, article 44002160654): cold Writer 3.0-8.0 s, GIMP 4.5-9.1 s, Chromium "
        "1.3-3.0 s; warm Writer 0.9-1.8, GIMP 1.8-3.2, Chromium 0.17-0.35, Firefox 0.86-1.8 s; memory is an "
        "assumption"
    ),
    default=Cost(memory_mb=400.0, cold_s=4.0, warm_s=1.0),
    by_kind={
        "app": Cost(memory_mb=400.0, cold_s=4.0, warm_s=1.0),
        "page": _web_page(),
        "file": Cost(memory_mb=200.0, cold_s=4.0, warm_s=1.0),
    },
)
"""A desktop computer. PCMark's "warm start" starts the program again with its files cached, which is slower
than bringing a running window forward, so the saving (3.0 s) is on the careful side. Memory (400 MB an
app, 200 MB a document in an app that is shared) is an assumption, not a measurement; pages cost what
`WEB` says."""

PHONE = CostModel(
    name="phone",
    source=(
        "published Pixel 6a measurement quoted in the project's issue 3: a prewarmed app comes 0.509 s "
        "sooner; the warm wait (0.2 s) and the memory are assumptions"
    ),
    default=Cost(memory_mb=250.0, cold_s=0.709, warm_s=0.2),
    by_kind={"page": Cost(memory_mb=80.0, cold_s=0.709, warm_s=0.2)},
)
"""A phone. Only the difference of cold and warm enters saved seconds, and that is the published number.
(For comparison: Android vitals call a cold start slow from 5 s on; AppFlow, arXiv 2603.17259, measured
that 86.6 % of GB-sized apps take more than 1 s: heavy apps gain more than this preset says.)"""

WEB = CostModel(
    name="web",
    source=(
        "75th percentile of Largest Contentful Paint over sites watched by CoreDash: 1.80 s, prerendered "
        "0.32 s (search.agency/blog/speculation-rules-api-seo); memory is an assumption"
    ),
    default=_web_page(),
)
"""Web pages, prerendered by the browser. A second source agrees on the size: prerendering took Ray-Ban's
product pages from 3.03 s to 1.74 s on desktops (web.dev/case-studies/rayban-speculation-rules), a saving of
1.29 s over all page views. 100 MB a page is an assumption, not a measurement."""

VARIED = CostModel(
    name="varied",
    source=(
        "apps: from the lightest to the heaviest of UL's PCMark 10 App Start-up ranges "
        "(support.benchmarks.ul.com, article 44002160654): cold 1.3 s (Chromium) to 9.1 s (GIMP), warm 0.17 "
        "to 3.2 s; pages: a factor of 2.5 about the preset web, an assumption; memory (apps 100 to 1,600 MB, "
        "pages 30 to 330 MB) and where a target lies (drawn from its name) are assumptions"
    ),
    default=Cost(memory_mb=400.0, cold_s=3.4, warm_s=0.74),
    by_kind={"page": _web_page()},
    spread={
        "app": (Cost(100.0, 1.3, 0.17), Cost(1600.0, 9.1, 3.2)),
        "page": (Cost(30.0, 0.72, 0.13), Cost(330.0, 4.5, 0.8)),
        "file": (Cost(50.0, 1.3, 0.17), Cost(800.0, 9.1, 3.2)),
    },
)
"""A desktop on which programs and pages differ, as they do; the same target is the same for everybody."""

PRESETS = {"desktop": DESKTOP, "phone": PHONE, "web": WEB, "varied": VARIED}


def is_cost_file(spec: str) -> bool:
    """Whether a cost spec names a file and not a preset."""
    return spec.endswith(".json") or "/" in spec


def cost_model(spec: CostModel | str) -> CostModel:
    """A cost model, the preset of that name, or what a cost file says (`env.judge.cost_file`). Raises
    InputError for a name that is no preset, and for a file that is none."""
    if isinstance(spec, CostModel):
        return spec
    if spec in PRESETS:
        return PRESETS[spec]
    if is_cost_file(spec):
        return read_costs(spec)
    raise InputError(
        f"cost preset {spec!r} is unknown; give one of {', '.join(PRESETS)}, or a cost file (.json)"
    )


def measured_model(
    rows: Iterable[tuple[str, float, float, float]] | Mapping[str, Cost],
    *,
    name: str = "measured",
    source: str = "measured by the user",
    base: CostModel | str = "desktop",
) -> CostModel:
    """A cost model from one's own measurements.

    rows: `(target, memory_mb, cold_s, warm_s)`, several rows per target are reduced to their medians
    (a single slow start then does not decide); or a mapping from target to `Cost`. Targets that were
    not measured cost the median of those that were; where nothing was measured, what `base` says.
    Raises InputError for a row that is no possible cost.
    """
    fallback = cost_model(base)
    if isinstance(rows, Mapping):
        measured = dict(rows)
    else:
        samples: dict[str, list[tuple[float, float, float]]] = {}
        for target, memory_mb, cold_s, warm_s in rows:
            Cost(memory_mb, cold_s, warm_s)
            samples.setdefault(target, []).append((memory_mb, cold_s, warm_s))
        measured = {
            target: Cost(*(float(x) for x in np.median(np.array(s), axis=0))) for target, s in samples.items()
        }
    if not measured:
        return replace(fallback, name=name, source=f"nothing measured; {fallback.source}")
    middle = np.median([(c.memory_mb, c.cold_s, c.warm_s) for c in measured.values()], axis=0)
    return CostModel(name=name, source=source, default=Cost(*(float(x) for x in middle)), by_target=measured)
