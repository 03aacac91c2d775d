"""Sites on this machine, each answer after a delay: what a page far away is like, for `live measure --page`.

    python experiments/slow_pages.py --port 8300 --delay-ms 300
    python -m rlmemo.live measure --page http://text.localhost:8300/ --page http://shop.localhost:8300/

The name before `.localhost` picks the site: text (one file), news (style, script, pictures), shop (a script
that asks for what it shows), uncached (as news, and nothing may be kept). A page's parts are asked for after
the page itself, and what a script asks for after the script.
"""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = "<p>" + "Some words that have to be laid out. " * 200
PICTURES = "".join(f'<img src="/picture{k}.svg">' for k in range(12))
NEWS = f'<link rel="stylesheet" href="/style.css"><script src="/script.js"></script>{WORDS}{PICTURES}'
SHOP = (
    f'<link rel="stylesheet" href="/style.css"><script src="/shop.js"></script>{WORDS}<div id="goods"></div>'
)
SITES = {"text": WORDS, "news": NEWS, "shop": SHOP, "uncached": NEWS}
PARTS = {
    "/style.css": ("text/css", "p { margin: 2em; font: 16px sans-serif }" + "/* */" * 4000),
    "/script.js": ("text/javascript", "document.title = 'ready';" + "/* */" * 20000),
    "/shop.js": (
        "text/javascript",
        (
            "const asked = new XMLHttpRequest(); asked.open('GET', '/goods.json', false); asked.send();"
            "addEventListener('DOMContentLoaded', () => goods.textContent = asked.responseText);"
        ),
    ),
    "/goods.json": ("application/json", "[" + ",".join(f'"thing {k}"' for k in range(500)) + "]"),
}
PICTURE = '<svg xmlns="http://www.w3.org/2000/svg" width="99" height="99"><circle r="50" fill="blue"/></svg>'


class Site(BaseHTTPRequestHandler):
    """Answers for every site, after the delay."""

    protocol_version = "HTTP/1.1"
    delay_s = 0.3

    def do_GET(self) -> None:
        time.sleep(self.delay_s)
        site = (self.headers.get("Host") or "").split(".")[0]
        kind, text = PARTS.get(self.path, ("image/svg+xml", PICTURE))
        if self.path == "/":
            kind, text = "text/html", f"<!doctype html><title>{site}</title>{SITES.get(site, WORDS)}"
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store" if site == "uncached" else "max-age=600")
        with suppress(ConnectionError):  # whoever asked has closed the tab meanwhile
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def serve(port: int, delay_s: float) -> ThreadingHTTPServer:
    """The server, on this machine alone; port 0 takes a free one."""
    site = type("Delayed", (Site,), {"delay_s": delay_s})
    return ThreadingHTTPServer(("127.0.0.1", port), site)


def main() -> None:
    """Serve until interrupted."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--port", type=int, default=8300)
    made.add_argument("--delay-ms", type=float, default=300.0)
    args = made.parse_args()
    serve(args.port, args.delay_ms / 1000).serve_forever()


if __name__ == "__main__":
    main()
