"""As much of the Hugging Face Hub as reading datasets and uploading small files need, over real HTTP."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Files = dict[str, bytes]


class Hub:
    """What it holds, and what was asked of it."""

    def __init__(self) -> None:
        self.made: dict[str, dict[str, Any]] = {}
        """Repositories as they were asked for."""
        self.files: dict[str, Files] = {}
        """Of each repository's main branch."""
        self.commits: dict[str, Files] = {}
        """By commit, of any repository: what `revision` can name besides main."""
        self.tokens: set[str] = set()
        self.read: list[str] = []
        """Files that were downloaded, as commit/path."""
        self.refuse = False
        self.url = ""

    def at(self, repo: str, revision: str) -> tuple[str, Files] | None:
        """Commit and files of a revision."""
        if revision in self.commits:
            return revision, self.commits[revision]
        files = self.files.get(repo, {})
        head = sha1(repr(sorted(files.items())).encode()).hexdigest()
        return (head, files) if repo in self.files and revision in ("main", head) else None


@contextmanager
def standin_hub() -> Iterator[Hub]:
    """A Hub at `hub.url`, for HF_ENDPOINT."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None: ...

    def reply(self, content: Any, status: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def missing(self, code: str) -> None:
        self.reply({"error": code}, 404, X_Error_Code=code)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/\w+s/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            return self.repository(found[1], found[2] or "main")
        if found := re.fullmatch(r"/api/\w+s/([^/]+/[^/]+)/tree/([^/]+)/?(.*)", path):
            return self.tree(*found.groups())
        if found := re.fullmatch(r"/(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.file(*found.groups())
        self.missing("RepoNotFound")

    def repository(self, repo: str, revision: str) -> None:
        if (at := self.hub.at(repo, revision)) is None:
            return self.missing("RevisionNotFound" if repo in self.hub.files else "RepoNotFound")
        siblings = [{"rfilename": path} for path in at[1]]
        self.reply({"id": repo, "sha": at[0], "private": False, "tags": [], "siblings": siblings})

    def tree(self, repo: str, revision: str, folder: str) -> None:
        at = self.hub.at(repo, revision)
        if at is None:
            return self.reply([]) if repo not in self.hub.files else self.missing("RevisionNotFound")
        inside = [path for path in at[1] if path.startswith(f"{folder}/" if folder else "")]
        if folder and not inside:
            return self.missing("EntryNotFound")
        folders = {path.rsplit("/", 1)[0] for path in inside if "/" in path} - {folder}
        rows: list[dict[str, Any]] = [{"type": "directory", "path": path, "oid": "0"} for path in folders]
        self.reply(rows + [self.row(path, at[1]) for path in inside])

    def row(self, path: str, files: Files) -> dict[str, Any]:
        return {"type": "file", "path": path, "size": len(files[path]), "oid": sha1(files[path]).hexdigest()}

    def file(self, repo: str, revision: str, path: str) -> None:
        at = self.hub.at(repo, revision)
        if at is None or path not in at[1]:
            return self.missing("EntryNotFound" if at else "RevisionNotFound")
        if self.command == "GET":
            self.hub.read.append(f"{at[0]}/{path}")
        etag = f'"{sha1(at[1][path]).hexdigest()}"'
        self.reply(at[1][path], Content_Type="application/octet-stream", ETag=etag, X_Repo_Commit=at[0])

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        if self.hub.refuse:
            return self.reply({"error": "You do not have the rights"}, 403)
        if found := re.fullmatch(r"/api/\w+s/([^/]+/[^/]+)/paths-info/([^/]+)", unquote(self.path)):
            return self.paths_info(found[1], found[2], body)
        if self.path == "/api/validate-yaml":
            return self.reply({"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            return self.create(json.loads(body))
        found = re.fullmatch(r"/api/(\w+)s/([^/]+/[^/]+)/(preupload|commit)/main(?:\?.*)?", self.path)
        assert found is not None, self.path
        _, repo, what = found.groups()
        if what == "preupload":
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            return self.reply({"files": [modes | {"path": f["path"]} for f in json.loads(body)["files"]]})
        files = self.hub.files.setdefault(repo, {})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        self.reply({"commitUrl": f"{self.hub.url}/{repo}/commit/abc", "commitOid": "abc"})

    def create(self, asked: dict[str, Any]) -> None:
        repo = f"{asked['organization']}/{asked['name']}"
        self.hub.made[repo] = asked
        prefix = "datasets/" if asked["type"] == "dataset" else ""
        self.reply({"url": f"{self.hub.url}/{prefix}{repo}"})

    def paths_info(self, repo: str, revision: str, body: bytes) -> None:
        given = body.decode()
        paths = json.loads(given)["paths"] if given.startswith("{") else parse_qs(given)["paths"]
        _, files = self.hub.at(repo, revision) or ("", {})
        rows = [self.row(path, files) for path in paths if path in files]
        folders = [p for p in paths if p not in files and any(f.startswith(f"{p}/") for f in files)]
        self.reply(rows + [{"type": "directory", "path": path, "oid": "0"} for path in folders])
