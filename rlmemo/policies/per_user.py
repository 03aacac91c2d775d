"""Many adapters on one model that is loaded once: each user's events are read with that user's own.

The low-rank kinds and IA3 stay beside the weights they change, and peft switches between them; what stands
before a text (`rlmemo.policies.virtual_tokens`) is exchanged in its hook. Nothing is merged, so a switch
costs next to nothing and never rounds, and reading costs a little more than with a merged adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from env.cost import Costs, WorldConfig
from env.errors import InputError
from env.splits import Split
from env.timeline import Timeline
from rlmemo.policies.planners import Planned
from rlmemo.policies.protocol import Ranking

SHARED = "shared"


class Switching:
    """A base model with a shared adapter and those of some users; `model` reads with the one in use.

    adapters: folder of each user's adapter. They are read from disk when they are first asked for.
    """

    def __init__(self, base: Any, shared: Path, adapters: dict[str, Path]) -> None:
        from peft import PeftModel

        from rlmemo.learning.adapters import PROMPTED, hushed, kind_of

        self.adapters, self.shared, self.now = adapters, shared, SHARED
        self.kind = kind_of(shared)
        wrong = [p for p in adapters.values() if kind_of(p) != self.kind]
        if wrong:
            raise InputError(f"adapter {wrong[0]}: is of another kind than {shared}; train it again")
        self._hook: Any = None
        self._learned: dict[str, Any] = {}
        if self.kind in PROMPTED:
            from rlmemo.policies.virtual_tokens import install

            self.model = base.eval()
            self._hook = install(base, None)
            self._hook.learned = self._read(shared)
            self._learned[SHARED] = self._hook.learned
        else:
            with hushed():
                self._peft = PeftModel.from_pretrained(
                    base, str(shared), adapter_name=SHARED, use_safetensors=True
                )
            self.model = self._peft.get_base_model().eval()
            self._known = {SHARED}

    def use(self, user: str) -> None:
        """Read with the adapter of `user` from now on, the shared one where there is none."""
        path = self.adapters.get(user)
        name = SHARED if path is None else f"u_{path.name}"
        if name == self.now:
            return
        if self._hook is not None:
            if name not in self._learned:
                self._learned[name] = self._read(path)
            self._hook.learned = self._learned[name]
        else:
            if name not in self._known:
                self._load(name, path)
                self._known.add(name)
                self.model.eval()
            self._peft.set_adapter(name)
            self._peft.requires_grad_(False)
        self.now = name

    def _load(self, name: str, path: Path | None) -> None:
        from rlmemo.learning.adapters import UNREADABLE, hushed, unreadable

        try:
            with hushed():
                self._peft.load_adapter(str(path), adapter_name=name, use_safetensors=True)
        except UNREADABLE as error:
            raise unreadable(Path(str(path)), error) from None

    def _read(self, path: Path | None) -> Any:
        from peft import PeftModel

        from rlmemo.learning.adapters import UNREADABLE, unreadable
        from rlmemo.policies.virtual_tokens import keys_and_values

        before, self._hook.learned = self._hook.learned, None
        try:
            made = PeftModel.from_pretrained(self.model, str(path), use_safetensors=True)
            return keys_and_values(made.eval())
        except UNREADABLE as error:
            raise unreadable(Path(str(path)), error) from None
        finally:
            self._hook.learned = before


def switching(base: Any, run: Path) -> Switching:
    """The adapters of a run folder that are in use. Raises InputError where one cannot be read."""
    from rlmemo.learning.adapters import UNREADABLE, unreadable
    from rlmemo.learning.per_user import user_adapters

    found = {a.user: a.path for a in user_adapters(run) if a.in_use}
    try:
        return Switching(base, run / "adapter", found)
    except InputError:
        raise
    except UNREADABLE as error:
        raise unreadable(run / "adapter", error) from None


class PerUserPolicy:
    """A policy over a switching model: every timeline is read with its user's adapter."""

    def __init__(self, policy: Any, switch: Switching) -> None:
        self.policy, self.switch = policy, switch
        self.name, self.model = policy.name, switch.model

    def fit(self, timelines: Sequence[Timeline], split: Split, *, seed: int = 0) -> None:
        """Nothing: it was trained by `python -m rlmemo.train`."""

    def rank(self, timeline: Timeline, indices: np.ndarray) -> Ranking:
        """See `Policy.rank`."""
        self.switch.use(timeline.user)
        ranking: Ranking = self.policy.rank(timeline, indices)
        return ranking


class PlanningPerUserPolicy(PerUserPolicy):
    """The same for a policy with plans of its own."""

    def plan(
        self, timeline: Timeline, indices: np.ndarray, costs: Costs, config: WorldConfig, *, seed: int = 0
    ) -> Planned:
        """See `PlanningPolicy.plan`."""
        self.switch.use(timeline.user)
        planned: Planned = self.policy.plan(timeline, indices, costs, config, seed=seed)
        return planned


def per_user(policy: Any, switch: Switching) -> PerUserPolicy:
    """`policy`, whose model is that of `switch`, switching by user."""
    kind = PlanningPerUserPolicy if hasattr(policy, "plan") else PerUserPolicy
    return kind(policy, switch)
