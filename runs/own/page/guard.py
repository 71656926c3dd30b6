"""Lets in only the person at this machine: a secret in a cookie, our own Host, writes from our own page.

A server on 127.0.0.1 can be reached by every page that a browser shows: by its address, or by a name that its owner
lets point to 127.0.0.1 (DNS rebinding). The Host tells the second, the Origin the first, and neither knows the secret.
"""

import secrets
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost", "[::1]")
MOST_RANGES = 8
READING = ("GET", "HEAD")
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' "
          "blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'")
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
           "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
           "X-Frame-Options": "DENY", "Permissions-Policy": "camera=(self), microphone=(), geolocation=()"}


class Guard:
    """Stands before the routes.

    Args:
        app: the routes. port: ours. token: what the printed address holds.
    """

    def __init__(self, app: ASGIApp, port: int, token: str):
        self.app, self.token, self.cookie = app, token, f"clip_fsar_{port}"
        self.hosts = {f"{host}:{port}" for host in HOSTS} | (set(HOSTS) if port == 80 else set())

    def _knows(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self.token.encode())

    def problem(self, scope: Scope) -> tuple[int, str] | None:
        """Return why a request is not answered, with a status of HTTP; None: it is."""
        headers, method = Headers(scope=scope), scope["method"]
        hosts, ranges = headers.getlist("host"), headers.get("range", "")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return 421, "This server answers to 127.0.0.1 and localhost only."
        if not self._knows(cookie_parser(headers.get("cookie", "")).get(self.cookie, "")) and not self.entered(scope):
            return 403, "Open the whole address that the terminal shows; it holds a secret that this request lacks."
        if method not in READING and headers.getlist("origin") != [f"http://{hosts[0].lower()}"]:
            return 403, "Changes come from this server's own page only."
        return (416, f"At most {MOST_RANGES} ranges.") if ranges.count(",") >= MOST_RANGES else None

    def entered(self, scope: Scope) -> bool:
        """Return whether a request is the first one, by the printed address."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return scope["path"] == "/" and scope["method"] in READING and self._knows(given)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
                if self.problem(scope) is None and self.entered(scope):
                    headers.append("Set-Cookie", f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/")
            await send(message)

        if problem := self.problem(scope):
            return await PlainTextResponse(f"{problem[1]}\n", problem[0])(scope, receive, guarded)
        return await self.app(scope, receive, guarded)
