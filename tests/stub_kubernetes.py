"""Stands in for the API of a Kubernetes cluster: takes Jobs, runs their commands as processes, says how they ended.

No cluster: nothing is scheduled, mounted, limited or validated. What is real is the executor's side of the talk.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml


class Cluster:
    """The cluster; `jobs` holds each Job as it was submitted, `url` and `kubeconfig()` say where it is."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.jobs: dict[str, dict[str, Any]] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.deleted: list[str] = []
        self.secrets: list[dict[str, Any]] = []
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.endswith("/status"):  # a right of its own, that the documented role does not have
                    self.answer(403, {"reason": "Forbidden"})
                else:
                    self.answer(*cluster.status(self.path.rpartition("/")[2]))

            def do_POST(self) -> None:
                self.answer(201, cluster.create(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

            def do_DELETE(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.answer(200, cluster.delete(self.path.partition("?")[0].rpartition("/")[2]))

            def answer(self, code: int, content: dict[str, Any]) -> None:
                body = json.dumps(content).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Take a Job and start its one container's command."""
        if body.get("kind") != "Job":
            self.secrets.append(body)
            return body
        (container,) = body["spec"]["template"]["spec"]["containers"]
        name = body["metadata"]["name"]
        self.jobs[name] = body
        with (Path(container["workingDir"]) / f"{name}.pod.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                container["command"],
                cwd=container["workingDir"],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return body

    def status(self, name: str) -> tuple[int, dict[str, Any]]:
        """Return what the API says of a Job."""
        if "?" in name or name not in self.processes:
            return (200, {"items": []}) if "?" in name else (404, {"kind": "Status", "code": 404})
        code = self.processes[name].poll()
        ended = {} if code is None else {"succeeded": 1} if code == 0 else {"failed": 1}
        return 200, {**self.jobs[name], "status": ended}

    def delete(self, name: str) -> dict[str, Any]:
        """End a Job's process and forgets it."""
        self.deleted.append(name)
        process = self.processes.pop(name, None)
        if process is not None and process.poll() is None:
            os.killpg(process.pid, 15)
            process.wait()
        return {"kind": "Status", "status": "Success"}

    def kubeconfig(self, path: Path) -> Path:
        """Write how to reach it as kubectl and its like read it."""
        user = {"name": "u", "user": {}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        clusters = [{"name": "c", "cluster": {"server": self.url}}]
        content = {"clusters": clusters, "users": [user], "contexts": [context], "current-context": "c"}
        path.write_text(yaml.safe_dump(content))
        return path

    def close(self) -> None:
        """End what still runs."""
        for name in list(self.processes):
            self.delete(name)
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
