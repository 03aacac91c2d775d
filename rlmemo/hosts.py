"""Which names a server of ours answers to, and whether an address is this machine's alone.

A page elsewhere whose name is made to resolve to this machine must not get in (DNS rebinding): so the name
that was asked for is one of a list. Used by the dashboard's door and by that of `rlmemo.serve`.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection, Sequence

HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s\[\]:@/?#\\]+)(?::\d{1,5})?", re.IGNORECASE)
LITERAL = re.compile(r"\[[0-9a-f:.]+\]|\d{1,3}(?:\.\d{1,3}){3}", re.IGNORECASE)
ANY_ADDRESS = "*"
"""Among the hosts: any numeric address. Only a name can be made to resolve to this machine."""


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach `address`."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def names(address: str, login_host: str | None, more: Sequence[str]) -> list[str]:
    """The host names that a server answers to. Beyond this machine: its name, any numeric address, and
    what was given, as a name from elsewhere could be made to resolve here (DNS rebinding)."""
    bare = address.strip("[]").lower()
    own = f"[{bare}]" if ":" in bare else bare
    found = ["localhost", "127.0.0.1", "[::1]", own]
    if not is_loopback(address):
        found += [socket.gethostname().lower(), socket.getfqdn().lower(), ANY_ADDRESS]
    return list(dict.fromkeys([*found, *filter(None, [login_host]), *(x.lower() for x in more)]))


def answers_to(asked: Sequence[str], hosts: Collection[str]) -> bool:
    """Whether the Host headers of a request, of which there must be one, name one of `hosts`."""
    found = HOST.fullmatch(asked[0]) if len(asked) == 1 else None
    if found is None:
        return False
    name = found[1].lower()
    return name in hosts or (ANY_ADDRESS in hosts and bool(LITERAL.fullmatch(name)))
