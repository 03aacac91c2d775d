"""The thumbs that a person has given, as they stand in the database, for the next plan to mind.

Whether something was said is asked before every plan, and costs next to nothing where nobody has written;
read is only what is new. What was said counts at every moment from then on, as of `told_today`; whether what
was rated was opened next is added once it is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from env.thumbs import Thumbs
from rlmemo.approval.thumbs_said import told_today
from rlmemo.store.live_ledger import LiveLedger


@dataclass
class Hearing:
    """Listens for one recording. thumbs: all that was said of it; None where nothing was, so that nobody is
    asked another question than before."""

    ledger: LiveLedger
    thumbs: Thumbs | None = None
    _written: int | None = None
    _said: dict[str, int] = field(default_factory=dict)

    def listen(self) -> bool:
        """Whether other thumbs count than when this was asked last."""
        written = self.ledger.written_elsewhere()
        if written == self._written:
            return False
        self._written = written
        said = self.ledger.said()
        if said == self._said:
            return False
        self._said = said
        before, known = self.thumbs, said["ratings"] > 0
        self.thumbs = told_today([self.ledger.timeline()], self.ledger.store)[0].thumbs if known else None
        return not (before is None and self.thumbs is None)

    def opened(self, target: str) -> bool:
        """Something was opened: whether that tells of a thumb on the moment before whether its plan was
        right."""
        if self.thumbs is None:
            return False
        open_ones = np.isnan(self.thumbs.hit) & np.array([len(x) > 0 for x in self.thumbs.targets], bool)
        if not open_ones.any():
            return False
        right = np.array([float(target in x) for x in self.thumbs.targets])
        self.thumbs = replace(self.thumbs, hit=np.where(open_ones, right, self.thumbs.hit))
        return True
