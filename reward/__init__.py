"""What an outcome is worth: named, weighted terms over the judge's records. Knows nothing of torch."""

from __future__ import annotations

from reward.compose import PRESETS, Reward, parse_reward
from reward.terms import TERMS, Term, term

__all__ = ["PRESETS", "TERMS", "Reward", "Term", "parse_reward", "term"]
