"""Where a language policy's model comes from: loaded, loaded when asked for, or switched from user to user.

A `Switching` has many adapters on one model that is loaded once: each user's events are read with that
user's own.

What stands before a text (`rlmemo.model.virtual_tokens`) is exchanged in its hook. Of the kinds that
change weights, a small model keeps every user's merged weights and puts them in their place, which reads as
fast as one merged adapter does; in a large one they stay beside the weights and peft switches between them,
which costs no memory. Neither way rounds: going back to a user gives the same numbers to the last bit.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from env.errors import InputError
from rlmemo.model.hub import PROMPTED
from rlmemo.model.virtual_tokens import install, keys_and_values
from rlmemo.runs.user_adapters import kind_of, user_adapters

SHARED = "shared"


LARGEST = 50_000_000
"""Parameters up to which a model keeps merged weights for every user."""
MOST = 256
"""Adapters that are kept in memory; of more, the one that was used longest ago is read again when it is asked
for."""


class Switching:
    """A base model with a shared adapter and those of some users; `model` reads with the one in use.

    adapters: folder of each user's adapter. They are read from disk when they are first asked for. merged:
    whether to keep merged weights (None: by the model's size).
    """

    def __init__(
        self, base: Any, shared: Path, adapters: dict[str, Path], merged: bool | None = None
    ) -> None:
        self.adapters, self.shared = adapters, shared
        kind = kind_of(shared)
        wrong = [p for p in adapters.values() if kind_of(p) != kind]
        if wrong:
            raise InputError(f"adapter {wrong[0]}: is of another kind than {shared}; train it again")
        small = sum(p.numel() for p in base.parameters()) <= LARGEST
        self._way: _Hooked | _Merged | _Beside
        if kind in PROMPTED:
            self._way = _Hooked(base.eval())
        elif small if merged is None else merged:
            self._way = _Merged(base.eval())
        else:
            self._way = _Beside(base.eval())
        self._now = ""
        self.use("")
        self.model = self._way.model

    def of(self, user: str) -> Any:
        """The model, reading with the adapter of `user`."""
        self.use(user)
        return self.model

    def whose(self, user: str) -> str:
        """What the adapter of `user` is called here: the same for those whose events are read alike."""
        return f"u_{self.adapters[user].name}" if user in self.adapters else SHARED

    def use(self, user: str) -> None:
        """Read with the adapter of `user` from now on, the shared one where there is none.

        Raises InputError where it cannot be read."""
        from rlmemo.model.adapters import UNREADABLE, hushed, unreadable

        path, name = self.adapters.get(user, self.shared), self.whose(user)
        if name == self._now:
            return
        self._now = ""  # if it fails, the next call begins anew
        try:
            with hushed():
                self._way.use(name, path)
        except InputError:
            raise
        except UNREADABLE as error:
            raise unreadable(path, error) from None
        self._now = name


class _Hooked:
    """Learned tokens, exchanged in their hook."""

    def __init__(self, base: Any) -> None:
        self.model, self.hook = base, install(base, None)
        self.known: dict[str, Any] = {}

    def use(self, name: str, path: Path) -> None:
        from peft import PeftModel

        _keep(self.known, name)
        if name not in self.known:
            before, self.hook.learned = self.hook.learned, None
            try:
                made = PeftModel.from_pretrained(self.model, str(path), use_safetensors=True)
                self.known[name] = keys_and_values(made.eval())
            finally:
                self.hook.learned = before
        self.hook.learned = self.known[name]


class _Merged:
    """Every user's merged weights, as far as they are others than the base's."""

    def __init__(self, base: Any) -> None:
        self.model = base
        self.base = {n: p.detach().clone() for n, p in base.named_parameters()}
        self.known: dict[str, dict[str, Any]] = {}
        self.changed: set[str] = set()

    def use(self, name: str, path: Path) -> None:
        import torch

        from rlmemo.model.adapters import reading

        with torch.no_grad():
            self._put({n: self.base[n] for n in self.changed})
            self.changed = set()
            _keep(self.known, name)
            if name not in self.known:
                made = dict(reading(copy.deepcopy(self.model), path).named_parameters())
                self.known[name] = {
                    n: p.detach() for n, p in made.items() if not torch.equal(p, self.base[n])
                }
            self._put(self.known[name])
            self.changed = set(self.known[name])

    def _put(self, weights: dict[str, Any]) -> None:
        own = dict(self.model.named_parameters())
        for n, w in weights.items():
            own[n].copy_(w)


class _Beside:
    """Adapters beside the weights; peft says which of them counts."""

    def __init__(self, base: Any) -> None:
        self.model = base
        self.peft: Any = None
        self.known: dict[str, Any] = {}

    def use(self, name: str, path: Path) -> None:
        from peft import PeftModel

        gone = _keep(self.known, name)
        if self.peft is None:
            self.peft = PeftModel.from_pretrained(
                self.model, str(path), adapter_name=name, use_safetensors=True
            )
            self.model = self.peft.get_base_model().eval()
        elif name not in self.known:
            self.peft.load_adapter(str(path), adapter_name=name, use_safetensors=True)
            self.model.eval()
        self.known[name] = True
        self.peft.set_adapter(name)
        for other in gone:
            self.peft.delete_adapter(other)
        self.peft.requires_grad_(False)


def _keep(known: dict[str, Any], name: str) -> list[str]:
    """Make this one the last to be let go, and room for it where it is new; who was let go."""
    if name in known:
        known[name] = known.pop(name)
        return []
    gone = list(known)[: max(0, len(known) + 1 - MOST)]
    for other in gone:
        del known[other]
    return gone


class Shelf:
    """Room for one model, shared by the stages of a run: a large one is not kept several times.

    load: makes the model of a stage.
    """

    def __init__(self, load: Callable[[str], Any]) -> None:
        self._load, self._stage, self._model = load, "", None

    def take(self, stage: str) -> Any:
        """The model of `stage`; the one that lay here before is let go first."""
        if stage != self._stage:
            self._stage, self._model = "", None
            gc.collect()
            self._model = self._load(stage)
            self._stage = stage
        return self._model


@dataclass(frozen=True)
class Shelved:
    """The model of one stage, loaded when it is asked for."""

    shelf: Shelf
    stage: str

    @property
    def model(self) -> Any:
        return self.shelf.take(self.stage)

    def of(self, user: str) -> Any:
        """The stage's model, whoever's events are read."""
        return self.model

    def whose(self, user: str) -> str:
        """Everybody's events are read alike."""
        return SHARED


@dataclass(frozen=True)
class OneModel:
    """One model for everybody, as it is."""

    model: Any

    def of(self, user: str) -> Any:
        """The model, whoever's events are read."""
        return self.model

    def whose(self, user: str) -> str:
        """Everybody's events are read alike."""
        return SHARED


def switching(base: Any, run: Path) -> Switching:
    """The adapters of a run folder that are in use. Raises InputError where one cannot be read."""
    return Switching(base, run / "adapter", {a.user: a.path for a in user_adapters(run) if a.in_use})
