"""The speed comparison runs, compares the same decisions, and its three ways agree."""

from __future__ import annotations

import json

import pytest


@pytest.mark.slow
def test_the_three_ways_are_compared_on_the_same_decisions(capsys: pytest.CaptureFixture[str]) -> None:
    from experiments.bench_policy import main

    main(["--quick", "--history", "16"])
    printed = capsys.readouterr().out.strip().splitlines()
    assert len(printed) == 1
    line = json.loads(printed[0])
    for name in ("embedded", "small_text_history_16"):
        found = line[name]
        for way in ("generate", "first_token", "batch", "streaming"):
            assert found[way]["decisions_per_second"] > 0
        assert 0 < found["streaming"]["p50_ms"] <= found["streaming"]["p95_ms"]
        assert 1 <= found["generated_tokens"] <= found["max_new_tokens"] == 7
        assert found["apart"] < (1e-5 if found["dtype"] == "float32" else 0.05)
        assert 0 < found["peak_rss_mb"] < 8192
    # Generous, since other tests run at the same time; the bars are measured on a quiet machine.
    assert line["embedded"]["batch_over_generate"] > 5
    assert line["embedded"]["streaming_over_generate"] > 1.5
    assert line["threads"] >= 1
    assert {"torch", "transformers"} <= set(line["versions"])
    over = max(line["load_average"]) - line["threads"] - 0.5
    if abs(over) > 0.01:  # what is printed is rounded
        assert ("warning" in line) == (over > 0)
