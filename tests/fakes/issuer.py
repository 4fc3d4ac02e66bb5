"""An OAuth2 issuer, scripted to behave and to misbehave: a real HTTP server in the test's own event loop.

    async with Issuer() as issuer:
        issuer.settings(user="ann@here.example")                  # the account's oauth2 settings, as the API takes them
        refresh = issuer.grant()                                  # a refresh token, as if somebody had agreed before
        code, state = await issuer.agree(url, user="ann@...")     # what a browser would bring back from `authorize`
        issuer.access                                             # access tokens given so far, the latest last

    Issuer(rotates=True)                                          # each refresh token is good for one use
    Issuer(seconds=2)  Issuer(metadata={"token_endpoint": "..."}) # life of access tokens; other words about itself
    Issuer(oidc=False)                                            # tells of itself by RFC 8414 alone

Moods answer in place of the usual answer of `/token` (or `path`), the one added last first:

    issuer.when().refuse("invalid_grant", "Token has been revoked")   # 400 with this error
    issuer.when(times=1).say(500, "oops")                         # any status and body, e.g. garbage
    issuer.when().hang()                                          # no answer; the connection stays open
    issuer.when().wait(event)                                     # the usual answer once the test sets the event
    issuer.when().huge(1 << 24)                                   # an answer of so many bytes
    issuer.when().redirect("http://elsewhere/")

`issuer.asked` has the form of each token request, with the client's id and secret however they came; `asked[0].basic`
tells of a header. `issuer.revoke(refresh)` withdraws a grant for good.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlsplit

import aiohttp
from aiohttp import web

from tests.fakes.moods import Steps
from tests.fakes.places import HOST, port_of
from tests.stack import PATIENCE, until

CLIENT = "client-of-ours"
SECRET = "client-secret/+of ours"


@dataclass
class Asked:
    """A token request as it came."""

    form: dict[str, str]
    client: str
    secret: str
    basic: bool


@dataclass
class Mood(Steps):
    """What to do in place of the usual answer; built by the verbs below."""

    path: str
    times: int | None

    def say(self, status: int, text: str = "", **headers: str) -> Mood:
        return self._then("say", (status, text, headers))

    def refuse(self, error: str, description: str = "", status: int = 400) -> Mood:
        return self.say(status, json.dumps({"error": error, "error_description": description}))

    def redirect(self, url: str) -> Mood:
        return self.say(302, "", Location=url)

    def huge(self, size: int) -> Mood:
        return self._then("huge", size)


class Issuer:
    """The server; see above."""

    def __init__(
        self,
        *,
        rotates: bool = False,
        seconds: float | None = 3600,
        oidc: bool = True,
        path: str = "",
        metadata: dict[str, Any] | None = None,
        identity: bool = True,
        refreshes: bool = True,
    ) -> None:
        self.rotates, self.seconds, self.oidc, self.path = rotates, seconds, oidc, path
        self.identity, self.refreshes = identity, refreshes
        self.metadata = metadata or {}
        self.asked: list[Asked] = []
        self.access: list[str] = []
        self.told = 0  # times it told of itself
        self.connections = 0
        self.on_token: Callable[[str], None] = lambda token: None  # e.g. lets a mail server know it
        self.host, self.port = HOST, port_of(self)
        self._moods: list[Mood] = []
        self._codes: dict[str, dict[str, str]] = {}
        self._good: dict[str, str] = {}  # refresh token -> user
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Issuer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """On the port it had, when it is started again."""
        app = web.Application()
        app.router.add_get("/{tail:.*}", self._get)
        app.router.add_post(f"{self.path}/token", self._token)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}{self.path}"

    def settings(self, user: str = "ann@here.example", refresh: str | None = None, **more: Any) -> dict[str, Any]:
        """As an account's `oauth2`."""
        given = {"provider": "custom", "issuer": self.url, "clientId": CLIENT, "clientSecret": SECRET}
        return given | {"auth": {"user": user}} | ({"refreshToken": refresh} if refresh else {}) | more

    def grant(self, user: str = "ann@here.example") -> str:
        token = f"refresh-{secrets.token_hex(12)}"
        self._good[token] = user
        return token

    def lets(self, refresh: str, user: str) -> None:
        """One that was used is good again: some issuers are lenient for a while."""
        self._good[refresh] = user

    def revoke(self, *refresh: str) -> None:
        """These, or all."""
        for token in refresh or list(self._good):
            self._good.pop(token, None)

    def when(self, path: str = "/token", *, times: int | None = None) -> Mood:
        mood = Mood(self.path + path, times)
        self._moods.insert(0, mood)
        return mood

    def calm(self) -> None:
        """Forgets all moods."""
        self._moods.clear()

    async def heard(self, number: int, seconds: float = PATIENCE) -> list[Asked]:
        """The token requests, once there are so many."""
        await until(lambda: len(self.asked) >= number, seconds)
        return self.asked

    async def agree(self, url: str, user: str = "ann@here.example", answer: str = "") -> dict[str, str]:
        """What a browser brings back when this user signs in there; `answer`: the user says this error instead."""
        async with (
            aiohttp.ClientSession() as browser,
            browser.get(url, headers={"X-User": user, "X-Answer": answer}, allow_redirects=False) as response,
        ):
            assert response.status == 302, await response.text()
            return dict(parse_qsl(urlsplit(response.headers["Location"]).query))

    # -- what it does ------------------------------------------------------------------------------------------------

    async def _get(self, request: web.Request) -> web.StreamResponse:
        if mooded := await self._mood(request):
            return mooded
        wellknown = [f"{self.path}/.well-known/openid-configuration"] if self.oidc else []
        wellknown += [f"/.well-known/oauth-authorization-server{self.path}"]
        if request.path in wellknown:
            self.told += 1
            return web.json_response(self._metadata())
        if request.path == f"{self.path}/authorize":
            return self._authorize(request)
        return web.Response(status=404, text="nothing here")

    def _metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "scopes_supported": ["openid", "email", "offline_access", "mail"],
            **self.metadata,
        }

    def _authorize(self, request: web.Request) -> web.Response:
        query = request.query
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT
        assert query["code_challenge_method"] == "S256"
        redirect, state = query["redirect_uri"], query["state"]
        assert urlsplit(redirect).path == "/v1/oauth2/callback"
        if error := request.headers.get("X-Answer"):
            raise web.HTTPFound(f"{redirect}?error={error}&error_description=No+%3Cthanks%3E&state={state}")
        code = secrets.token_urlsafe(12)
        self._codes[code] = {**query, "user": request.headers["X-User"]}
        raise web.HTTPFound(f"{redirect}?code={code}&state={state}&session_state=x&iss={self.url}")

    async def _token(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        asked = self._client(request, form)
        self.asked.append(asked)
        if mooded := await self._mood(request):
            return mooded
        if (asked.client, asked.secret) != (CLIENT, SECRET):
            return self._error("invalid_client", 401)
        if form["grant_type"] == "authorization_code":
            return self._redeem(form)
        user = self._good.get(form["refresh_token"])
        if user is None:
            return self._error("invalid_grant")
        if self.rotates:
            del self._good[form["refresh_token"]]
        return self._granted(user, self.grant(user) if self.rotates else None)

    def _redeem(self, form: dict[str, str]) -> web.Response:
        began = self._codes.pop(form["code"], None)
        proof = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        if began is None or proof != began["code_challenge"] or form["redirect_uri"] != began["redirect_uri"]:
            return self._error("invalid_grant")
        return self._granted(began["user"], self.grant(began["user"]) if self.refreshes else None, signed_in=True)

    def _granted(self, user: str, refresh: str | None, *, signed_in: bool = False) -> web.Response:
        token = f"access-{secrets.token_hex(16)}"
        self.access.append(token)
        self.on_token(token)
        told: dict[str, Any] = {"access_token": token, "token_type": "Bearer", "expires_in": self.seconds}
        if refresh:
            told["refresh_token"] = refresh
        if signed_in and self.identity:
            claims = base64.urlsafe_b64encode(json.dumps({"email": user}).encode()).rstrip(b"=").decode()
            told["id_token"] = f"e30.{claims}.c2ln"
        return web.json_response({name: value for name, value in told.items() if value is not None})

    @staticmethod
    def _client(request: web.Request, form: dict[str, str]) -> Asked:
        kind, _, pair = request.headers.get("Authorization", "").partition(" ")
        if kind != "Basic":
            return Asked(form, form.get("client_id", ""), form.get("client_secret", ""), basic=False)
        client, _, secret = base64.b64decode(pair).decode().partition(":")
        return Asked(form, unquote_plus(client), unquote_plus(secret), basic=True)

    @staticmethod
    def _error(code: str, status: int = 400) -> web.Response:
        return web.json_response({"error": code, "error_description": f"Said by the issuer: {code}"}, status=status)

    async def _mood(self, request: web.Request) -> web.StreamResponse | None:
        moods = [one for one in self._moods if one.path == request.path and (one.times is None or one.times > 0)]
        if not moods:
            return None
        if moods[0].times is not None:
            moods[0].times -= 1
        for step, value in moods[0].steps:
            if answer := await getattr(self, f"_{step}")(request, value):
                return answer  # type: ignore[no-any-return]
        return None

    async def _say(self, request: web.Request, value: tuple[int, str, dict[str, str]]) -> web.Response:
        return web.Response(status=value[0], text=value[1], headers=value[2])

    async def _hang(self, request: web.Request, _: object) -> None:
        await asyncio.Event().wait()

    async def _wait(self, request: web.Request, event: asyncio.Event) -> None:
        await event.wait()

    async def _huge(self, request: web.Request, size: int) -> web.Response:
        return web.Response(text='{"access_token": "' + "x" * size + '"}')
