"""Who asks, over HTTP: a bearer token or a session cookie, never a secret in an address.

Forged requests (CSRF). A browser sends the session cookie with whatever another site makes it send, so every
unsafe method with a session cookie must show that it comes from our own pages, in one of two ways:

* the session's token, in the header ``X-CSRF-Token`` or in the form field ``csrf``. It is an HMAC of the
  session's secret: nothing is stored, another session's does not fit, and it tells nothing of the secret;
* or an ``Origin`` that is our own host, with ``Sec-Fetch-Site: same-origin`` where the browser sends it. No
  script can set either, which is how the viewer's STOW-RS passes without knowing of tokens.

A token that is given and wrong is refused whatever the origin. Bearer tokens are never sent by a browser
on its own and need none of this. The cookie is ``HttpOnly`` and ``SameSite=Lax``: with ``Strict`` a link from a RIS or
a mail would arrive signed out.

``actor_of`` may ask the database, so it is called from a thread; ``known_actor_of`` never blocks.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Protocol
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from negatoscope.errors import Forbidden, Unauthenticated
from negatoscope.model.actor import Actor
from negatoscope.sharing import SecretKind, kind_of, normalised

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="negatoscope"'}  # goes with every 401
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
TOKEN_HEADER = "X-CSRF-Token"  # noqa: S105 - the name of a header
FORM_FIELD = "csrf"
_LONGEST_SECRET = 128  # characters looked at


class Sessions(Protocol):
    """The part of ``sharing.Accounts`` that is used here."""

    def actor_of_secret(self, secret: str) -> Actor | None: ...
    def known_actor(self, secret: str) -> Actor | None: ...
    def open_session(self, actor: Actor, ttl_s: float) -> str: ...
    def close_session(self, secret: str, actor: Actor, address: str) -> None: ...


class Authentication:
    """Kept as ``app.state.authentication``; the functions below find it there.

    Args:
        sessions: Accounts.
        secure: People come over HTTPS: the cookie is ``Secure`` and has the ``__Host-`` prefix.
        session_s: How long a session lives, seconds.
        trusted_proxies: Addresses or networks whose ``X-Forwarded-For`` is believed, comma separated.
    """

    def __init__(self, sessions: Sessions, *, secure: bool, session_s: float, trusted_proxies: str = "") -> None:
        self._sessions, self._secure, self._session_s = sessions, secure, session_s
        self._cookie = "__Host-negatoscope" if secure else "negatoscope"
        self._proxies = _networks(trusted_proxies)

    def actor_of(self, request: HTTPConnection) -> Actor:
        """Who asks, and that nobody made their browser ask it. May ask the database: call it from a thread.

        Raises:
            Unauthenticated: no credentials, or not good ones (a bad token is not made good by a cookie).
            Forbidden: an unsafe method with a session cookie that does not come from our own pages.
        """
        actor = self.visitor_of(request)
        if actor is None:
            raise Unauthenticated("a valid token or session is needed")
        self.check_csrf(request)
        return actor

    def visitor_of(self, request: HTTPConnection) -> Actor | None:
        """As :meth:`actor_of`, for pages that strangers may see: ``None`` instead of an error.

        A form's token is in its body, which is not read here: whoever takes a form calls :meth:`check_csrf`.
        """
        secret = self._secret(request)
        return self._sessions.actor_of_secret(secret) if secret else None

    def known_actor_of(self, request: HTTPConnection) -> Actor | None:
        """Who asks, when it is known without asking the database; else ``None``: use :meth:`actor_of`.

        ``None`` for unsafe methods too.
        """
        if request.scope.get("method") not in SAFE_METHODS:
            return None
        secret = self._secret(request)
        return self._sessions.known_actor(secret) if secret else None

    def sign_in(self, request: HTTPConnection, response: Response, actor: Actor) -> None:
        """Open a session for ``actor`` and put its cookie into ``response``; a session there was ends."""
        self._close(request)
        secret = self._sessions.open_session(actor, self._session_s)
        self._set_cookie(response, secret, int(self._session_s))

    def sign_out(self, request: HTTPConnection, response: Response) -> None:
        """End the session at the server, and have the browser forget its cookie."""
        self._close(request)
        self._set_cookie(response, "", 0)

    def csrf_token(self, request: HTTPConnection) -> str:
        """What our forms carry; ``""`` without a session (then the origin alone is judged)."""
        secret = self._session(request)
        return _token(secret) if secret else ""

    def check_csrf(self, request: HTTPConnection, submitted: str | None = None) -> None:
        """Judge an unsafe request; safe methods and bearer tokens pass.

        Without a session too: signing somebody in under a stranger's account is a forgery as well.

        Args:
            submitted: The form's ``csrf`` field; the header is looked at here.

        Raises:
            Forbidden: it does not come from our own pages.
        """
        if request.scope.get("method") in SAFE_METHODS or "authorization" in request.headers:
            return
        given = request.headers.get(TOKEN_HEADER) or submitted
        secret = self._session(request)
        if given and secret:
            if not hmac.compare_digest(given.encode(), _token(secret).encode()):
                raise Forbidden("this form is not of this session; load the page again")
        elif not _is_same_origin(request):
            raise Forbidden("this request does not come from our pages")

    def address_of(self, request: HTTPConnection) -> str:
        """The address of the peer: of the last hop, going back over the proxies we trust. ``""`` when unknown."""
        address = normalised(request.client.host) if request.client else ""
        hops = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
        while self._is_proxy(address) and hops:
            hop = normalised(hops.pop().strip())
            if not _is_ip(hop):
                break
            address = hop
        return address

    def _is_proxy(self, address: str) -> bool:
        return _is_ip(address) and any(ip_address(address) in network for network in self._proxies)

    def _secret(self, request: HTTPConnection) -> str | None:
        given = request.headers.getlist("authorization")
        if given:
            scheme, _, secret = given[0].partition(" ")
            fits = len(given) == 1 and scheme.lower() == "bearer" and kind_of(secret.strip()) is SecretKind.TOKEN
            return secret.strip() if fits else None
        return self._session(request)

    def _session(self, request: HTTPConnection) -> str | None:
        secret = request.cookies.get(self._cookie, "")
        fits = len(secret) <= _LONGEST_SECRET and kind_of(secret) is SecretKind.SESSION
        return secret if fits else None

    def _close(self, request: HTTPConnection) -> None:
        secret = self._session(request)
        actor = self._sessions.actor_of_secret(secret) if secret else None
        if secret and actor:
            self._sessions.close_session(secret, actor, self.address_of(request))

    def _set_cookie(self, response: Response, value: str, max_age_s: int) -> None:
        response.set_cookie(
            self._cookie, value, max_age=max_age_s, path="/", secure=self._secure, httponly=True, samesite="lax"
        )


def _token(secret: str) -> str:
    return hmac.new(secret.encode("ascii"), b"negatoscope csrf", hashlib.sha256).hexdigest()


def _is_same_origin(request: HTTPConnection) -> bool:
    """Fetch standard: ``Origin`` goes with every unsafe request of a browser; ``Sec-Fetch-Site`` over HTTPS and
    on loopback. Schemes are not compared: behind a proxy ours is not the one the browser sees."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    origin = urlsplit(request.headers.get("origin", ""))
    host = request.headers.get("host", "")
    return bool(host) and origin.scheme in ("http", "https") and origin.netloc.lower() == host.lower()


def _networks(text: str) -> Sequence[IPv4Network | IPv6Network]:
    return [ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip()]


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


# For handlers, which have the request alone -------------------------------------------------------


def _of(request: HTTPConnection) -> Authentication:
    authentication: Authentication = request.app.state.authentication
    return authentication


def actor_of(request: HTTPConnection) -> Actor:
    """See :meth:`Authentication.actor_of`."""
    return _of(request).actor_of(request)


def visitor_of(request: HTTPConnection) -> Actor | None:
    """See :meth:`Authentication.visitor_of`."""
    return _of(request).visitor_of(request)


def known_actor_of(request: HTTPConnection) -> Actor | None:
    """See :meth:`Authentication.known_actor_of`."""
    return _of(request).known_actor_of(request)


def sign_in(request: Request, response: Response, actor: Actor) -> None:
    """See :meth:`Authentication.sign_in`."""
    _of(request).sign_in(request, response, actor)


def sign_out(request: Request, response: Response) -> None:
    """See :meth:`Authentication.sign_out`."""
    _of(request).sign_out(request, response)


def csrf_token(request: HTTPConnection) -> str:
    """See :meth:`Authentication.csrf_token`."""
    return _of(request).csrf_token(request)


def check_csrf(request: HTTPConnection, submitted: str | None = None) -> None:
    """See :meth:`Authentication.check_csrf`."""
    _of(request).check_csrf(request, submitted)


def address_of(request: HTTPConnection) -> str:
    """See :meth:`Authentication.address_of`."""
    return _of(request).address_of(request)
