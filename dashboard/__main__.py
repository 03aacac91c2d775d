"""Start the dashboard: rate predictions, look at your days, compare policies, train, forget.

    python -m dashboard --db my.db

It listens on this machine only (127.0.0.1) and talks to nobody else. Who comes in needs the token, which
stands in the address that is opened and printed, or has to log in (OpenID Connect). Bound to any other
address, it refuses to start unless the token, or the login, was given.
"""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":
    # First of all: the background of a script has SIGINT ignored, and what follows takes a while.
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, lambda number, _: os._exit(128 + number))

import argparse
import secrets
import socket
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from dashboard import serve
from dashboard.login import read_login
from env.errors import InputError, run_main
from env.private import private_files
from env.sources.sqlite_files import Kind, kind_of
from rlmemo.hosts import is_loopback, names
from rlmemo.options import Parser
from rlmemo.store.database_file import DEFAULT_DB, check_store

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TOKEN_VARIABLE = "RLMEMO_DASHBOARD_TOKEN"
SHORTEST_TOKEN = 16
FIRST_PORT = 8501
_claims: list[int] = []


def parser() -> argparse.ArgumentParser:
    p = Parser(
        prog="python -m dashboard",
        description="Rate predictions, look at your days, compare policies, train, forget.",
        epilog=f"Bound to anything but this machine it needs a token of {SHORTEST_TOKEN} characters or more "
        f"in the environment variable {TOKEN_VARIABLE}, or --login, and TLS in front of it.",
    )
    p.add_argument("--db", metavar="FILE", default=DEFAULT_DB, help="the store (default: %(default)s)")
    p.add_argument(
        "--runs", metavar="DIR", default="runs", help="folder of run folders (default: %(default)s)"
    )
    p.add_argument(
        "--rater", metavar="NAME", default="me", help="whose ratings these are (default: %(default)s)"
    )
    p.add_argument("--address", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    p.add_argument("--port", type=int, help=f"port to listen on (default: the first free from {FIRST_PORT})")
    p.add_argument(
        "--login", metavar="FILE", help="TOML file: who may log in, and through which OpenID Connect provider"
    )
    p.add_argument(
        "--host", metavar="NAME", action="append", default=[],
        help="a name under which it is reached, such as a proxy's; may be repeated",
    )  # fmt: skip
    p.add_argument("--no-open", action="store_true", help="do not open a browser window")
    return p


def check_db(path: str) -> Path:
    """The database's absolute path. It need not exist yet; what exists must be a store."""
    db = Path(path).expanduser().absolute()
    if db.is_dir():
        raise InputError(f"{path}: is a folder; --db takes a file, such as {db.name}/{DEFAULT_DB}")
    if not db.parent.is_dir():
        raise InputError(f"{path}: there is no folder {db.parent}; make it first: mkdir -p {db.parent}")

    if db.is_file() and kind_of(db) is Kind.NONE:
        raise InputError(
            f"{path}: is no SQLite database; import a recording with: "
            "python -m rlmemo.timelines import FILE --db NEW.db"
        )
    check_store(db)
    return db


def check_token(address: str, token: str, *, login: bool = False) -> None:
    """Refuse an address that others can reach, unless there is a token that cannot be guessed, or a login.
    On this machine alone, a token is made where none was given."""
    if login or (is_loopback(address) and not token):
        return
    if not token:
        raise InputError(
            f"--address {address} can be reached from other machines, and what is shown here is private; "
            f"set a token (export {TOKEN_VARIABLE}=$(openssl rand -hex 16)), name a --login file, "
            "or leave --address out"
        )
    if len(token) < SHORTEST_TOKEN:
        raise InputError(
            f"{TOKEN_VARIABLE} has {len(token)} characters, and {SHORTEST_TOKEN} are needed; "
            f"try: export {TOKEN_VARIABLE}=$(openssl rand -hex 16)"
        )


def free_port(address: str, wanted: int | None) -> int:
    """`wanted` if it can be listened on, else the first free port from `FIRST_PORT`."""
    if wanted is not None and not 1 <= wanted <= 65535:
        raise InputError(f"--port {wanted} is no port; give a number from 1 to 65535")
    for port in [wanted] if wanted else range(FIRST_PORT, FIRST_PORT + 50):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address.strip("[]"), port))
            except OSError as error:
                reason = error.strerror or str(error)
                continue
        if wanted or claimed(port):
            return port
        reason = "another dashboard is starting there"
    raise InputError(
        f"cannot listen on {address} port {wanted or FIRST_PORT} ({reason}); try --port {FIRST_PORT + 50}"
    )


def claimed(port: int) -> bool:
    """Whether no other dashboard of this person is about to listen on a port: one that starts needs seconds
    until it does. Held (flock) until this process ends, however it ends; where there are no locks, nobody is
    kept away."""
    if fcntl is None:
        return True
    place = Path(tempfile.gettempdir()) / f"rlmemo-{os.getuid()}-{port}.lock"
    try:
        handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return False
    except OSError:
        os.close(handle)
        return True
    _claims.append(handle)
    return True


def addresses(address: str, port: int, token: str | None, given: bool) -> tuple[str, str]:
    """(what is printed, where a browser is sent). A token that was given stands in no log."""
    bare = address.strip("[]")
    host = f"[{bare}]" if ":" in bare else bare
    plain = f"http://{host}:{port}/"
    if token is None:
        return plain, plain
    full = f"{plain}?token={quote(token, safe='')}"
    return (f"{plain}  (asks for the token in {TOKEN_VARIABLE})" if given else full), full


@private_files()
def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    db = check_db(args.db)
    login = Path(args.login).expanduser().absolute() if args.login else None
    login_host = None
    if login:
        login_host = read_login(login).host
    given = os.environ.get(TOKEN_VARIABLE, "")
    check_token(args.address, given, login=login is not None)
    port = free_port(args.address, args.port)
    token = None if login else given or secrets.token_urlsafe(32)
    said, opens = addresses(args.address, port, token, bool(given))
    no_screen = sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    # For the processes that are started from here, whatever their folder.
    house = str(Path(__file__).resolve().parent.parent)
    paths = [house, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    os.environ.pop(TOKEN_VARIABLE, None)  # they have no use for it

    serve.serve(
        ["--db", str(db), "--runs", str(Path(args.runs).absolute()), "--rater", args.rater,
         *(["--login", str(login)] if login else [])],
        serve.Place(args.address.strip("[]"), port, token, names(args.address, login_host, args.host)),
        login=login,
        said=f"dashboard: {said}  (Ctrl-C stops it)",
        opens=None if args.no_open or no_screen else opens, db=db,
    )  # fmt: skip


if __name__ == "__main__":
    run_main(main)
