"""A small OpenID Connect provider on this machine: whoever comes is logged in as `claims` says."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlparse

CLIENT, SECRET = "rlmemo", "the secret of the client"


class Provider:
    """Metadata, keys, authorisation with a code, and tokens signed with RS256."""

    def __init__(self, claims: dict[str, Any]) -> None:
        from joserfc.jwk import RSAKey

        self.claims = claims
        self.key = RSAKey.generate_key(2048, parameters={"kid": "test", "use": "sig", "alg": "RS256"})
        self.nonces: dict[str, str] = {}
        self.asked: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def token(self, code: str) -> dict[str, Any]:
        from joserfc import jwt

        now = int(time.time())
        claims = {
            "iss": self.url, "aud": CLIENT, "sub": "someone", "iat": now, "exp": now + 600,
            "nonce": self.nonces.pop(code), **self.claims,
        }  # fmt: skip
        signed = jwt.encode({"alg": "RS256", "kid": "test"}, claims, self.key)
        return {"access_token": "opaque", "token_type": "Bearer", "expires_in": 600, "id_token": signed}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def answer(self, found: Any) -> None:
                body = json.dumps(found).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                url = urlparse(self.path)
                provider.asked.append(url.path)
                if url.path == "/.well-known/openid-configuration":
                    self.answer(
                        {
                            "issuer": provider.url,
                            "authorization_endpoint": f"{provider.url}/authorize",
                            "token_endpoint": f"{provider.url}/token",
                            "jwks_uri": f"{provider.url}/keys",
                            "response_types_supported": ["code"],
                            "subject_types_supported": ["public"],
                            "id_token_signing_alg_values_supported": ["RS256"],
                        }
                    )
                elif url.path == "/keys":
                    self.answer({"keys": [provider.key.as_dict(private=False)]})
                elif url.path == "/authorize":
                    asked = {k: v[0] for k, v in parse_qs(url.query).items()}
                    assert asked["client_id"] == CLIENT
                    code = f"code-{len(provider.nonces)}-{time.monotonic_ns()}"
                    provider.nonces[code] = asked["nonce"]
                    back = urlencode({"code": code, "state": asked["state"]})
                    self.send_response(302)
                    self.send_header("Location", f"{asked['redirect_uri']}?{back}")
                    self.end_headers()
                else:
                    self.send_error(404)

            def do_POST(self) -> None:
                provider.asked.append(self.path)
                body = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.answer(provider.token(body["code"][0]))

        return Handler
