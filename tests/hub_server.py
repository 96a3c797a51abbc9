"""A server on this machine that plays the hub: what is downloaded from it, and uploaded to it."""

import base64
import contextlib
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_these_tests"


class Hub:
    """Answers the routes by which huggingface_hub moves files, and keeps a list of them."""

    def __init__(self):
        self.files = {}
        """(repository, revision) -> name -> content."""
        self.private = {}
        """Of the repositories that were created: whether nobody else may see them."""
        self.requests = []
        """Of files that are downloaded."""
        self.calls = []
        """The routes by which files are uploaded."""
        self.messages = []
        """Of the commits."""
        self.objects = {}
        """Large files by their fingerprint; a commit names them by it."""
        self.fault = None
        """Takes the handler and the method; true if it has answered, or broken off, itself."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                fake.answer(self, "HEAD")

            def do_GET(self):
                fake.answer(self, "GET")

            def do_POST(self):
                fake.take(self, "POST")

            def do_PUT(self):
                fake.take(self, "PUT")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        from huggingface_hub.utils import close_session

        # A connection that is open would go on being answered.
        close_session()
        self.server.shutdown()
        self.server.server_close()

    # --- downloads -----------------------------------------------------------------------------

    def commit(self, repo, revision):
        """Returns the name of a state of the files: it changes with them."""
        digest = hashlib.sha1(f"{repo}@{revision}".encode())
        for name, content in sorted(self.files.get((repo, revision), {}).items()):
            digest.update(name.encode() + hashlib.sha1(content).digest())
        return digest.hexdigest()

    def answer(self, request, method):
        parts = urlsplit(request.path).path.split("/")
        if parts[:3] == ["", "api", "models"]:
            return self.tell(request, "/".join(parts[3:5]))
        if len(parts) != 6 or parts[3] != "resolve":
            return self.send(request, 404, b"", {})
        repo, revision, name = f"{parts[1]}/{parts[2]}", unquote(parts[4]), unquote(parts[5])
        self.requests.append((method, repo, revision, name))
        if self.fault and self.fault(request, method):
            return None
        if not any(known == repo for known, _ in self.files):
            return self.send(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
        files = self.files.get((repo, revision))
        if files is None:
            return self.send(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        commit = self.commit(repo, revision)
        if name not in files:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
            return self.send(request, 404, b"", headers)
        etag = hashlib.sha1(files[name]).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        return self.send(request, 200, files[name], headers)

    @staticmethod
    def send(request, status, body, headers):
        request.send_response(status)
        for key, value in headers.items():
            request.send_header(key, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            with contextlib.suppress(OSError):
                request.wfile.write(body)

    def downloads(self):
        """Returns the files that were sent, in order."""
        return [tuple(rest) for method, *rest in self.requests if method == "GET"]

    # --- uploads -------------------------------------------------------------------------------

    def take(self, request, method):
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        path = urlsplit(request.path).path
        self.calls.append((method, path))
        if self.fault and self.fault(request, method):
            return None
        if method == "PUT":
            oid = path.rsplit("/", 1)[1]
            if hashlib.sha256(body).hexdigest() != oid:
                return self.send(request, 400, b"", {})
            self.objects[oid] = body
            return self.send(request, 200, b"", {})
        if path == "/api/validate-yaml":
            return self.reply(request, {"errors": [], "warnings": []})
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.send(request, 401, b"", {})
        if path == "/api/repos/create":
            return self.create(request, json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.reply(request, self.batch(json.loads(body)))
        _, _, _, owner, name, route, revision = path.split("/")
        repo = f"{owner}/{name}", unquote(revision)
        if route == "branch":
            self.files.setdefault(repo, dict(self.files[repo[0], "main"]))
            return self.reply(request, {})
        files = self.files.get(repo)
        if files is None:
            return self.send(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        if route == "preupload":
            result = [self.upload_mode(file["path"]) for file in json.loads(body)["files"]]
            return self.reply(request, {"files": result})
        for line in body.splitlines():
            self.put(files, json.loads(line))
        url = f"{self.address}/{owner}/{name}/commit/{self.commit(f'{owner}/{name}', revision)}"
        return self.reply(request, {"commitUrl": url, "commitOid": url.rsplit("/", 1)[1]})

    def tell(self, request, repo):
        if (repo, "main") not in self.files:
            return self.send(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
        return self.reply(request, {"id": repo, "private": self.private[repo], "siblings": []})

    def create(self, request, asked):
        repo = f"{asked['organization']}/{asked['name']}"
        url = {"url": f"{self.address}/{repo}", "name": repo}
        if (repo, "main") in self.files:
            return self.reply(request, url, 409)
        self.files[repo, "main"] = {}
        self.private[repo] = asked.get("visibility") == "private" or bool(asked.get("private"))
        return self.reply(request, url)

    def upload_mode(self, path):
        mode = "lfs" if path.endswith(".safetensors") else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False}

    def batch(self, asked):
        def reported(one):
            upload = {"href": f"{self.address}/store/{one['oid']}"}
            return {**one, "actions": {"upload": upload}}

        return {"transfer": "basic", "objects": [reported(one) for one in asked["objects"]]}

    def put(self, files, line):
        key, value = line["key"], line["value"]
        if key == "header":
            self.messages.append(value["summary"])
        elif key == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        else:
            assert key == "lfsFile", key
            files[value["path"]] = self.objects[value["oid"]]

    def reply(self, request, content, status=200):
        headers = {"Content-Type": "application/json"}
        return self.send(request, status, json.dumps(content).encode(), headers)


@contextmanager
def serving(tmp_path, monkeypatch):
    """Yields the hub that huggingface_hub asks meanwhile."""
    from huggingface_hub import constants, hf_api
    from huggingface_hub.utils import close_session

    fake = Hub()
    template = fake.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", fake.address)
    monkeypatch.setattr(hf_api.api, "endpoint", fake.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "downloads"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # Files go by the protocol that is public (git's LFS).
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(tmp_path / "harnesses.json"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    for module in ("huggingface_hub.utils._http", "huggingface_hub.file_download"):
        # It waits between its attempts.
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    close_session()
    yield fake
    fake.close()
