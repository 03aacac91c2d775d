"""What a target, a user or a device may be called: short, printable, and without anything private.

`target_and_kind` is the one place that decides whether a text is an address and what is kept of one: the host
(as the URL standard, url.spec.whatwg.org, finds it), or for addresses without a host their kind, such as
`mailto:`. All importers, the store and the reader of databases ask it.
"""

from __future__ import annotations

import hashlib
import html
import ipaddress
import re
import socket
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import unquote

import idna

MAX_NAME = 120
DEEPEST = 8
LOCAL_FILE = "(local file)"
NO_HOST = "(no host)"
PAGE_SETTINGS = ("host", "path")
Target = tuple[str, str]

_JOINERS = "\u200c\u200d"  # invisible, but part of how some scripts and emoji are written
_NOT_SHOWN = ("Cc", "Cf", "Cs", "Co", "Cn")
_LOOK_ALIKE = str.maketrans({"⁄": "/", "∕": "/", "╱": "/", "⧸": "/", "∶": ":", "꞉": ":", "ː": ":"})
_AROUND = " \"'`“”„«»‹›‘’<>(){}*_~|,;-–—•·"
_WITH_HOST = ("http", "https", "ws", "wss", "ftp")
_WRAPPERS = ("view-source", "blob", "filesystem", "feed", "jar", "wyciwyg", "url", "microsoft-edge")
# fmt: off
_WITHOUT_HOST = frozenset((
    "about", "acct", "bitcoin", "callto", "cid", "data", "ethereum", "facetime", "facetime-audio", "file",
    "geo", "im", "javascript", "lightning", "livescript", "magnet", "mailto", "mid", "mms", "mmsto", "mocha",
    "monero", "openid", "otpauth", "sip", "sips", "skype", "sms", "smsto", "spotify", "tel", "tg", "urn",
    "vbscript", "whatsapp", "xmpp", *_WRAPPERS,
))
# fmt: on
_TELLING = re.compile(r"[:/\\@?#%&=]|\[|www\.|\d\.\d", re.IGNORECASE)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,40})(\s*):(.*)", re.DOTALL)
_ANYWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,40}\s?:\s?[/\\]{2}\S")
_DOTTED = r"(?:[\w-]+\.)+(?:[^\W\d_]{2,}|xn--[\w-]+)\.?"
_OPAQUE_ANYWHERE = re.compile(
    rf"(?<![\w.+/\\-])(?:{'|'.join(sorted(_WITHOUT_HOST, key=len, reverse=True))}):(?=[^\s:])"
)
_SLASHES = re.compile(
    rf"[/\\]{{2}}(?=(?:[^\s/\\@]*@)?(?:{_DOTTED}|localhost|(?:\d{{1,3}}\.){{3}}\d|\[[0-9A-Fa-f]*:))"
)
_ENCODED = re.compile(r"%(?:25)*(?:3a|2f|3f|40|23)|&#|&\w+;", re.IGNORECASE)
_ENCODED_SCHEME = re.compile(r"[\W_]*[A-Za-z][A-Za-z0-9+.-]*(?:%(?:25)*3a|&#|&colon;)", re.IGNORECASE)
_DRIVE = re.compile(r"(?:[\\/]{2}[?.][\\/])?[A-Za-z]:(?=[\\/])")
_SHARE = re.compile(r"\\\\(?!\S*\.(?:exe|com|bat|cmd|msi|lnk|ps1)\b)(?![?.]\\)\S", re.IGNORECASE)
_END = r"(?=[/\\?#]|$)"
_IPV6 = re.compile(rf"\[[0-9A-Fa-f]*:[0-9A-Fa-f.]*:[^\]\s]*\](?::\d*)?{_END}")
_USER_INFO = re.compile(r"(?:[^\s/?#@:]+:[^\s/?#@]*|[^\s/?#@]+)@(?=[\w.\[-]+)")
# a password with a slash, a question mark or a hash in it, which its writer should have encoded
_ODD_PASSWORD = re.compile(r"[^/\\?#@:\s]+:(?!\d*[/\\?#])[^/\\?#@\s]*[/\\?#][^\s@]*@(?=[\w.\[-])")
_NUMBERS = r"(?:\d{1,3}\.){3}\d{1,3}"
_IN_TITLE = (
    rf"www\.\S|{_DOTTED}(?::\d+{_END}|(?::\d*)?(?:/|[?#]\S))|{_NUMBERS}(?::\d+{_END}|:?[/?#]\S)"
    r"|localhost(?::\d+(?:[/\\?#]|$)|:?[/?#])|[a-z][\w-]*:\d{1,5}[/\\?#]\S|[\w.-]+/[^\s?#]*\?\S"
)
_WORD = re.compile(_IN_TITLE, re.IGNORECASE)
_BARE = re.compile(
    rf"{_IN_TITLE}|{_NUMBERS}{_END}|[a-z][\w-]*:\d{{1,5}}$|[\w.-]+/[^\s?#]*#\S|[\w.-]+\?[\w%]\S*$",
    re.IGNORECASE,
)
_LOWER_PORT = re.compile(r"[A-Z][\w-]*:\d+$")  # "Civilization:6" is a name, "intranet:8080" is not
_DOTTED_FIRST = re.compile(_DOTTED + r"(?=[\s:,;/]|$)")
_COMPONENT = re.compile(r"([A-Za-z]\w*)(?:\.\w+)+/(?:\.|\1\.)[\w.$]+")  # Android's package/.Activity
_BUNDLE = re.compile(r"[^/:?#]+\.app/Contents(?:/|$)")  # macOS
_MAIL = re.compile(r"[^\s@/?#:<>\"'()\[\]]{1,64}@(?=[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,})")
_QUERY = re.compile(r"[?#&;][\w.\[\]%~-]+=")
_HOST = re.compile(r"[^\s\x00-\x2c/:-@\[-^`{-}“”„«»‹›‘’]+")
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|\d+)$")


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
            if c.isspace() or c in _JOINERS or unicodedata.category(c) not in _NOT_SHOWN
        ]
        name = " ".join("".join(kept).split()).strip(_JOINERS)
    if len(name) > MAX_NAME:
        digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
        name = f"{name[: MAX_NAME - 9]}…{digest}"
    return name


def target_and_kind(text: str, kind: str = "", page: str = "host") -> Target:
    """What is kept of a recorded target, and its kind (one of `env.timeline.KINDS`).

    An address is a page whatever `kind` says, and so is a window title with an address in it: kept is its
    host, with `page="path"` host and path; or its scheme ("mailto:") where it has no host, or that it was a
    local file. Anything else is a name. The target is "" where nothing is left: an empty name, a page
    without a host. What is kept stays what it is when it is judged again.
    """
    found = _judged(text, kind, page)
    for _ in range(DEEPEST):
        again = _judged(*found, "path" if found[1] == "page" else "host")
        if again == found:
            return found
        found = again
    return found


def _judged(text: str, kind: str, page: str) -> Target:
    text = text.strip()
    if text == LOCAL_FILE:
        return LOCAL_FILE, "file"
    if kind == "page" or not text.isascii() or not text.isprintable() or _TELLING.search(text):
        for variant in _variants(text):
            found = _address(variant, page)
            if found is not None:
                return found
        if kind == "page":
            return _said_to_be_page(_plain(text), page)
    return clean_name(_MAIL.sub("@", text) if "@" in text else text), kind or "app"


def kept_target(target: str, kind: str) -> Target:
    """What may be stored, or shown, of a target that an importer or an older version has reduced: pages keep
    the path that `page="path"` has left them. Never empty: an address without a host is `NO_HOST`."""
    kept = target_and_kind(target, kind, "path" if kind == "page" else "host")
    return kept if kept[0] else (NO_HOST, "page")


def label(text: str) -> str:
    """What a user or a device is called: as `clean_name` has it, and of an address its host and a hash of the
    whole, so that two stay two. A mail address stays as it is."""
    name = clean_name(text)
    if not re.search(r"[/\\?#%]", _plain(text)):  # ada@example.com, prolific:5f3a
        return name
    kept, kind = target_and_kind(text)
    if kind == "app" or kept == name:
        return name
    digest = hashlib.sha256(text.strip().encode("utf-8", "replace")).hexdigest()[:8]
    return clean_name(f"{kept or NO_HOST}…{digest}")


def page_target(url: str, page: str = "host") -> Target:
    """`target_and_kind` of what is known to be a page's address."""
    return target_and_kind(url, "page", page)


def shown(text: str, limit: int = 40) -> str:
    """`text` in quotation marks for a message, at most `limit` long; of an address what may be kept."""
    name, kind = target_and_kind(text)
    if kind == "app":
        name = _MAIL.sub("@", text)
    elif not name:
        scheme = re.match(r"\W*([A-Za-z][A-Za-z0-9+.-]{1,20}:)", text)
        name = f"{scheme[1] if scheme else ''}…"
    quoted = repr(name)
    return quoted if len(quoted) <= limit else quoted[: limit - 2] + "…" + quoted[0]


def _plain(text: str, control: str = " ") -> str:
    """`text` as it is judged: full-width and other look-alike characters as the usual ones, nothing
    invisible, control characters (line breaks among them) as `control`."""
    if not text.isascii():
        # not the ellipsis, which would become three dots: it marks a name that was cut
        text = "…".join(unicodedata.normalize("NFKC", part) for part in text.split("…")).translate(
            _LOOK_ALIKE
        )
    if not text.isprintable():
        text = "".join(
            control if unicodedata.category(c) == "Cc" else "" if unicodedata.category(c) in _NOT_SHOWN else c
            for c in text
        )
    return text.strip()


def _variants(text: str) -> Iterator[str]:
    """The ways to read `text` as an address: as it stands, without control characters, decoded."""
    plain = _plain(text)
    ways = [plain, _plain(text, "")]
    decoded = plain
    for _ in range(6):
        again = _plain(unquote(html.unescape(decoded))) if _ENCODED.search(decoded) else decoded
        if again == decoded:
            break
        decoded = again
        ways.append(decoded)
    if _ENCODED_SCHEME.match(plain):
        ways.reverse()
    return iter(dict.fromkeys(ways))


def _address(text: str, page: str, depth: int = 0) -> Target | None:
    """What is kept of the address that `text` is or holds; None where it is a name. depth: of what is wrapped
    in view-source: and its like."""
    text = text.lstrip(_AROUND)
    if _DRIVE.match(text):
        inside = _ANYWHERE.search(text, 3) or _OPAQUE_ANYWHERE.search(text, 3)
        if inside is not None:  # browser.exe --app=https://…
            return _by_scheme(text[inside.start() :], page, depth)
        return (LOCAL_FILE, "file") if re.search(r"\?[^\s\\]", text[4:]) else None
    if _SHARE.match(text):
        return LOCAL_FILE, "file"
    if re.match(r"/{2,}[^\s/]", text):
        return _host_and_path("", text.lstrip("/"), page)
    if _COMPONENT.fullmatch(text) or _BUNDLE.match(text):
        return None
    found = _by_scheme(text, page, depth) or _without_scheme(text, page)
    if found is None and _MAIL.match(text) and not re.search(r"[\s,;]", text):
        return "mailto:", "page"
    return found or _inside(text, page, depth)


def _inside(text: str, page: str, depth: int) -> Target | None:
    """What is kept of an address somewhere in `text`, such as in a window's title."""
    found = _ANYWHERE.search(text) or _OPAQUE_ANYWHERE.search(text)
    if found is not None:
        return _by_scheme(text[found.start() :], page, depth)
    bare = _SLASHES.search(text)
    if bare is not None:
        return _host_and_path("", text[bare.end() :], page)
    for word in text.split():
        address = _without_scheme(word.strip(_AROUND), page, _WORD)
        if address is not None:
            return address
    query = _QUERY.search(text)
    if query is None:
        return None
    before = re.split(r"[\s\"'<>(]", text[: query.start()])[-1]
    return _host_and_path("", before, page)


def _by_scheme(text: str, page: str, depth: int) -> Target | None:
    """What is kept of "scheme:…"; None where what stands before the colon is no scheme."""
    match = _SCHEME.match(text)
    if match is None:
        return None
    written, gap, rest = match.groups()
    scheme, body = written.lower(), rest.lstrip()
    slashes = body[:1] in ("/", "\\")
    spaced = bool(gap) or body != rest
    known = scheme in _WITHOUT_HOST or scheme in _WITH_HOST
    if spaced and not (known and body and (slashes or written.islower())) and not body.startswith("//"):
        return None  # "Re: hello", "Data: the quarter", "HTTP: an introduction"
    if scheme in _WITH_HOST:
        return _host_and_path(scheme, body.lstrip("/\\"), page) if body else None
    if scheme == "file":
        return LOCAL_FILE, "file"
    if scheme == "about":
        name = re.match(r"[a-z-]{0,24}(?![^/?#\s])", body)
        return "about:" + (name[0] if name else ""), "page"
    if scheme in _WRAPPERS:
        inner = re.sub(r"^//\d*/(?=\w)", "", body)  # wyciwyg://0/https://…
        found = _address(inner, page, depth + 1) if depth < DEEPEST else None
        return found or (scheme + ":", "page")
    if scheme in _WITHOUT_HOST:
        return scheme + ":", "page"
    if body[:2] in ("//", "\\\\"):
        found = _host_and_path(scheme, body.lstrip("/\\"), page) if body[2:3] not in ("/", "\\") else ("", "")
        return found if found[0] else (scheme + ":", "page")
    if not body or body.startswith(":") or re.match(r"\d{1,5}(?=[/\\?#]|$)", body) or _USER_INFO.match(text):
        return None  # Perl::Module, host:port, user:password@host
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:[/\\]", body):
        return _by_scheme(body, page, depth)
    word = body.split(None, 1)[0]
    marks = r"[/?#=@%&]" if "." in written else r"[?#=@%&]\S"
    if (
        "+" in written
        or written.startswith("vnd.")
        or re.search(marks, word)
        or (written.islower() and "." not in written)
    ):
        return scheme + ":", "page"
    return None


def _without_scheme(text: str, page: str, bare: re.Pattern[str] = _BARE) -> Target | None:
    """What is kept of host:port/path, user@host/path and their like; None where `text` is none."""
    user = _USER_INFO.match(text)
    if user is not None and (":" in user[0] or re.match(r"[\w.\[\]-]+[:/?#]\S", text[user.end() :])):
        return _host_and_path("", text, page)
    if _COMPONENT.fullmatch(text) or _BUNDLE.match(text) or _LOWER_PORT.match(text):
        return None
    return _host_and_path("", text, page) if _IPV6.match(text) or bare.match(text) else None


def _said_to_be_page(text: str, page: str) -> Target:
    """A page whose address does not look like one: a host alone, or a title."""
    if _DRIVE.match(text) or text.startswith("\\\\"):
        return LOCAL_FILE, "file"
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:", text):
        return text.lower(), "page"
    if re.search(r"\s", text) and not _DOTTED_FIRST.match(text):
        return clean_name(_MAIL.sub("@", text)), "page"
    return _host_and_path("", text, page)


def _host_and_path(scheme: str, text: str, page: str) -> Target:
    """The page of what follows "scheme://": without user name, password, query, fragment and parameters."""
    if (odd := _ODD_PASSWORD.match(text)) is not None:
        text = text[odd.end() :]
    authority, path = re.match(r"([^/\\?#]*)([^?#\s\"<>]*)", text).groups()  # type: ignore[union-attr]
    host = _host(scheme, authority.rsplit("@", 1)[-1].strip())
    if not host:
        return "", "page"
    if page == "path":
        path = re.split(r"%(?:25)*(?:3f|23|3b)", path.replace("\\", "/"), flags=re.IGNORECASE)[0]
        path = re.split(r"[^/]*:/", path)[0]  # an address in the path is not this page's
        host += re.sub(r";[^/]*", "", path).rstrip("/")
    return clean_name(host), "page"


def _host(scheme: str, host: str) -> str:
    """A host as it is called here whatever way it was written, with its port unless that is 80 or 443."""
    if host.startswith("["):
        match = re.match(r"\[([^\]%]{1,60})(?:%[^\]]*)?\](?::(\d*))?", host)
        try:
            name = f"[{ipaddress.IPv6Address(match[1]).compressed}]" if match else ""
        except ValueError:
            name = ""
        port = match[2] if match else None
    else:
        host = _plain(unquote(host)).rsplit("@", 1)[-1].replace("。", ".")
        match = _HOST.match(host)
        name = _ascii(match[0].lower()).strip(".") if match else ""
        found = re.match(r":(\d{1,5})(?!\w)", host[match.end() :]) if match else None
        port = found[1] if found else None
        if scheme in _WITH_HOST and _NUMBER.search(name.rsplit(".", 1)[-1]):
            with suppress(OSError):  # 127.1, 0x7f.0.0.1 and 2130706433 are 127.0.0.1
                name = str(ipaddress.IPv4Address(socket.inet_aton(name)))
    number = int(port) if port else 0
    usual = (0, 80, 443, 21) if scheme == "ftp" else (0, 80, 443)
    return name if not name or number in usual or number > 65535 else f"{name}:{number}"


def _ascii(host: str) -> str:
    """An internationalized host as punycode: two names that look the same stay two."""
    if host.isascii() or "…" in host:
        return host

    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):  # emoji, underscores: in use, though no standard has them
        labels = (
            x if x.isascii() else "xn--" + x.encode("punycode").decode("ascii") for x in host.split(".")
        )
        return ".".join(labels)
