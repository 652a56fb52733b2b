"""Small real HTTP peers that speak S3, rightly or as servers are known to get it wrong."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from lakehouse.objectstore.buckets import BucketSettings, S3Credentials
from support_signatures import refusal

DATE = "Sat, 21 Nov 2026 12:00:00 GMT"


class Peer:
    """What one server holds and how it behaves.

    Attributes:
        conditional: "honour", "ignore" (200 to every put, as rclone), "501" (as Swift).
        script: answers to give instead, first in first out: (status, code, body) or the name of a
            trouble: "reset", "slow", "short"; "pass" lets one request through.
        uploads: multipart uploads under way: their parts by number.
        refused_parts: so many parts are answered 503 from now on.
        requests: what came in, as (method, key, query).
        keys: id -> secret of those who may ask; None takes any.
        signers: the key ids of the requests that were taken.
    """

    def __init__(self, conditional: str = "honour") -> None:
        self.conditional = conditional
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.lock = threading.Lock()
        self.script: list[tuple[int, str, bytes] | str] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.refused_parts = 0
        self.keys: dict[str, str] | None = None
        self.signers: list[str] = []
        self.slow_seconds = 1.0
        self.endpoint = ""

    def settings(self, prefix: str = "pre") -> BucketSettings:
        return BucketSettings(
            name="peer",
            url=f"s3://bucket/{prefix}",
            endpoint=self.endpoint,
            credentials=S3Credentials("peer-access", "peer-secret-key"),
        )


@contextmanager
def serving(peer: Peer, port: int = 0) -> Iterator[Peer]:
    """Serve ``peer`` on a port of loopback; 0 takes a free one."""
    handler = type("Bound", (_Handler,), {"peer": peer})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    peer.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield peer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    peer: ClassVar[Peer]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, True).items()}
        _, _, key = unquote(parts.path).lstrip("/").partition("/")
        peer = self.peer
        peer.requests.append((self.command, key, query))
        answer = peer.script.pop(0) if peer.script else "pass"
        if peer.keys is not None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            code = refusal(self.command, self.path, headers, peer.keys)
            if code:
                self._scripted((403, code, b""))
                return
            peer.signers.append(headers["authorization"].split("=")[1].split("/")[0])
        if answer != "pass":
            self._scripted(answer)
        elif "uploads" in query or "uploadId" in query:
            self._multipart(key, query, body)
        elif self.command == "PUT":
            self._put(key, body)
        elif self.command == "POST":
            self._delete_many(body)
        elif not key:
            self._list(query)
        else:
            self._get(key)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._any
        raise AttributeError(name)

    def _scripted(self, answer: tuple[int, str, bytes] | str) -> None:
        if answer == "reset":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif answer == "slow":
            time.sleep(self.peer.slow_seconds)
            self.close_connection = True
        elif answer == "short":
            self.send_response(200)
            for name, value in _headers(b"x" * 100).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"only this")
            self.close_connection = True
        else:
            assert isinstance(answer, tuple)
            status, code, body = answer
            xml = b"<Error><Code>%s</Code><Message>m</Message></Error>" % code.encode()
            self._answer(status, xml if code else body)

    def _put(self, key: str, body: bytes) -> None:
        peer = self.peer
        conditional = self.headers.get("if-none-match") == "*"
        if conditional and peer.conditional == "501":
            self._scripted((501, "NotImplemented", b""))
            return
        with peer.lock:
            taken = conditional and peer.conditional == "honour" and key in peer.objects
            if not taken:
                peer.objects[key] = body
        if taken:
            self._scripted((412, "PreconditionFailed", b""))
        else:
            self._answer(200, b"", {"ETag": _etag(body)})

    def _multipart(self, key: str, query: dict[str, str], body: bytes) -> None:
        """The four requests of an upload in parts: begin, part, complete, abort."""
        peer = self.peer
        with peer.lock:
            if "uploads" in query:
                name = f"upload-{len(peer.requests)}"
                peer.uploads[name] = {}
                answer = b"<UploadId>%s</UploadId>" % name.encode()
                self._answer(
                    200,
                    b"<InitiateMultipartUploadResult>%s</InitiateMultipartUploadResult>" % answer,
                )
                return
            name = query["uploadId"]
            if name not in peer.uploads:
                self._scripted((404, "NoSuchUpload", b""))
            elif self.command == "PUT" and peer.refused_parts:
                peer.refused_parts -= 1
                self._scripted((503, "SlowDown", b""))
            elif self.command == "PUT":
                peer.uploads[name][int(query["partNumber"])] = body
                self._answer(200, b"", {"ETag": _etag(body)})
            elif self.command == "POST":
                parts = peer.uploads.pop(name)
                peer.objects[key] = b"".join(parts[number] for number in sorted(parts))
                etag = b"<ETag>&quot;e&quot;</ETag>"
                done = b"<CompleteMultipartUploadResult>%s</CompleteMultipartUploadResult>"
                self._answer(200, done % etag)
            else:
                del peer.uploads[name]
                self._answer(204, b"")

    def _get(self, key: str) -> None:
        data = self.peer.objects.get(key)
        if data is None:
            self._scripted((404, "NoSuchKey", b""))
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        if found is None:
            self._answer(200, data, _headers(data))
            return
        first, last = int(found[1]), min(int(found[2]), len(data) - 1)
        if first >= len(data):
            self._scripted((416, "InvalidRange", b""))
            return
        headers = _headers(data) | {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
        self._answer(206, data[first : last + 1], headers)

    def _list(self, query: dict[str, str]) -> None:
        prefix, after = query.get("prefix", ""), query.get("start-after", "")
        limit = int(query.get("max-keys", "1000"))
        with self.peer.lock:
            keys = sorted(
                key for key in self.peer.objects if key.startswith(prefix) and key > after
            )
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-11-21T12:00:00.000Z"
            f"</LastModified><ETag>&quot;e&quot;</ETag><Size>{len(self.peer.objects[key])}</Size>"
            "</Contents>"
            for key in keys[:limit]
        )
        more = "true" if len(keys) > limit else "false"
        xml = f"<ListBucketResult><IsTruncated>{more}</IsTruncated>{entries}</ListBucketResult>"
        self._answer(200, xml.encode())

    def _delete_many(self, body: bytes) -> None:
        keys = re.findall(r"<Key>([^<]*)</Key>", body.decode())
        with self.peer.lock:
            for key in keys:
                self.peer.objects.pop(key, None)
        entries = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self._answer(200, f"<DeleteResult>{entries}</DeleteResult>".encode())

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            if name != "Content-Length":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-amz-request-id", f"peer-{len(self.peer.requests)}")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def _headers(data: bytes) -> dict[str, str]:
    return {"ETag": _etag(data), "Last-Modified": DATE, "Content-Length": str(len(data))}
