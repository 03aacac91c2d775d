"""Plan over HTTP for one's own devices.

    python -m rlmemo.serve --policy runs/first
    python -m rlmemo.live start --policy http://127.0.0.1:8650  # on the device, or on this machine

It listens on this machine alone unless --host says otherwise. Who asks needs the token, which is made at the
first start, said once, and kept in a file beside the database. Names of targets come hashed, unless a device
is told to send them.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from env.errors import InputError, run_main
from env.judge.cost_presets import PRESETS
from rlmemo.evaluation.ray_crew import add_ray
from rlmemo.hosts import is_loopback, names
from rlmemo.live.lock import OneRecorder
from rlmemo.options import Parser, add_world, world_given
from rlmemo.policies.registry import to_follow
from rlmemo.serve.client import TOKEN_FILE
from rlmemo.serve.minds import maker, version_of
from rlmemo.serve.people import People, Way
from rlmemo.serve.replicas import Replicas, Thinking
from rlmemo.serve.secret import secret_of
from rlmemo.serve.turns import Turns, answers_promptly
from rlmemo.store.database import open_store
from rlmemo.store.database_file import check_store

if TYPE_CHECKING:
    from rlmemo.policies.run import Setup

PORT = 8650
DEFAULT_DB = "serve.db"
HELD, HELD_WITH_RAY = 8, 256
MOST_CONNECTIONS = 2048
EXTRA = "rlmemo.serve needs FastAPI and uvicorn; pip install 'rlmemo[serve]'"


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="python -m rlmemo.serve", description=__doc__)
    p.add_argument("--policy", metavar="NAME|RUN_DIR|MODEL", default="base",
                   help="who plans (default: base, as it is shipped)")  # fmt: skip
    p.add_argument("--threshold", type=float, metavar="P",
                   help="prewarm what is at least this probable (default: the policy's own)")  # fmt: skip
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    p.add_argument("--port", type=int, default=PORT, help=f"port to listen on (default: {PORT})")
    p.add_argument("--allow-host", metavar="NAME", action="append", default=[],
                   help="a name under which it is reached, such as a proxy's; may be repeated")  # fmt: skip
    p.add_argument("--db", metavar="FILE", default=DEFAULT_DB,
                   help=f"where what devices send is kept (default: {DEFAULT_DB})")  # fmt: skip
    p.add_argument("--token-file", metavar="FILE", type=Path,
                   help=f"the token's (default: {TOKEN_FILE} beside the database)")  # fmt: skip
    p.add_argument(
        "--people-in-memory", metavar="N", type=int,
        help=f"recordings that are held in memory (default: {HELD}; {HELD_WITH_RAY} with --ray)",
    )  # fmt: skip
    p.add_argument(
        "--most-waiting", metavar="N", type=int, default=256,
        help="requests under way, and a sixteenth as many batches; more get 503 (default: 256)",
    )  # fmt: skip
    add_ray(p, "have replicas think")
    p.add_argument("--replicas", metavar="N", type=int, default=2, help="with --ray (default: 2)")
    add_world(p, run=True)
    return p


def about(made: Setup, version: str) -> Mapping[str, Any]:
    """What devices are told of who plans; of a cost file not where it lies."""
    world = asdict(made.world)
    if made.world.costs not in PRESETS:
        world["costs"] = Path(made.world.costs).name
    return {"service": "rlmemo", "policy": made.policy.name, "policy_version": version,
            "world": world}  # fmt: skip


def _found(policy: str) -> str:
    """A policy as it is called from another folder."""
    folder = Path(policy).expanduser()
    return str(folder.resolve()) if folder.is_dir() else policy


def _travelling(world: Mapping[str, Any]) -> dict[str, Any]:
    """What was said of the world, as it is said in another folder."""
    costs = world.get("costs")
    return {**world, "costs": str(Path(costs).resolve())} if costs and costs not in PRESETS else dict(world)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises InputError where none can."""
    if not 0 <= port <= 65535:
        raise InputError(f"--port {port} is no port; give 1 to 65535, or 0 for any that is free")
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    # Of no named protocol, asyncio would leave it to Nagle: 40 ms an answer.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((bare, port))
    except OSError as error:
        made.close()
        why = error.strerror or str(error)
        raise InputError(
            f"cannot listen on {host} port {port} ({why}); give another --port or --host"
        ) from None
    return made


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.threshold is not None and not 0.0 <= args.threshold <= 2.0:
        raise InputError(f"--threshold {args.threshold:g} is no probability; give 0 to 1")
    held_most = args.people_in_memory or (HELD_WITH_RAY if args.ray else HELD)
    for option, value, most in (
        ("--people-in-memory", held_most if args.people_in_memory is None else args.people_in_memory, 10_000),
        ("--most-waiting", args.most_waiting, 1000), ("--replicas", args.replicas, 256),
    ):  # fmt: skip
        if not 1 <= value <= most:
            raise InputError(f"{option} {value} is not accepted; give 1 to {most}")
    db = Path(args.db).expanduser()
    check_store(db)
    try:
        import uvicorn

        from rlmemo.serve.app import make_app
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("uvicorn", "fastapi", "pydantic", "starlette"):
            raise
        raise InputError(EXTRA) from None
    made = to_follow(args.policy, world_given(args))
    version, name = version_of(args.policy), made.policy.name
    make, told = maker(made, version, args.threshold), about(made, version)
    door = listening(args.host, args.port)
    held = OneRecorder(db)
    way, turns, crew = Way(make), Turns(), None
    file = args.token_file or db.resolve().with_name(TOKEN_FILE)
    token, new = secret_of(file)
    host, port = door.getsockname()[:2]
    with ExitStack() as ends:
        store = ends.enter_context(open_store(db))
        if args.ray:
            del made, make, way  # (who thinks holds the model, not who serves)
            thinking = Thinking(
                _found(args.policy), _travelling(world_given(args)), args.threshold, held_most
            )
            crew = Replicas(args.ray, args.replicas, thinking)
            ends.callback(crew.close)
            way = Way(crew.whom, crew.mind, turns.apart)
            answers_promptly()
        app = make_app(
            People(store, way, held_most, turns), told, token=token,
            hosts=names(args.host, None, args.allow_host), most=args.most_waiting, crew=crew,
        )  # fmt: skip
        server = uvicorn.Server(uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, lifespan="off", ws="none",
            limit_concurrency=MOST_CONNECTIONS, timeout_keep_alive=75, timeout_graceful_shutdown=5,
        ))  # fmt: skip
        shown = f"[{host}]" if ":" in host else host
        if new:
            print(f"token: {token}  (said this once; it is kept in {file})", flush=True)
        if not is_loopback(args.host):
            print("others can reach this: put TLS in front, or the token and what is sent can be read on the "
                  "way", file=sys.stderr)  # fmt: skip
        where = f" with {args.replicas} replicas" if crew else ""
        print(f"{name} plans at http://{shown}:{port}/{where}  (Ctrl-C stops it)", flush=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[door])
    held.close()
    return 0


if __name__ == "__main__":
    run_main(main)
