"""`rlmemo/Prewarm-v1`: what to load early and what to let go. The class docstring is the specification."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from env.gym.prewarm import PrewarmEnv
from env.gym.stepper import RESIDENT_COLUMNS


class MemoryEnv(PrewarmEnv):
    """
    ## Description
    `rlmemo/Prewarm-v0` with one more thing to decide: after every event, up to R of the targets that are
    resident are named, and leave first when room is needed, in the order of the action, until the next
    decision. When nobody is named, or all who are have gone, `config.let_go` says who leaves (by default the
    least recently used). What is in front never leaves for a prewarm; it may leave when the next target is
    opened. Saved seconds count from the world without plans, in which the least recently used always leaves.

    ## Action space
    `MultiDiscrete([C + 1, D] * K + [M + 1] * R)`: the picks of v0, then for each of R (`config.max_let_go`,
    default 2) a row of `residents`, counted from 1; 0 for nobody, and an empty row is nobody.

    ## Observation space
    That of v0, and

    | key | shape | range | meaning |
    |---|---|---|---|
    | residents | (M, 8) | [-1, 1] | who is resident, least recently used first (M = 12, no more) |

    Columns: 1 for a row that is not empty; in front; loaded early and not used yet; loading; memory as a
    share of the budget; cold minus warm seconds / 10; log(1 + seconds since it was in front or loaded) / 20;
    its place in the slate, counted from 1, / C (0: it is not in the slate).

    ## Wakes
    Where `config` switches machines off, or the recording says that one was, the agent is asked twice between
    two opens with a night in between: right after the first, and at the wake, when the person is back and
    nothing is opened yet. The second observation has its own slate and moment, by the wake's clock;
    everything is cold, nobody is in front, no row of `residents` is filled. The step that leads to it has a
    record without an open; `info["wake"]` says so. Delays count from the wake.

    Reward, episodes, arguments, fork and restore are those of v0; so is the rest of info.

    ## Version history
    * v1: R let-go choices and a row per resident; steps at wakes.
    """

    residents: ClassVar[int] = 12

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        rows = spaces.Box(-1.0, 1.0, (self.residents, len(RESIDENT_COLUMNS)), np.float32)
        self.observation_space = spaces.Dict({**self.observation_space.spaces, "residents": rows})  # type: ignore[assignment, attr-defined]

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Decide at this moment; the next event comes, or the wake before it."""
        step = super().step(action)
        step[4]["wake"] = self._walk.woken
        return step

    def _observation(self, out: np.ndarray) -> dict[str, np.ndarray]:
        seen = super()._observation(out)
        seen["residents"] = out[self._parts[4]].reshape(self.residents, -1)
        return seen
