"""What a target, a user or a device may be called: short, printable, and without anything private."""

from __future__ import annotations

import hashlib
import re
import unicodedata

MAX_NAME = 120
LOCAL_FILE = "(local file)"
PAGE_SETTINGS = ("host", "path")

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#\\]*)([^?#]*)", re.DOTALL)
_OPAQUE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?!\d+(?:[/?#]|$))(.*)", re.DOTALL)
_JOINERS = "\u200c\u200d"  # invisible, but part of how some scripts and emoji are written


def clean_name(text: str) -> str:
    """`text` on one line, without control, formatting or unassigned characters, at most `MAX_NAME` long.

    Names are printed in terminals and drawn in plots, so escape sequences and direction overrides
    must not survive. A longer name is cut and ends in a hash of the whole, so that two long names
    stay two targets.
    """
    if text.isascii() and text.isprintable():
        name = text.strip() if "  " not in text else " ".join(text.split())
    else:
        text = unicodedata.normalize("NFC", text)
        kept = [
            " " if c.isspace() else c
            for c in text
            if c.isspace() or c in _JOINERS or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn")
        ]
        name = " ".join("".join(kept).split()).strip(_JOINERS)
    if len(name) > MAX_NAME:
        digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
        name = f"{name[: MAX_NAME - 9]}…{digest}"
    return name


def is_url(text: str) -> bool:
    """Whether `text` is written as scheme://…"""
    return _URL.match(text) is not None


def page_target(url: str, page: str = "host") -> tuple[str, str]:
    """A page's target name and kind from its address.

    `page="host"` gives the host (the URL's netloc without user name and password, lower-case),
    `page="path"` the host and the path. Queries and fragments hold what people typed and who they
    are, so they are never kept, nor is anything of a `file:`, `data:` or `javascript:` address but
    the fact. Returns ("", "page") where there is no host.
    """
    url = url.strip()
    match = _URL.match(url)
    if match is None:
        opaque = _OPAQUE.match(url)
        if opaque is not None and "@" not in url.split("/")[0]:
            scheme = opaque[1].lower()
            if scheme == "about":
                return "about:" + clean_name(re.split(r"[?#]", opaque[2])[0]), "page"
            return (LOCAL_FILE, "file") if scheme == "file" else (f"{scheme}:", "page")
        match = _URL.match("http://" + url)
        if match is None:
            return "", "page"
    scheme, host, path = match[1].lower(), match[2].rsplit("@", 1)[-1].strip().lower(), match[3]
    if scheme == "file":
        return LOCAL_FILE, "file"
    if not host:
        return "", "page"
    return clean_name(host + path.rstrip("/") if page == "path" else host), "page"
