"""An endpoint that goes wrong on command: the network's and the server's faults, for real, over HTTP.

What a model says is tested against `transformers serve` (tests/test_endpoint_served.py); this one says the
same thing always, and is there for 429, 500, silence, garbage, refusals and broken connections.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = int | str | tuple[int, str] | Callable[[dict[str, Any]], "Fault"]
"""A status; a status with what is said; `hang`, `garbage`, `empty`, `cut`; or what a request's body gives."""


class OddEndpoint:
    """Serves `say` (by chat or as text), after the faults in `faults`, one a request, have been used up."""

    def __init__(self, say: str = "B A", faults: list[Fault] | None = None, always: Fault = 200) -> None:
        self.say, self.faults, self.always = say, list(faults or []), always
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.models_status = 200
        self.more: dict[str, Any] = {}  # beside the choices of an answer
        self.slow_s = 0.0
        self.retry_after: str | None = None
        self.busiest = self._busy = 0
        self._lock, self._end = threading.Lock(), threading.Event()
        odd = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                odd.paths.append(self.path)
                self.tell(odd.models_status, json.dumps({"data": [], "said": self.headers["Authorization"]}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with odd._lock:
                    odd.asked.append(body)
                    odd.headers.append({k.lower(): v for k, v in self.headers.items()})
                    odd.paths.append(self.path)
                    fault = odd.faults.pop(0) if odd.faults else odd.always
                    odd._busy += 1
                    odd.busiest = max(odd.busiest, odd._busy)
                try:
                    time.sleep(odd.slow_s)
                    self.do(fault(body) if callable(fault) else fault, body)
                finally:
                    with odd._lock:
                        odd._busy -= 1

            def do(self, fault: Fault, body: dict[str, Any]) -> None:
                if fault == "hang":
                    odd._end.wait(20)
                    self.close_connection = True
                elif fault == "cut":
                    self.close_connection = True
                    self.connection.close()
                elif fault == "garbage":
                    self.tell(200, "<html>a proxy's page</html>")
                elif fault == "empty":
                    self.tell(200, json.dumps({"choices": []}))
                elif fault == 200:
                    message = {"message": {"role": "assistant", "content": odd.say}}
                    choice = message if "messages" in body else {"text": f" {odd.say}\nNow"}
                    self.tell(200, json.dumps({"choices": [{"index": 0, **choice}], **odd.more}))
                elif isinstance(fault, tuple):
                    self.tell(*fault)
                else:
                    self.tell(int(fault), "no")  # type: ignore[arg-type]

            def tell(self, status: int, text: str) -> None:
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", text)
                if status == 429 and odd.retry_after is not None:
                    self.send_header("Retry-After", odd.retry_after)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self.spec = f"openai:{self.url}#tiny"

    def __enter__(self) -> OddEndpoint:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._server.shutdown()
        self._server.server_close()
