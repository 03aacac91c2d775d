"""Logging in through OpenID Connect (Streamlit's `st.login`) instead of a token.

What must be in the file that `--login` names, and who may come in:

    [auth]
    redirect_uri = "https://rlmemo.example.org/oauth2callback"
    cookie_secret = "32 random characters"
    client_id = "…"
    client_secret = "…"
    server_metadata_url = "https://accounts.example.org/.well-known/openid-configuration"

    [rlmemo]
    emails = ["me@example.org"]

A provider says who somebody is, not whether they may see these data: anybody may have an account there.
So the list of addresses is asked for, and there is no default.
"""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from env.errors import InputError

PROVIDER = ("client_id", "client_secret", "server_metadata_url")
SHORTEST_SECRET = 16
ANYBODY = "*"


@dataclass(frozen=True)
class Login:
    """Who may come in, and through whom.

    providers: names of the sections below [auth], none where [auth] itself is the provider. emails: who
    may come in, in lower case; `ANYBODY` for everybody that the provider lets in.
    """

    providers: tuple[str, ...]
    emails: frozenset[str]
    host: str | None = None

    def admits(self, user: Mapping[str, Any]) -> bool:
        """Whether someone with these claims (of `st.user`) may come in. An address that the provider has not
        verified is nobody's."""
        if not user.get("is_logged_in"):
            return False
        if ANYBODY in self.emails:
            return True
        email = user.get("email")
        return (
            isinstance(email, str)
            and user.get("email_verified") is not False
            and email.lower() in self.emails
        )


def read_login(path: Path) -> Login:
    """The file that `--login` names. Raises InputError for what would not work or would let anybody in."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--login {path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"--login {path}: is no TOML ({error})") from None
    auth, ours = found.get("auth"), found.get("rlmemo")
    if not isinstance(auth, dict):
        raise InputError(f"--login {path}: has no section [auth]; see docs/dashboard.md")
    uri, secret = auth.get("redirect_uri"), auth.get("cookie_secret")
    if not isinstance(uri, str) or not uri.endswith("/oauth2callback"):
        raise InputError(f"--login {path}: [auth] redirect_uri is {uri!r}; it must end with /oauth2callback")
    if not isinstance(secret, str) or len(secret) < SHORTEST_SECRET:
        raise InputError(
            f"--login {path}: [auth] cookie_secret must have {SHORTEST_SECRET} characters or more; "
            "whoever guesses it comes in; try: openssl rand -hex 16"
        )
    sections = {name: x for name, x in auth.items() if isinstance(x, dict) and name != "client_kwargs"}
    for name, section in sections.items() or {"auth": auth}.items():
        lacking = [key for key in PROVIDER if not isinstance(section.get(key), str)]
        if lacking:
            where = f"[auth.{name}]" if sections else "[auth]"
            raise InputError(f"--login {path}: {where} lacks {', '.join(lacking)}")
    emails = ours.get("emails") if isinstance(ours, dict) else None
    if not isinstance(emails, list) or not emails or not all(isinstance(x, str) and x for x in emails):
        raise InputError(
            f'--login {path}: says nobody may come in; add [rlmemo] emails = ["you@example.org"] '
            f'("{ANYBODY}" for everybody that the provider lets in)'
        )
    if importlib.util.find_spec("authlib") is None or importlib.util.find_spec("httpx") is None:
        raise InputError('--login needs Authlib; install it with: pip install "rlmemo[login]"')
    return Login(tuple(sections), frozenset(x.strip().lower() for x in emails), _host(uri))


def _host(uri: str) -> str | None:
    """The host of an address in lower case, an IPv6 address in brackets, without a port."""
    try:
        name = urlsplit(uri).hostname
    except ValueError:
        return None
    return f"[{name}]" if name and ":" in name else name
