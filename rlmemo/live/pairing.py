"""The browser's extension among live's sources: which there are, what they are read by, how one is paired."""

from __future__ import annotations

import argparse
import hmac
import http.client
import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from env.errors import InputError
from rlmemo.kept_connection import KeptConnection
from rlmemo.live.activitywatch import BucketReader
from rlmemo.live.browser_desk import HEARD_S, BothReader, BrowserDesk, BrowserReader
from rlmemo.live.browser_port import ADDRESS, EXTENSION, TOKEN_FILE, origin, proof
from rlmemo.live.loop import SourceReader
from rlmemo.live.pages_executor import PagesExecutor
from rlmemo.serve.secret import read_secret, secret_of

ANSWER_S = 3.0
if TYPE_CHECKING:
    from rlmemo.policies.run import Setup

SOURCES = {
    "activitywatch": "windows, pages and absence as ActivityWatch tells them",
    "browser": "pages alone, from the browser's own extension",
    "both": "windows and absence from the one, pages from the other",
}


def desk_of(args: argparse.Namespace) -> BrowserDesk | None:
    """Where the extension is heard; None for a recording without. Raises InputError where pages are to be
    acted on without it."""
    if args.source == "activitywatch":
        if args.act == "pages":
            raise InputError("--act pages is done by the browser's extension; give --source browser or both")
        return None
    return BrowserDesk()


def reader_of(source: str, watch: BucketReader, desk: BrowserDesk | None) -> SourceReader:
    """What is read, by the name of the source."""
    if desk is None:
        return watch
    browser = BrowserReader(desk)
    return BothReader(watch, browser) if source == "both" else browser


def pages_of(desk: BrowserDesk, made: Setup, args: argparse.Namespace) -> PagesExecutor:
    """Who acts on pages. Raises InputError for limits that are none."""
    costs, life_s = made.world.cost_model(), made.world.rules().ttl_s
    return PagesExecutor(
        desk, lambda site: costs.cost(site, "page").memory_mb, life_s, limit_mb=args.limit_mb
    )


def key_of(db: Path) -> str:
    """The token that the extension shows, kept beside a database; made where there is none."""
    return secret_of(db.expanduser().resolve().with_name(TOKEN_FILE))[0]


def standing(db: Path, port: int) -> tuple[bool | None, str]:
    """How it stands with the extension: (whether it works; None: one can do without) and a line."""
    how = "python -m rlmemo.live extension says how to add it"
    try:
        token = read_secret(db.expanduser().resolve().with_name(TOKEN_FILE))
    except InputError as error:
        return False, str(error)
    if token is None:
        return None, f"the browser's extension is not paired: {how}"
    nonce, asked, silent = secrets.token_hex(16), {"Origin": origin()}, None
    door = KeptConnection(ADDRESS, port)
    try:
        hello = json.dumps({"nonce": nonce}).encode()
        _, body = door.ask("POST", "/v1/hello", asked, hello, timeout=ANSWER_S)
        known = hmac.compare_digest(str(json.loads(body)["proof"]), proof(token, port, nonce))
        if known:
            asked["Authorization"] = f"Bearer {token}"
            _, body = door.ask("POST", "/v1/about", asked, b"{}", timeout=ANSWER_S)
            silent = json.loads(body)["silent_s"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None, f"nobody listens for the browser's extension at port {port}: live start --source browser"
    if not known:
        return (
            False,
            f"what listens at port {port} does not know this key; give its --browser-port, or its --db",
        )
    if silent is None or silent > HEARD_S:
        return False, f"the browser's extension is not heard: {how}"
    return True, f"the browser's extension spoke {silent:.0f} s ago"


def extension(args: argparse.Namespace) -> int:
    """Say how the extension is installed, and its key."""
    key = f"{args.browser_port}:{key_of(Path(args.db))}"
    print(f"1. chrome://extensions, Developer mode, Load unpacked: {EXTENSION}")
    print(f"2. there under Details, Extension options: give the key {key}")
    print("3. python -m rlmemo.live start --source browser (or both: with ActivityWatch)")
    return 0
