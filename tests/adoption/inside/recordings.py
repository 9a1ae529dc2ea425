"""Recordings through Call Automation's clients, from a stand-in for the storage hosts; JSON out.

The names of the storage hosts resolve to one listener on this machine, all others to another. Each
keeps what arrives. A request is authorized if it has the Entra token, or a signature as the service
expects it there: for the resource's host, which ``x-ms-host`` repeats.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import trustme
from azure.communication.callautomation import CallAutomationClient
from azure.communication.callautomation.aio import CallAutomationClient as AsyncClient
from azure.core.credentials import AccessToken, AzureKeyCredential
from azure.core.exceptions import AzureError

from interop.matrix import settle

RESOURCE = "contoso.communication.azure.com"
KEY = base64.b64encode(b"key of the resource").decode()
TOKEN = "token-of-entra"
STORAGE = (".asm.skype.com", ".asyncgw.teams.microsoft.com")
HOSTS = ["us.asm.skype.com", "eu.asm.skype.com", "a.asyncgw.teams.microsoft.com", "evil.example"]
CONTENT = bytes(range(100))
PATH = "/v1/objects/0-eus-d1-5c04/content/video"


def is_authorized(request: BaseHTTPRequestHandler) -> bool:
    given = request.headers.get("Authorization", "")
    if given == f"Bearer {TOKEN}":
        return True
    empty = base64.b64encode(hashlib.sha256(b"").digest()).decode()
    date, host = request.headers.get("x-ms-date"), request.headers.get("x-ms-host")
    text = f"{request.command}\n{request.path}\n{date};{RESOURCE};{empty}"
    digest = hmac.digest(base64.b64decode(KEY), text.encode(), "sha256")
    signed = "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature="
    return host == RESOURCE and given == signed + base64.b64encode(digest).decode()


class Listener(ThreadingHTTPServer):
    """Serves recordings, and redirects as the first part of a path says."""

    daemon_threads = True

    def __init__(self, name: str, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.name = name
        self.seen: list[dict[str, Any]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Listener

    def do_GET(self) -> None:
        self.server.seen.append(
            {
                "listener": self.server.name,
                "request": f"{self.command} {self.headers['Host']}",
                "credential": "Authorization" in self.headers,
                "authorized": is_authorized(self),
                "resource": self.headers.get("x-ms-host"),
            }
        )
        if self.path.startswith("/to/"):
            host = self.path.split("/")[2]
            self.answer(302, Location=f"https://{host}{PATH}")
        elif not is_authorized(self):
            self.answer(401)
        elif self.command == "DELETE":
            self.answer(200)
        elif "Range" in self.headers:
            first, last = self.headers["Range"].removeprefix("bytes=").split("-")
            self.answer(206, CONTENT[int(first) : int(last) + 1])
        else:
            self.answer(200, CONTENT)

    do_DELETE = do_GET

    def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None: ...


class Entra:
    def get_token(self, *scopes: str, **options: object) -> AccessToken:
        return AccessToken(TOKEN, 4102444800)


class AsyncEntra(Entra):
    async def get_token(self, *scopes: str, **options: object) -> AccessToken:  # type: ignore[override]
        return super().get_token()


async def read(response: Any) -> bytes:
    parts = response.iter_bytes()
    return b"".join([part async for part in parts] if hasattr(parts, "__aiter__") else [*parts])


async def download(client: Any, url: str) -> int:
    return len(await read(await settle(client.download_recording(url))))


async def download_part(client: Any, url: str) -> list[int]:
    return [*await read(await settle(client.download_recording(url, offset=10, length=3)))]


async def delete(client: Any, url: str) -> str:
    await settle(client.delete_recording(url))
    return "deleted"


CASES = {
    "download": (download, f"https://us.asm.skype.com{PATH}"),
    "download a part": (download_part, f"https://us.asm.skype.com{PATH}"),
    "delete": (delete, f"https://us.asm.skype.com{PATH}"),
    "download from Teams": (download, f"https://a.asyncgw.teams.microsoft.com{PATH}"),
    **{f"redirect to {h}": (download, f"https://us.asm.skype.com/to/{h}/") for h in HOSTS},
}


async def main() -> None:
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*HOSTS).configure_cert(context)
    storage, other = Listener("storage", context), Listener("other", context)
    resolve = socket.getaddrinfo

    def resolve_here(host: str, port: object, *arguments: Any, **options: Any) -> Any:
        listener = storage if host.endswith(STORAGE) else other
        return resolve("127.0.0.1", listener.server_port, *arguments, **options)

    socket.getaddrinfo = resolve_here  # type: ignore[assignment]
    report = []
    with authority.cert_pem.tempfile() as trusted:
        options = {"connection_verify": trusted, "retry_total": 0}
        for name, (case, url) in CASES.items():
            for kind in ("key", "Entra"):
                for client_class, entra in (
                    (CallAutomationClient, Entra),
                    (AsyncClient, AsyncEntra),
                ):
                    credential = AzureKeyCredential(KEY) if kind == "key" else entra()
                    client = client_class(f"https://{RESOURCE}", credential, **options)
                    try:
                        result: object = await case(client, url)
                    except (AzureError, ValueError) as error:
                        result = type(error).__name__
                    await settle(client.close())
                    way = "aio" if client_class is AsyncClient else "sync"
                    seen = storage.seen + other.seen
                    report.append(
                        {"case": name, "with": kind, "way": way, "result": result, "seen": seen}
                    )
                    storage.seen, other.seen = [], []
    print(json.dumps(report))


asyncio.run(main())
