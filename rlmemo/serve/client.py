"""A device's side of the addresses of `app`: one question, one answer, or why there is none."""

from __future__ import annotations

import http.client
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from env.errors import InputError
from rlmemo.hosts import is_loopback
from rlmemo.kept_connection import KeptConnection
from rlmemo.serve.secret import SHORTEST, read_secret

TOKEN_VARIABLE, TOKEN_FILE = "RLMEMO_SERVE_TOKEN", "serve.token"
ANSWER_S = 1.0
FORM = "give --policy http://HOST:PORT, such as http://127.0.0.1:8650"


class ServerAway(Exception):
    """No plan is to be had there now; says why."""


class Differs(Exception):
    """The server stands elsewhere than this recording."""


class Server:
    """The REST client. It follows no redirection and uses no proxy. Raises InputError for what is no address,
    or without a token. folder: where the token's file may lie."""

    def __init__(self, address: str, folder: Path) -> None:
        try:
            parts = urlsplit(address)
            port = parts.port
        except ValueError:
            raise InputError(f"--policy {address.rpartition('@')[2]}: is no address; {FORM}") from None
        if not parts.hostname or "@" in parts.netloc or parts.query or parts.path.strip("/"):
            shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
            raise InputError(f"--policy {shown}…: wants a name and a port alone; {FORM}")
        self.host, self.tls = parts.hostname, parts.scheme == "https"
        self.port = port or (443 if self.tls else 80)
        self.address = f"{parts.scheme}://{parts.netloc}"
        token = os.environ.get(TOKEN_VARIABLE, "").strip() or read_secret(folder / TOKEN_FILE)
        if not token or len(token) < SHORTEST or not token.isascii() or not token.isprintable():
            raise InputError(
                f"--policy {self.address}: its token is needed; put it into the environment variable "
                f"{TOKEN_VARIABLE}, or into {folder / TOKEN_FILE} (chmod 600)"
            )
        self._token = token
        self._connection = KeptConnection(self.host, self.port, self.tls)

    @property
    def warning(self) -> str:
        """What to know before anything is sent, "" where nothing."""
        if self.tls or is_loopback(self.host):
            return ""
        return (
            f"{self.address}: the token and what is opened when go there unencrypted; https would hide them"
        )

    def ask(self, method: str, path: str, body: Any = None, *, timeout: float = ANSWER_S) -> dict[str, Any]:
        """What is answered. Raises ServerAway, or Differs where it stands elsewhere."""
        sent = None if body is None else json.dumps(body, allow_nan=False).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            status, answer = self._connection.ask(method, path, headers, sent, timeout=timeout)
            found = json.loads(answer)
        except (OSError, http.client.HTTPException) as error:
            raise ServerAway(self._why(error)) from None
        except ValueError:
            found = None
        if not isinstance(found, dict):
            self.close()
            raise ServerAway(f"what answers at {self.address} is no rlmemo.serve")
        if status == 409:
            raise Differs(str(found.get("error")))
        if status != 200:
            said = " ".join(str(found.get("error", status)).split())[:300]
            raise ServerAway(f"{self.address} refuses: {said}")
        return found

    def close(self) -> None:
        """Let the connection go."""
        self._connection.close()

    def _why(self, error: Exception) -> str:
        if isinstance(error, ConnectionRefusedError):
            return f"nothing listens at {self.address}; start python -m rlmemo.serve there"
        return f"{self.address} does not answer ({error or type(error).__name__})"
