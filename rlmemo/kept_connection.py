"""HTTP over a connection that is kept from one question to the next: no proxy, no redirection."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Mapping

LONGEST_ANSWER = 64 << 20  # bytes; what is longer is cut off


class KeptConnection:
    """A connection to one server, made when it is first needed. tls: whether it is asked over TLS."""

    def __init__(self, host: str, port: int, tls: bool = False) -> None:
        self.host, self.port, self.tls = host, port, tls
        self._open: http.client.HTTPConnection | None = None

    def ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None, *,
        timeout: float,
    ) -> tuple[int, bytes]:  # fmt: skip
        """(status, body) of the answer. Raises OSError or http.client.HTTPException where none comes in time;
        a connection that the server has closed meanwhile is made anew, once."""
        until = time.monotonic() + timeout
        while True:
            fresh = self._open is None
            try:
                connection = self._connected(max(0.05, until - time.monotonic()))
                connection.request(method, path, body, dict(headers))
                answer = connection.getresponse()
                return answer.status, answer.read(LONGEST_ANSWER)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if fresh or isinstance(error, TimeoutError):
                    raise

    def close(self) -> None:
        """Let the connection go; the next question makes a new one."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _connected(self, timeout: float) -> http.client.HTTPConnection:
        if self._open is None:
            if self.tls:
                context = ssl.create_default_context()
                self._open = http.client.HTTPSConnection(
                    self.host, self.port, timeout=timeout, context=context
                )
            else:
                self._open = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        self._open.timeout = timeout
        if self._open.sock is not None:
            self._open.sock.settimeout(timeout)
        return self._open
