"""A crew of Ray's workers: parts of people are judged wherever a core is free, and again where a worker died.

    crew = RayCrew("local")            # or the address of a cluster
    evaluate(policies, timelines, split, crew=crew)

A part is a few dozen people. Every call is a task that keeps nothing (`rlmemo.evaluation.each_person`): Ray
does it anew where its worker or node is lost, and makes anew what was stored there. What
arrives is copied before it is used: arrays that Ray maps from its store cannot be written to, and numba would
compile every kernel once more for them.
"""

from __future__ import annotations

import argparse
import copy
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from env.errors import InputError
from env.judge.case import Case

LOCAL = "local"
PEOPLE = 25
"""In a part: a worker that dies costs so many people's time, and a worker holds so many at once."""
RETRIES = 5
STORE_MB = 512
ANSWER_S = 5.0


class RayCrew:
    """Ray's workers, on this machine (address "local") or in a running cluster."""

    def __init__(
        self, address: str = LOCAL, *, people: int = PEOPLE, workers: int | None = None, asked: str = "--ray"
    ) -> None:
        """Join a cluster, or start one. workers: cores to use on this machine (None: all); asked: the option
        that asked for it. Raises InputError where Ray is not installed or the cluster does not answer."""
        ray = joined(address, workers, asked)
        self._ray, self._people = ray, people
        self.progress: Callable[[int, int], None] = lambda done, of: None
        self._task = ray.remote(num_cpus=1, max_retries=RETRIES)(_done)
        self._alone = ray.remote(num_cpus=1, max_retries=RETRIES, max_calls=1)(_done)

    def parts(self, cases: Sequence[Case]) -> list[Any]:
        """A few dozen cases each, in Ray's store."""
        return [self.share(list(cases[k : k + self._people])) for k in range(0, len(cases), self._people)]

    def share(self, what: Any) -> Any:
        """Put it where every worker finds it."""
        return self._ray.put(what)

    def do(self, what: Callable[..., Any], parts: Sequence[Any], *given: Any) -> list[Any]:
        """A task for each part."""
        return [self._task.remote(what, part, *given) for part in parts]

    def get(self, promised: Sequence[Any]) -> list[Any]:
        """Wait for what was promised, one after the other: all of it never lies here twice. Tells `progress`
        how many of how many are there."""
        found = []
        for x in promised:
            found.append(copy.deepcopy(self._ray.get(x)))
            self.progress(len(found), len(promised))
        return found

    def begin(self, what: Callable[..., Any], *given: Any) -> RayTask:
        """what(…) in a process of its own, which ends with it."""
        return RayTask(self._ray, self._alone.remote(what, *given))

    @property
    def cores(self) -> int:
        """Of all machines together."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._ray.shutdown()


class RayTask:
    """One that was begun, asked as a `subprocess.Popen` is: `poll()`, and then `returncode`."""

    def __init__(self, ray: Any, promise: Any) -> None:
        self._ray, self._promise = ray, promise
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """What it returned, None while it is under way."""
        if self.returncode is None and self._ray.wait([self._promise], timeout=0)[0]:
            self.returncode = int(self._ray.get(self._promise))
        return self.returncode


def add_ray(parser: Any, what: str) -> None:
    """The option `--ray`. what: is done by the workers."""
    parser.add_argument(
        "--ray", metavar="local|ADDRESS",
        help=f"{what} on Ray's workers, of this machine or a cluster; needs rlmemo[ray]",
    )  # fmt: skip


@contextmanager
def crew_of(given: argparse.Namespace) -> Iterator[RayCrew | None]:
    """The workers that `--ray` asks for, None where it does not."""
    if given.ray is None:
        yield None
        return
    crew = RayCrew(given.ray)
    try:
        yield crew
    finally:
        crew.close()


def joined(address: str, workers: int | None = None, asked: str = "--ray") -> Any:
    """Ray, in a cluster that was joined or started; as of `RayCrew`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    try:
        import ray
    except ImportError:
        raise InputError(f"{asked}: Ray is not installed; pip install 'rlmemo[ray]'") from None
    if address == LOCAL:
        _on_loopback()
    else:
        _answers(address)
    if not ray.is_initialized():
        given: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "error"}
        if address == LOCAL:
            given |= {
                "num_cpus": workers, "include_dashboard": False, "_node_ip_address": "127.0.0.1",
                "object_store_memory": STORE_MB * 2**20,
            }  # fmt: skip
        try:
            ray.init(**given)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{asked} {address}: cannot be reached ({reason}); start it, or say local"
            ) from None
    return ray


def _answers(address: str) -> None:
    """Raise InputError where nothing listens at host:port: Ray itself would try for a quarter of an hour."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    reason = "it names no port"
    if host and port.isdecimal() and int(port) < 2**16:
        try:
            socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
            return
        except OSError as error:
            reason = str(error)
    raise InputError(
        f"--ray {address}: nothing answers there ({reason}); give the host:port of a cluster, or local"
    )


def _on_loopback() -> None:
    """Have nothing that Ray starts listen elsewhere, as it does by itself on macOS and Windows alone."""
    from ray._private import ray_constants

    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"  # for its processes
    ray_constants.ENABLE_RAY_CLUSTER = False


def _done(what: Callable[..., Any], *given: Any) -> Any:
    """In a worker: what comes of a call."""
    import torch

    torch.set_num_threads(1)
    return what(*copy.deepcopy(given))
