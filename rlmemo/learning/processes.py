"""Several processes that learn together: `torchrun --nproc_per_node 2 -m rlmemo.train …`.

The first of them does all that one process does: it reads, prepares, judges, writes and speaks. The others
wait until there is something to learn from, are told it, and learn it with the first, each from its share of
every batch (PyTorch's DDP: the gradient is the mean of theirs). Nothing is prepared twice, nothing drawn
twice, and there is one writer. What they are told are plain values (JSON), no pickles.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any

from env.errors import InputError
from rlmemo.learning.config import TrainConfig
from rlmemo.model.readings import SLOTS, Reading
from rlmemo.runs.stages import ONLINE

FOR_LONG = timedelta(days=365)
"""What is waited for is the other processes' work, and who dies is noticed without a clock."""
LOOK_S = 0.1
FAILED = "failed"


def count() -> int:
    """How many processes learn together; 1 where torchrun has not started this one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def place() -> int:
    """Which of them this is: 0 leads."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def leads() -> bool:
    """Whether this process writes and speaks."""
    return place() == 0


def sharded() -> bool:
    """Whether `accelerate launch` has said that DeepSpeed shares out the optimizer and gradients, too."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true"


@dataclass
class Together:
    """This process among the others. store: torchrun's, through which they hear of each other before they
    are joined; told: how often something was to be learned."""

    store: Any
    place: int
    count: int
    joined: bool = False
    told: int = 0
    ways: Any = field(default=None, repr=False)

    def join(self) -> None:
        """Connect with the others; returns once all are there."""
        if self.joined:
            return
        import torch
        from torch import distributed

        if os.environ.get("LOCAL_WORLD_SIZE") == str(self.count):  # all on this machine
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
        on_gpu = torch.cuda.is_available()
        if on_gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=distributed.PrefixStore("joined", self.store),
            rank=self.place,
            world_size=self.count,
            timeout=FOR_LONG,
        )
        self.joined = True

    def tell(self, what: dict[str, Any]) -> None:
        """(the first) Have the others learn from it."""
        self.store.set(f"told/{self.told}", "learn")
        self.told += 1
        self.join()
        self.said(what)

    def hear(self) -> dict[str, Any] | None:
        """(the others) What is to be learned from next; None at the end."""
        key = f"told/{self.told}"
        while not self.store.check([key]):  # not a wait in C++, which Ctrl-C could not end
            time.sleep(LOOK_S)
        if self.store.get(key) == b"end":
            return None
        self.told += 1
        self.join()
        return dict(self.said(None))

    def dismiss(self) -> None:
        """(the first) Let the others end."""
        self.store.set(f"told/{self.told}", "end")

    def said(self, what: Any) -> Any:
        """What the first process says here, to everybody."""
        import torch
        from torch import distributed

        data = torch.frombuffer(bytearray(json.dumps(what).encode()), dtype=torch.uint8)
        size = torch.tensor([len(data)])
        distributed.broadcast(size, 0)
        if self.place:
            data = torch.empty(int(size), dtype=torch.uint8)
        distributed.broadcast(data, 0)
        return json.loads(data.numpy().tobytes())

    def mean(self, value: float) -> float:
        """Of what every process has here."""
        import torch
        from torch import distributed

        total = torch.tensor([value], dtype=torch.float64)
        distributed.all_reduce(total)
        return float(total) / self.count

    def first_to_fail(self) -> bool:
        """Whether no other process has said what went wrong."""
        try:
            return int(self.store.add(FAILED, 1)) == 1
        except Exception:  # torchrun itself is gone, and has told of it
            return False


@lru_cache(maxsize=1)
def together() -> Together | None:
    """This process among those that torchrun started; None where it is alone."""
    if count() == 1:
        return None
    from torch import distributed

    store, rank, size = next(distributed.rendezvous("env://", timeout=FOR_LONG))
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # what was said before is of no use
    return Together(distributed.PrefixStore(f"rlmemo/{start}", store), rank, size)


def tell(what: dict[str, Any]) -> None:
    """Have the other processes learn from it, where there are any."""
    others = together()
    if others is not None:
        others.tell(what)


def said(what: Any) -> Any:
    """What the first process says here; `what` itself where there is one."""
    others = together()
    return what if others is None else others.said(what)


def mean(value: float) -> float:
    """Of the processes that learn together."""
    others = together()
    return value if others is None else others.mean(value)


def check_processes(config: TrainConfig, reading: Reading | None) -> None:
    """Raises InputError where several processes cannot share out what is to be learned. reading: None of our
    own base model."""
    n = count()
    if n == 1:
        return
    online = [stage for stage in config.shared_stages if stage in ONLINE]
    if online:
        raise InputError(
            f"torchrun started {n} processes, and {online[0]} learns in one; start it without torchrun (or "
            "take method sft, dpo or kto)"
        )
    _check_sharding()
    stages = [] if config.init_adapter else ["sft"]
    stages += [config.preference] if config.preference else []
    for stage in stages:
        batch = getattr(config, f"{stage}_batch")
        at_once = int((reading or SLOTS).arguments(batch).get("per_device_train_batch_size", batch))
        name = f"{stage}_batch" if at_once == batch else "micro_batch"
        if at_once % n:
            raise InputError(
                f"{name} {at_once} cannot be shared out evenly among {n} processes; give a multiple of {n}"
                + (f" that divides {stage}_batch {batch}" if name == "micro_batch" else "")
            )


def _check_sharding() -> None:
    """Raises InputError where `accelerate launch` was told to share out what is not shared out here."""
    fsdp = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    if fsdp or (sharded() and os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2") not in ("1", "2")):
        raise InputError(
            "FSDP and ZeRO-3 share out the model's weights, and here the first process writes them; give "
            "--use_deepspeed --zero_stage 2"
        )
    if sharded():
        import torch

        if not torch.cuda.is_available():
            raise InputError(
                "accelerate does not listen to --use_deepspeed where there is no GPU; start with torchrun"
            )


@contextmanager
def leading() -> Iterator[None]:
    """Around all that the first process does: the others end with it, and one of all says what went wrong."""
    others = together()
    if others is None:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):  # one of one: nobody need be asked
            os.environ.pop(name, None)
        yield
        return
    signal.signal(signal.SIGTERM, _ended)  # torchrun's, where another process has failed
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        if not others.first_to_fail():
            raise SystemExit(1) from None
        if of_another(error):
            raise InputError(
                "another process of this training has ended; go on with torchrun …, --out FOLDER --resume"
            ) from None
        raise
    finally:
        with suppress(Exception):  # torchrun may be gone
            others.dismiss()


def _ended(_number: int, _frame: Any) -> None:
    raise SystemExit(143)


def of_another(error: BaseException) -> bool:
    """Whether an error says that the connection to another process broke."""
    from torch import distributed

    return isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error).lower()
    )
