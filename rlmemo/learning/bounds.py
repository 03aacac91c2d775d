"""What a number among the settings may be."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """The numbers that a setting accepts: `low` or more, or more than `above`; at most `high`."""

    low: float = -math.inf
    above: float = -math.inf
    high: float = math.inf

    def hold(self, value: float) -> bool:
        """Whether `value` is accepted."""
        return self.low <= value <= self.high and value > self.above

    def in_words(self) -> str:
        """As refusals and the table of options say it: `1 or more`, `a share, 0 to 1`; empty: any."""
        kind = "a share" if self.high == 1 else "a number"
        if self.above > -math.inf:
            return f"{kind} above {self.above}" + ("" if self.high == math.inf else f", at most {self.high}")
        if self.low == -math.inf:
            return ""
        if self.high == math.inf:
            return f"{self.low} or more"
        return f"{self.low} to {self.high}" if self.high != 1 else f"{kind}, {self.low} to {self.high}"
