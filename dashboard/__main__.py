"""Start the dashboard: rate predictions, look at your days, compare policies, train, forget.

    python -m dashboard --db my.db

It listens on this machine only (127.0.0.1) and talks to nobody else. Bound to any other address it asks
for a token, or for a login (OpenID Connect), and refuses to start without either.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import socket
import sys
from pathlib import Path

from env.errors import InputError, run_main
from env.options import Parser
from env.private import private_files

TOKEN_VARIABLE = "RLMEMO_DASHBOARD_TOKEN"
SHORTEST_TOKEN = 16
FIRST_PORT = 8501
DEFAULT_DB = "rlmemo.db"


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
    p.add_argument("--no-open", action="store_true", help="do not open a browser window")
    return p


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach `address`."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def check_db(path: str) -> Path:
    """The database's absolute path. It need not exist yet; what exists must be an SQLite file."""
    db = Path(path).expanduser().absolute()
    if db.is_dir():
        raise InputError(f"{path}: is a folder; --db takes a file, such as {db.name}/{DEFAULT_DB}")
    if not db.parent.is_dir():
        raise InputError(f"{path}: there is no folder {db.parent}; make it first: mkdir -p {db.parent}")
    try:
        head = db.read_bytes()[:16] if db.exists() and db.stat().st_size < 16 else _first(db)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if head and head != b"SQLite format 3\0":
        raise InputError(
            f"{path}: is no SQLite database; import a recording with: "
            "python -m rlmemo.timelines import FILE --db NEW.db"
        )
    return db


def _first(db: Path) -> bytes:
    if not db.exists():
        return b""
    with db.open("rb") as file:
        return file.read(16)


def check_token(address: str, token: str, *, login: bool = False) -> None:
    """Refuse an address that others can reach, unless there is a token that cannot be guessed, or a login."""
    if is_loopback(address) or login:
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
                return port
            except OSError as error:
                reason = error.strerror or str(error)
    raise InputError(
        f"cannot listen on {address} port {wanted or FIRST_PORT} ({reason}); try --port {FIRST_PORT + 50}"
    )


def command(
    db: Path, runs: Path, rater: str, address: str, port: int, headless: bool, login: Path | None = None
) -> list[str]:
    """The Streamlit command line. Options given here win over any config.toml that lies about."""
    from dashboard.look import THEME

    options: dict[str, object] = {
        "server.address": address,
        "server.port": port,
        "server.headless": headless,
        "server.enableXsrfProtection": True,
        "server.enableCORS": True,
        "server.fileWatcherType": "none",
        "server.runOnSave": False,
        "server.maxUploadSize": 50,
        "server.showEmailPrompt": False,
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "type",
        "client.showErrorLinks": False,
        "runner.magicEnabled": False,
        **THEME,
    }
    if is_loopback(address):
        options["browser.serverAddress"] = "localhost"
    flags = [
        f"--{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in options.items()
    ]
    if is_loopback(address):
        # A page elsewhere whose name is made to resolve to 127.0.0.1 must not get in (DNS rebinding).
        flags += [f"--server.allowedHosts={host}" for host in ("localhost", "127.0.0.1", "[::1]")]
    if login is not None:
        flags.append(f"--secrets.files={login}")
    app = Path(__file__).with_name("app.py")
    return [sys.executable, "-m", "streamlit", "run", str(app), *flags, "--",
            "--db", str(db), "--runs", str(runs), "--rater", rater, "--address", address,
            *(["--login", str(login)] if login else [])]  # fmt: skip


@private_files()
def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    db = check_db(args.db)
    login = Path(args.login).expanduser().absolute() if args.login else None
    if login:
        from dashboard.login import read_login

        read_login(login)
    check_token(args.address, os.environ.get(TOKEN_VARIABLE, ""), login=login is not None)
    port = free_port(args.address, args.port)
    no_screen = sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    line = command(
        db, Path(args.runs).absolute(), args.rater, args.address, port, args.no_open or no_screen, login
    )
    house = str(Path(__file__).resolve().parent.parent)
    paths = [house, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    host = "localhost" if is_loopback(args.address) else args.address
    print(f"dashboard: http://{host}:{port}  (Ctrl-C stops it)", flush=True)
    os.execve(sys.executable, line, {**os.environ, "PYTHONPATH": os.pathsep.join(paths)})


if __name__ == "__main__":
    run_main(main)
