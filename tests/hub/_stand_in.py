"""A server that answers as the Hugging Face hub does, as far as models are pushed and downloaded."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_right"
LFS = (".safetensors", ".pt", ".bin")


class StandIn:
    """Repositories in memory, and all that was asked for."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.refs: dict[str, dict[str, str]] = {}
        self.objects: dict[str, bytes] = {}
        self.hidden: set[str] = set()
        """Private repositories."""
        self.asked: list[tuple[str, str]] = []
        """Methods and paths."""
        self.fails: dict[str, tuple[int, dict[str, str]]] = {}
        """Status and headers to answer with instead, by the beginning of the path."""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def commit(self, repository: str, files: dict[str, bytes], *, keep: bool = True) -> str:
        """Add files to a repository, or put them in place of its own, and return the commit."""
        old = self.files(repository) if keep and repository in self.refs else {}
        there = old | files
        seed = json.dumps([len(self.commits.get(repository, {})), sorted(map(str, there.items()))])
        oid = hashlib.sha1(seed.encode()).hexdigest()
        self.commits.setdefault(repository, {})[oid] = there
        self.refs.setdefault(repository, {})["main"] = oid
        return oid

    def files(self, repository: str, revision: str = "main") -> dict[str, bytes]:
        """Return the files of a revision."""
        return self.commits[repository][self.refs[repository].get(revision, revision)]

    def downloaded(self) -> set[str]:
        """Return the names of files that were fetched."""
        return {path.split("/")[-1] for method, path in self.asked if method == "GET" and "/resolve/" in path}

    def close(self) -> None:
        """Answer no more."""
        self.server.shutdown()
        self.server.server_close()


def _handler_of(hub: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do(self) -> None:
            path = unquote(urlsplit(self.path).path)
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else self._chunks()
            hub.asked.append((self.command, path))
            for beginning, (status, headers) in hub.fails.items():
                if path.startswith(beginning):
                    return self.say(status, {"error": headers.get("X-Error-Message", "no")}, headers)
            if self.command in ("GET", "HEAD") and "/resolve/" in path:
                return self.resolve(path)
            if path.startswith("/api/models/"):
                return self.model(path.removeprefix("/api/models/"), body)
            if self.command == "PUT":
                hub.objects[path.rpartition("/")[2]] = body
                return self.say(200, {})
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.say(401, {"error": "Invalid username or password."})
            if path == "/api/validate-yaml":
                return self.say(200, {"errors": [], "warnings": []})
            if path == "/api/repos/create":
                asked = json.loads(body)
                name = "/".join(filter(None, [asked.get("organization"), asked["name"]]))
                if asked.get("visibility") == "private" or asked.get("private"):
                    hub.hidden.add(name)
                status = 409 if name in hub.refs else 200
                if status == 200:
                    hub.commit(name, {".gitattributes": b""})
                return self.say(status, {"url": f"{hub.url}/{name}", "name": name, "id": name})
            if path.endswith("/info/lfs/objects/batch"):
                objects = [
                    {k: o[k] for k in ("oid", "size")}
                    | {"actions": {"upload": {"href": f"{hub.url}/store/{o['oid']}"}}}
                    for o in json.loads(body)["objects"]
                ]
                return self.say(200, {"transfer": "basic", "objects": objects})
            return self.say(404, {})

        do_GET = do_HEAD = do_POST = do_PUT = do

        def model(self, path: str, body: bytes) -> None:
            user, name, what, *rest = [*path.split("/"), ""] if path.count("/") == 1 else path.split("/")
            repository, revision = f"{user}/{name}", "/".join(rest) or "main"
            private = repository in hub.hidden and self.headers.get("Authorization") != f"Bearer {TOKEN}"
            if repository not in hub.refs or private:
                return self.say(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            oid = hub.refs[repository].get(revision, revision)
            if oid not in hub.commits[repository]:
                return self.say(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
            files = hub.commits[repository][oid]
            if what in ("", "revision"):
                siblings = [{"rfilename": file} for file in files]
                return self.say(
                    200, {"id": repository, "modelId": repository, "sha": oid, "siblings": siblings, "tags": []}
                )
            if what == "tree":
                return self.say(200, [self.entry(file, content) for file, content in files.items()])
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.say(401, {"error": "Invalid username or password."})
            if what == "preupload":
                return self.say(
                    200,
                    {
                        "files": [
                            {
                                "path": file["path"],
                                "uploadMode": "lfs" if file["path"].endswith(LFS) else "regular",
                                "shouldIgnore": False,
                            }
                            for file in json.loads(body)["files"]
                        ]
                    },
                )
            new = {}
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    new[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    new[value["path"]] = hub.objects[value["oid"]]
            oid = hub.commit(repository, new)
            self.say(200, {"commitUrl": f"{hub.url}/{repository}/commit/{oid}", "commitOid": oid, "success": True})

        def entry(self, file: str, content: bytes) -> dict[str, Any]:
            oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry: dict[str, Any] = {"type": "file", "path": file, "size": len(content), "oid": oid}
            if file.endswith(LFS):
                sha = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 134}
            return entry

        def resolve(self, path: str) -> None:
            repository, _, rest = path[1:].partition("/resolve/")
            revision, _, file = rest.partition("/")
            files = hub.files(repository, revision)
            if file not in files:
                return self.say(404, {}, {"X-Error-Code": "EntryNotFound"})
            entry = self.entry(file, files[file])
            etag = entry.get("lfs", entry)["oid"]
            oid = hub.refs[repository].get(revision, revision)
            self.say(200, files[file], {"ETag": f'"{etag}"', "X-Repo-Commit": oid, "Accept-Ranges": "bytes"})

        def say(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")  # or one that is kept would be answered after the end
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _chunks(self) -> bytes:
            """Return a body that came in pieces, as that of a commit does."""
            body = b""
            while self.headers.get("Transfer-Encoding") == "chunked":
                size = int(self.rfile.readline(), 16)
                body += self.rfile.read(size)
                self.rfile.readline()
                if not size:
                    break
            return body

    return Handler
