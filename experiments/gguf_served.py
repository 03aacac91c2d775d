"""A run as GGUF behind llama-cpp-python's server: the same first picks? How fast, in how much memory?

    python -m rlmemo.models export runs/smollm2 --to smollm2-q8_0.gguf --type q8_0
    python -m experiments.gguf_served runs/smollm2 smollm2-q8_0.gguf smollm2-q4_0.gguf
        --server /tmp/llama/bin/python [--decisions 500] [--limit-mb 110]

RUN is the run that the files were exported from (see --ask-like); --server the Python of an environment
that has `llama-cpp-python[server]`. Decisions are the last ones of the timelines' validation parts, as the
float model ranks them here, alone and without its scorer; the server is asked for the same, one after the
other, on one thread. --limit-mb starts every server once more in a cgroup (version 1, as root) that may hold
so much memory, the file's pages included, so that what does not fit is read by memory map again and again.
Prints one JSON line a file: agreement of first picks, decisions a second, the largest resident set, MB, and
what of it is not the file's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from env.errors import InputError, run_main
from env.ranking import decisions
from env.splits import chrono
from env.timeline import Timeline
from experiments.aw_server import free_port
from rlmemo.options import Parser

# Weights stay as they lie in the file, so that they are read in place. (Rearranged for AMX, llama.cpp of
# llama-cpp-python 0.3.36 broke off here at the first question, with the package's own Q4_1 file, too.)
IN_PLACE = """
import runpy, sys, llama_cpp, llama_cpp.llama_cpp as c
plain = c.llama_model_default_params
def params():
    made = plain()
    made.use_extra_bufts = False
    return made
c.llama_model_default_params = llama_cpp.llama_model_default_params = params
sys.argv[0] = "llama_cpp.server"
runpy.run_module("llama_cpp.server", run_name="__main__")
"""
CGROUP = Path("/sys/fs/cgroup/memory/rlmemo-gguf")
Asked = list[tuple[Timeline, np.ndarray]]


def asked(timelines: list[Timeline], most: int) -> Asked:
    """The last decisions of the validation parts, shared out among people."""
    parts = [decisions(x) for x in chrono(timelines).validation]
    each = -(-most // sum(len(x) > 0 for x in parts))
    return [(t, d[-each:]) for t, d in zip(timelines, parts, strict=True) if len(d)]


def here(run: Path, moments: Asked) -> tuple[list[np.ndarray], float]:
    """(first picks of the float model, decisions a second)."""
    from rlmemo.model.ask import ranked
    from rlmemo.model.readings import slates_of
    from rlmemo.policies.run import merged

    model = merged(run)
    began = time.perf_counter()
    found = [ranked(model, t, slates_of(t), d).targets[:, 0] for t, d in moments]
    return found, sum(map(len, found)) / (time.perf_counter() - began)


@contextmanager
def served(python: str, file: Path, limit_mb: int | None) -> Iterator[tuple[str, int]]:
    """(address, process) of a server with the file, one thread."""
    port = free_port()
    command = [python, "-c", IN_PLACE, "--model", str(file), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--n_ctx", "1536", "--logits_all", "true", "--n_threads", "1"]
    command += ["--n_threads_batch", "1", "--verbose", "false"]
    if limit_mb is not None:
        try:
            CGROUP.mkdir(exist_ok=True)
            (CGROUP / "memory.limit_in_bytes").write_text(str(limit_mb * 2**20))
        except OSError as error:
            raise InputError(f"--limit-mb: {CGROUP} cannot be used ({error}); leave it out") from None
        command = ["sh", "-c", f'echo $$ >{CGROUP}/cgroup.procs && exec "$@"', "sh", *command]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=2).close()
                break
            except (urllib.error.URLError, OSError):
                if process.poll() is not None:
                    raise InputError(
                        f"{file}: the server of {python} ended at once; try it by hand"
                    ) from None
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", process.pid
    finally:
        process.terminate()
        process.wait(20)
        if limit_mb is not None:
            CGROUP.rmdir()


def memory_mb(process: int) -> dict[str, float]:
    """The largest resident set so far, and what of the present one is anonymous."""
    told = dict(x.split(":", 1) for x in Path(f"/proc/{process}/status").read_text().splitlines() if ":" in x)
    return {
        "peak_mb": round(int(told["VmHWM"].split()[0]) / 1024, 1),
        "not_file_mb": round(int(told["RssAnon"].split()[0]) / 1024, 1),
    }


def there(address: str, run: Path, moments: Asked) -> tuple[list[np.ndarray], float]:
    """(first picks of the server, -1 for none at all; decisions a second)."""
    from rlmemo.policies.endpoint import EndpointPolicy
    from rlmemo.policies.endpoint_options import Asking

    policy = EndpointPolicy(
        f"openai:{address}/completions#gguf", Asking(max_calls=100_000, at_once=1, timeout_s=300, like=run)
    )
    policy.rank(moments[0][0], moments[0][1][:1] - 1)  # the first answer reads the file
    began = time.perf_counter()
    found = [policy.rank(t, d).targets[:, 0] for t, d in moments]
    return found, sum(map(len, found)) / (time.perf_counter() - began)


def main() -> int:
    """Run the command line."""
    import torch

    from env.sources import load_timelines

    top: argparse.ArgumentParser = Parser(prog="python -m experiments.gguf_served", description=__doc__)
    top.add_argument("run", type=Path, metavar="RUN", help="a run folder of a text model")
    top.add_argument("files", type=Path, nargs="+", metavar="FILE", help="GGUF files of it")
    top.add_argument(
        "--server", default=sys.executable, metavar="PYTHON", help="has llama-cpp-python[server]"
    )
    top.add_argument("--timelines", default="webtrackr", help="whose decisions")
    top.add_argument("--decisions", type=int, default=500, help="how many, about")
    top.add_argument("--limit-mb", type=int, help="once more with so little memory")
    args = top.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    moments = asked(load_timelines(args.timelines).timelines, args.decisions)
    picks, speed = here(args.run, moments)
    first = np.concatenate(picks)
    print(
        json.dumps({"file": "float32, here", "decisions": len(first), "per_s": round(speed, 2)}), flush=True
    )
    for file in args.files:
        for limit in [None, *([args.limit_mb] if args.limit_mb else [])]:
            with served(args.server, file, limit) as (address, process):
                told, speed = there(address, args.run, moments)
                said: dict[str, Any] = {
                    "file": file.name, "file_mb": round(file.stat().st_size / 2**20, 1), "limit_mb": limit,
                    "agree": round(float((np.concatenate(told) == first).mean()), 4),
                    "per_s": round(speed, 2), **memory_mb(process),
                }  # fmt: skip
            print(json.dumps(said), flush=True)
    return 0


if __name__ == "__main__":
    run_main(main)
