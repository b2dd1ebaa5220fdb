"""An HTTP server with byte ranges and a double of S3, on loopback: what was asked of them is counted, and they fail as told.

The double refuses what is not signed by its key, lists buckets (`ListObjects`), and knows those that are folders. Signatures
themselves are not checked. It is a process of its own: rasterio keeps the interpreter's lock while GDAL waits for an answer.
"""

import contextlib
import json
import re
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

ACCESS_KEY = "AKIAEXAMPLEOFSWATH00"
SECRET_KEY = "wJalrXUtnFEMIexample"  # noqa: S105 - of nobody


def s3_environment(served: "Served") -> dict[str, str]:
    """What the environment of a job must have for the double of S3 to answer it."""
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_S3_ENDPOINT": served.address,
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "CPL_AWS_AUTODETECT_EC2": "NO",
    }


class Asked(NamedTuple):
    """A request: its method, path with query, range, and the bytes that were sent."""

    method: str
    path: str
    range: str
    sent: int


@dataclass(frozen=True, slots=True)
class How:
    """How a folder is served.

    Attributes:
        is_s3: its folders are buckets; asks for a signature, and lists.
        ranges: parts of a file are given; else it is always whole.
        fails: a status, the number of GETs before all is answered with it, and that of GETs before all is well again.
        cut_from: the GET from which on bodies end early.
        hangs_from: the GET from which on nothing is answered.
        changes_at: the GET before which the file becomes another, `(number, name of the other)`.
        user: `name:password` that is asked for.
        fails_for: files whose names end so are answered with 500.
    """

    is_s3: bool = False
    ranges: bool = True
    fails: tuple[int, int, int] | None = None
    cut_from: int | None = None
    hangs_from: int | None = None
    changes_at: tuple[int, str] | None = None
    user: str = ""
    fails_for: str = ""


class Served:
    """A server's address, and what was asked of it."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self._process = process
        self.address = f"127.0.0.1:{port}"
        self.url = f"http://{self.address}"

    def asked(self, method: str = "", name: str = "") -> list[Asked]:
        """All requests so far, of a method and for a file where they are named."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        every = [Asked(*each) for each in json.loads(self._process.stdout.readline())]
        return [each for each in every if each.method.startswith(method) and name in each.path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    how: How
    asked: list[Asked]

    def log_message(self, *_: object) -> None:
        """Silent."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        how, parts = self.how, urlsplit(self.path)
        path, authorization = unquote(parts.path).lstrip("/"), self.headers.get("Authorization", "")
        number = sum(each.method == "GET" for each in self.asked)
        file = self.folder / path
        if how.changes_at and number >= how.changes_at[0]:
            file = self.folder / how.changes_at[1]
        if how.is_s3 and f"Credential={ACCESS_KEY}/" not in authorization:
            self._say(403, _fault("AccessDenied"))
        elif how.user and authorization != f"Basic {b64encode(how.user.encode()).decode()}":
            self._say(401, b"")
        elif how.is_s3 and not (self.folder / path.split("/")[0]).is_dir():
            self._say(404, _fault("NoSuchBucket"))
        elif how.is_s3 and not path.strip("/").count("/") and "delimiter" in parts.query:
            self._say(200, _listing(file, parse_qs(parts.query).get("prefix", [""])[0]))
        elif how.hangs_from is not None and number >= how.hangs_from:
            self._note(0)
            threading.Event().wait(60)
        elif how.fails_for and path.endswith(how.fails_for):
            self._say(500, b"no")
        elif how.fails and how.fails[1] <= number < how.fails[2]:
            self._say(how.fails[0], b"no")
        elif not file.is_file():
            self._say(404, _fault("NoSuchKey"))
        else:
            self._send(file, is_cut=how.cut_from is not None and number >= how.cut_from)

    def _send(self, file: Path, *, is_cut: bool) -> None:
        whole, stat = file.read_bytes(), file.stat()
        body, status = whole, 200
        headers = {
            "ETag": f'"{stat.st_mtime_ns:x}-{len(whole):x}"',
            "Last-Modified": formatdate(stat.st_mtime, usegmt=True),
        }
        if self.how.ranges:
            headers["Accept-Ranges"] = "bytes"
            if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                first, last = int(found[1]), min(int(found[2] or len(whole) - 1), len(whole) - 1)
                if first > last:
                    self._say(416, b"")
                    return
                body, status = whole[first : last + 1], 206
                headers["Content-Range"] = f"bytes {first}-{last}/{len(whole)}"
        self._say(status, body, headers, is_cut=is_cut)

    def _say(self, status: int, body: bytes, headers: dict[str, str] | None = None, *, is_cut: bool = False) -> None:
        is_head = self.command == "HEAD"
        self._note(0 if is_head else len(body))
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if not is_head:
                self.wfile.write(body[: len(body) // 2] if is_cut else body)
            self.close_connection = self.close_connection or is_cut

    def _note(self, sent: int) -> None:
        self.asked.append(Asked(self.command, self.path, self.headers.get("Range", ""), sent))


def _fault(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()


def _listing(bucket: Path, prefix: str) -> bytes:
    names = sorted(str(each.relative_to(bucket)) for each in bucket.rglob("*") if each.is_file())
    found = [name for name in names if name.startswith(prefix) and "/" not in name.removeprefix(prefix)]
    keys = "".join(
        f"<Contents><Key>{name}</Key><Size>{(bucket / name).stat().st_size}</Size>"
        "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        for name in found
    )
    return (
        f"<?xml version='1.0'?><ListBucketResult><Name>{bucket.name}</Name><Prefix>{prefix}</Prefix>"
        f"<KeyCount>{len(found)}</KeyCount><IsTruncated>false</IsTruncated>{keys}</ListBucketResult>"
    ).encode()


def _serve(folder: Path, how: How) -> None:
    """Serve; the port first, then for each line of stdin a line of what was asked, until stdin ends."""
    asked: list[Asked] = []
    handler = type("Handler", (_Handler,), {"folder": folder, "how": how, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        sys.stdout.write(f"{json.dumps(asked)}\n")
        sys.stdout.flush()


@contextlib.contextmanager
def serving(folder: Path, **how: object) -> Iterator[Served]:
    """Serve a folder, as `How` says, on a port of the kernel's choosing until the way out."""
    command = [sys.executable, "-S", str(Path(__file__)), str(folder), json.dumps(how)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield Served(process, int(process.stdout.readline()))
        finally:
            process.stdin.close()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), How(**json.loads(sys.argv[2])))
