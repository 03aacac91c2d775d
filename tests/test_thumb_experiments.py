"""The tables of what thumbs change, at once and after learning: what the scripts say of made-up results."""

from __future__ import annotations

import argparse
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments import thumbs_at_once, total_reward

FOUND = {
    "approval at equal waste": [0.1, 0.08, 0.12],
    "approval at equal coverage": [0.09, 0.07, 0.11],
    "hits at equal waste": [-0.001, -0.002, 0.0],
    "reward at the same threshold": [-0.004, -0.006, -0.002],
}


def test_it_says_how_many_each_has_really_rated() -> None:
    """Where the policy showed too little there are fewer than were asked for."""
    results = [
        {"found": [{"ratings": 200, "rated of each": rated, **FOUND}], "knowing": FOUND}
        for rated in (190.0, 200.0)
    ]
    head, _, row, knowing = thumbs_at_once.table(results).splitlines()
    assert head.startswith("| ratings of each | rated of each, mean | ")
    assert head.endswith(" | reward at the same threshold, s / open |")
    assert row.startswith("| 200 | 195.0 | 10.0 [8.6, 11.4] | ")
    assert row.endswith(" | -0.004 [-0.005, -0.003] |")
    assert knowing.startswith("| told the taste |  | ")


def test_the_first_of_each_are_fewer_where_there_are_no_more() -> None:
    placed: list[Any] = [
        SimpleNamespace(user=u, index=i) for u, n in ((0, 5), (1, 2)) for i in range(n)[::-1]
    ]
    kept = thumbs_at_once.first_of_each(placed, 3)
    assert [(p.user, p.index) for p in kept] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]


@pytest.mark.parametrize(
    ("given", "methods"), [([], ["dpo", "ppo"]), (["--methods", "kto", "grpo"], ["kto", "grpo"])]
)
def test_who_learns_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, given: list[str], methods: list[str]
) -> None:
    asked: list[argparse.Namespace] = []

    def measured(out: Any, args: argparse.Namespace, seed: int) -> total_reward.Result:
        asked.append(args)
        one = np.array([[0.1, 0.5], [0.3, -0.5]])
        per_open = dict.fromkeys(("sft", "approval", *args.methods), one)
        return total_reward.Result(per_open, {"sft": FOUND}, np.array([0, 1]))

    monkeypatch.setattr(total_reward, "measure", measured)
    monkeypatch.setattr(sys, "argv", ["total_reward", "--seeds", "7", "--out", str(tmp_path), *given])
    total_reward.main()
    assert asked[0].methods == methods
    rows = (tmp_path / "total.md").read_text().splitlines()
    assert {x.split(" | ")[0][2:] for x in rows[2:6]} == {"sft", "approval", *methods}
