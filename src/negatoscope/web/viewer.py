"""The OHIF viewer below ``/viewer/``: its files, its page, and its configuration made for each request.

The files were put in ``static/ohif`` by ``tools/viewer.py``: ``index.html`` and one folder whose name
changes whenever anything in it does. What lies in that folder may be kept for ever by a browser; the page
and ``app-config.js`` never. Everything is same-origin: a patient's image never meets a third party.

Every response carries the isolation headers, because a page under COEP ``require-corp`` is not given a
worker or a script that lacks them.
"""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

VIEWER = Path(__file__).parent / "static" / "ohif"
STUDIES_IN_ADDRESS = 32  # current study and its priors; more is a mistake or a probe
LANGUAGES = ("fr", "en")

_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self' 'wasm-unsafe-eval'",
    "worker-src": "'self' blob:",
    "connect-src": "'self' blob: data:",
    "img-src": "'self' blob: data:",
    "media-src": "'self' blob:",
    "object-src": "'self' blob:",  # encapsulated PDF
    "frame-src": "'self' blob:",
    "font-src": "'self' data:",
    "style-src": "'self' 'unsafe-inline'",  # OHIF's components set styles as they run
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'self'",
}


def _policy(changes: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {sources}" for name, sources in {**_POLICY, **changes}.items())


CONTENT_SECURITY_POLICY = _policy({})
"""For the page. No inline script, no ``eval``."""

WORKER_CONTENT_SECURITY_POLICY = _policy({"script-src": "'self' 'wasm-unsafe-eval' 'unsafe-eval'"})
"""For scripts, which only workers obey: the WASM image decoders build their bindings with ``Function``.
A worker has no page to inject into, and what it may connect to stays bounded."""

ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
FOR_EVER = "public, max-age=31536000, immutable"
NEVER = "no-store"

Mint = Callable[[Request, Sequence[str]], str | None]


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file of the viewer and, where packaging made one, its gzip twin."""

    path: Path
    media_type: str
    compressed: Path | None


def index_files(folder: Path) -> dict[str, StaticFile]:
    """Address below ``/viewer/`` -> file, for the files of the versioned folder.

    Read once: an address is looked up, never joined to a path, so none can lead outside.
    """
    files = {}
    for path in sorted(folder.glob("*/**/*")):
        if path.is_file() and path.suffix != ".gz":
            twin = path.with_name(path.name + ".gz")
            files[path.relative_to(folder).as_posix()] = StaticFile(
                path, media_type(path.name), twin if twin.exists() else None
            )
    return files


def media_type(name: str) -> str:
    """By the name's ending, with the few that Python's table misses or a system's table may get wrong."""
    known = {".js": "text/javascript", ".wasm": "application/wasm", ".css": "text/css", ".woff2": "font/woff2"}
    return known.get(Path(name).suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header takes gzip (RFC 9110 12.5.3); ``gzip;q=0`` refuses it."""
    weights = {}
    for item in header.lower().split(","):
        coding, _, weight = item.partition(";")
        weights[coding.strip()] = weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return weights.get("gzip", weights.get("*", False))


def study_uids(values: Iterable[str]) -> list[str]:
    """Study Instance UIDs of ``StudyInstanceUIDs`` parameters, comma separated or repeated.

    What is not a UID is left out (the viewer takes identifiers, never addresses); at most
    :data:`STUDIES_IN_ADDRESS` are kept.
    """
    found = [uid.strip() for value in values for uid in value.split(",")]
    return [uid for uid in found if len(uid) <= 64 and _UID.fullmatch(uid)][:STUDIES_IN_ADDRESS]


def app_config(language: str, token: str | None, dicom_web: str = "/dicom-web", home: str = "/") -> str:
    """The text of ``app-config.js``: a script that sets ``window.config`` for OHIF.

    Args:
        language: ``fr`` or ``en``, for the words that are ours.
        token: a short-lived token bound to the studies shown, or ``None`` where the browser has a session.
        dicom_web: path of DICOMweb on this very origin.
        home: where the logo leads.
    """
    source = {
        "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
        "sourceName": "negatoscope",
        "configuration": {
            "friendlyName": "Négatoscope",
            "name": "negatoscope",
            "qidoRoot": dicom_web,
            "wadoRoot": dicom_web,
            "wadoUriRoot": "/wado",
            "qidoSupportsIncludeField": True,
            "supportsFuzzyMatching": False,
            "supportsWildcard": True,
            "supportsReject": False,
            "imageRendering": "wadors",
            "thumbnailRendering": "thumbnail",
            "thumbnailRequestStrategy": "fetch",
            "enableStudyLazyLoad": True,
            "staticWado": False,
            # frames stay multipart: asked as transfer-syntax=*, served as stored, decoded in the browser
            "singlepart": "bulkdata,video",
            "omitQuotationForMultipartRequest": True,
            "bulkDataURI": {"enabled": True, "relativeResolution": "studies"},
        },
    }
    config = {
        "name": "negatoscope",
        "routerBasename": "/viewer",
        "extensions": [],
        "modes": [],
        "customizationService": {"ohif.tours": {"$set": []}},  # no guided tour over a patient's images
        "showStudyList": False,
        "maxNumberOfWebWorkers": 3,
        "showWarningMessageForCrossOrigin": False,
        "showCPUFallbackMessage": True,
        "showLoadingIndicator": True,
        "strictZSpacingForVolumeViewport": True,
        "groupEnabledModesFirst": True,
        "showErrorDetails": "dev",
        "maxNumRequests": {"interaction": 100, "thumbnail": 5, "prefetch": 25},
        # not a certified medical device: said at the start of every session
        # our own words stand in the bar at all times, in the reader's language; this one is English and covers images
        "investigationalUseDialog": {"option": "never"},
        "defaultDataSourceName": "negatoscope",
        "dataSources": [source],
    }
    words = {
        "notice": {
            "fr": "Non destiné au diagnostic primaire",
            "en": "Not for primary diagnosis",
        }[language],
        "home": home,
    }
    return _SCRIPT % (_script_json(config), _script_json(words), _script_json(token))


_SCRIPT = """(function () {
  "use strict";
  var config = %s, words = %s, token = %s;
  config.whiteLabeling = { createLogoComponentFn: function (React) {
    return React.createElement("span", { style: { display: "flex", alignItems: "baseline", gap: "0.75rem" } },
      React.createElement("a", { href: words.home, style: { color: "#ffffff", fontWeight: 600 } }, "N\\u00e9gatoscope"),
      React.createElement("span", { role: "note", style: { color: "#ffc457", fontSize: "0.8rem" } }, words.notice));
  } };
  if (token) {
    config.extensions.push({ id: "negatoscope.session", preRegistration: function (given) {
      given.servicesManager.services.userAuthenticationService.setServiceImplementation({
        getAuthorizationHeader: function () { return { Authorization: "Bearer " + token }; } });
    } });
  }
  window.config = config;
})();
"""


def _script_json(value: object) -> str:
    """JSON that may stand in a script, whatever the strings hold."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page(index: str, language: str, uids: Sequence[str]) -> str:
    """OHIF's page with its two blanks filled. The study UIDs go along to ``app-config.js`` so that a token
    can be bound to them; they are the only part of the page's address that does."""
    query = "?" + urlencode({"StudyInstanceUIDs": ",".join(uids)}) if uids else ""
    return index.replace("{{language}}", language).replace("{{config}}", escape("/viewer/app-config.js" + query))


def preferred_language(request: Request) -> str:
    """``lng`` of the address, else the first of ours that the browser names, else French."""
    accepted = request.headers.get("accept-language", "")
    named = [request.query_params.get("lng", "")] + [item.partition(";")[0].strip() for item in accepted.split(",")]
    return next((name[:2].lower() for name in named if name[:2].lower() in LANGUAGES), LANGUAGES[0])


_MISSING = """<!doctype html>
<html lang="fr"><head><meta charset="utf-8"><title>Négatoscope</title></head><body>
<h1>La visionneuse n’est pas installée</h1>
<p>Le serveur fonctionne, mais les fichiers de la visionneuse manquent.
L’administrateur les installe par <code>make install</code> (npm est nécessaire), puis redémarre le serveur.</p>
<h2 lang="en">The viewer is not installed</h2>
<p lang="en">The server works, but the files of the viewer are missing.
The administrator installs them by <code>make install</code> (npm is needed), then restarts the server.</p>
</body></html>
"""


def viewer_routes(
    mint: Mint | None = None,
    folder: Path = VIEWER,
    language: Callable[[Request], str] = preferred_language,
    home: str = "/",
) -> list[BaseRoute]:
    """The routes of ``/viewer``, to be put into the application's list.

    Args:
        mint: called with the request for ``app-config.js`` and the study UIDs of the page; answers a short-lived
            token bound to them, or ``None`` when the request has a session or no right (DICOMweb then
            decides). Called in a worker thread; never for a request that another site caused.
        folder: what ``tools/viewer.py`` made. Read when the routes are made.
        language: ``fr`` or ``en`` of a request.
        home: where to go without a study to show.
    """
    files = index_files(folder)
    index_file = folder / "index.html"
    index = index_file.read_text(encoding="utf-8") if index_file.exists() else None

    def configuration(request: Request) -> Response:
        """``app-config.js``. A script may be included by any site: so no token unless our own page asks."""
        uids = study_uids(request.query_params.getlist("StudyInstanceUIDs"))
        ours = request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
        token = mint(request, uids) if mint and uids and ours else None
        text = app_config(language(request), token, home=home)
        return Response(text, media_type="text/javascript", headers=_headers(NEVER, "text/javascript"))

    async def show(request: Request) -> Response:
        """A file, or the page for any other address (OHIF routes in the browser)."""
        address = request.path_params["address"]
        if file := files.get(address):
            return _file(request, file)
        if index is None:
            return HTMLResponse(_MISSING, status_code=503, headers=_headers(NEVER, "text/html"))
        if "." in address:
            return Response("not found", status_code=404, media_type="text/plain", headers=_headers(NEVER, ""))
        uids = study_uids(request.query_params.getlist("StudyInstanceUIDs"))
        return HTMLResponse(page(index, language(request), uids), headers=_headers(NEVER, "text/html"))

    async def enter(request: Request) -> Response:
        """``/viewer`` and ``/viewer/``: on to OHIF's viewing mode, or home when no study is named."""
        if index is None:
            return HTMLResponse(_MISSING, status_code=503, headers=_headers(NEVER, "text/html"))
        if not study_uids(request.query_params.getlist("StudyInstanceUIDs")):
            return RedirectResponse(home, status_code=303, headers=_headers(NEVER, ""))
        return RedirectResponse(f"/viewer/viewer?{request.url.query}", status_code=303, headers=_headers(NEVER, ""))

    return [
        Route("/viewer", enter, methods=["GET"], name="viewer"),
        Route("/viewer/", enter, methods=["GET"], name="viewer-enter"),
        Route("/viewer/app-config.js", configuration, methods=["GET"], name="viewer-config"),
        Route("/viewer/{address:path}", show, methods=["GET"], name="viewer-file"),
    ]


def _headers(caching: str, kind: str) -> dict[str, str]:
    policy = WORKER_CONTENT_SECURITY_POLICY if kind == "text/javascript" else CONTENT_SECURITY_POLICY
    return {**ISOLATION, "Cache-Control": caching, "Content-Security-Policy": policy}


def _file(request: Request, file: StaticFile) -> Response:
    headers = {**_headers(FOR_EVER, file.media_type), "Vary": "Accept-Encoding"}
    # a range is of the bytes as they are, so it is served from the file that is not compressed
    if file.compressed and "range" not in request.headers and accepts_gzip(request.headers.get("accept-encoding", "")):
        headers["Content-Encoding"] = "gzip"
        return FileResponse(file.compressed, media_type=file.media_type, headers=headers)
    return FileResponse(file.path, media_type=file.media_type, headers=headers)
