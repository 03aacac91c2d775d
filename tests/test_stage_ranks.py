"""A run's stages on either part of its split: the report's figures, and paired differences of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import stage_ranks
from tests.tiny_text_model import write_text_model

pytestmark = pytest.mark.usefixtures("light_trainings")


@pytest.mark.slow
def test_a_part_is_ranked_as_the_report_has_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlmemo.train import main

    base, run = write_text_model(tmp_path / "model", kind="llama"), tmp_path / "run"
    rng = np.random.default_rng(0)
    t = 1.7e9 + np.cumsum(rng.exponential(900, 300))
    lines = [f"ada,{x:.0f},app{k}" for x, k in zip(t, rng.zipf(1.6, 300) % 9, strict=True)]
    (tmp_path / "opens.csv").write_text("user,t,target\n" + "\n".join(lines) + "\n")
    settings = {
        "timelines": tmp_path / "opens.csv", "tz": "UTC", "model": base, "method": "sft", "sft-states": 32,
        "sft-batch": 8, "history": 4, "policies": "backoff3", "out": run,
    }  # fmt: skip
    assert main([y for k, v in settings.items() for y in (f"--{k}", str(v))]) == 0
    report = json.loads((run / "report.json").read_text())
    capsys.readouterr()
    found = {}
    for part in ("validation", "test"):
        monkeypatch.setattr(sys, "argv", ["stage_ranks", str(run), "--part", part])
        assert stage_ranks.main() == 0
        head, _, *table = (x.strip("| ").split(" | ") for x in capsys.readouterr().out.splitlines())
        assert head == list(stage_ranks.HEAD)
        found[part] = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in table}
    assert list(found["test"]) == [
        "as it came", "as it came with its trees", "sft alone", "sft with its trees", "backoff3",
    ]  # fmt: skip
    same = {
        "as it came": "base",
        "sft alone": "sft alone",
        "sft with its trees": "sft",
        "backoff3": "backoff3",
    }
    for m in stage_ranks.METRICS:
        for name, theirs in same.items():
            assert found["test"][name][m] == f"{report['policies'][theirs][m]['value']:.3f}", (name, m)
        validated = report["stages"]["sft"]["validation"][m]
        assert found["validation"]["sft with its trees"][m] == f"{validated:.3f}"
    for rows in found.values():
        for name, row in rows.items():
            for other in stage_ranks.AGAINST:
                for m in stage_ranks.METRICS:
                    value, low, high = (float(x.strip("[],")) for x in row[f"{m} less {other}"].split())
                    assert value == pytest.approx(float(row[m]) - float(rows[other][m]), abs=0.0011)
                    assert low <= value <= high
                    assert name != other or (low, high) == (0, 0)
