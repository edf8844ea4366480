"""Servers and the model hub are asked before a run, and their answers become two lines."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rollout_bench.core.places import python_path

NOBODY = "http://127.0.0.1:9"


class Handler(BaseHTTPRequestHandler):
    """A server with the model m, and a hub that has no other model than some/model."""

    def answer(self, with_body: bool) -> None:
        body = json.dumps({"data": [{"id": "m"}]}).encode()
        known = self.path == "/v1/models" or self.path.startswith("/some/model/")
        self.send_response(200 if known else 404)
        if not known:
            self.send_header("X-Error-Code", "GatedRepo" if "gated" in self.path else "RepoNotFound")
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_address[1]}"
    served.shutdown()
    served.server_close()


def asked(folder: Path, hub_url: str, **places: object) -> list[str]:
    """Return the problems of `places`, asked in a process of its own, as a run does."""
    variables = {**os.environ, "PYTHONPATH": python_path(), "HF_ENDPOINT": hub_url, "HF_HOME": str(folder)}
    variables.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-m", "rollout_bench.measure.reachable"]
    done = subprocess.run(command, input=json.dumps(places), env=variables, capture_output=True, text=True, check=True)
    return [problem for problem, _ in json.loads(done.stdout)]


def test_what_answers_is_no_problem(tmp_path: Path, server: str):
    here = {"url": f"{server}/v1", "model": "m"}
    assert asked(tmp_path, server, endpoints=[here], hub=["some/model"]) == []


def test_each_place_without_what_is_wanted_is_a_problem(tmp_path: Path, server: str):
    endpoints = [{"url": f"{NOBODY}/v1", "model": "m"}, {"url": f"{server}/v1", "model": "other"}]
    dead, wrong, unknown, gated = asked(tmp_path, server, endpoints=endpoints, hub=["none/such", "gated/one"])
    assert dead == f"{NOBODY}/v1: connection refused: nothing listens there"
    assert wrong == "the server has no model 'other', but m"
    assert unknown == "hub:none/such: the hub has no such model, or it is private"
    assert gated == "hub:gated/one: the model is gated, and this machine may not read it"


def test_a_hub_out_of_reach_is_a_problem_unless_its_cache_has_the_model(tmp_path: Path):
    (problem,) = asked(tmp_path, NOBODY, hub=["some/model"])
    assert problem.startswith("hub:some/model: the hub cannot be reached: ")
    kept = tmp_path / "hub" / "models--some--model"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("c")
    (kept / "snapshots" / "c").mkdir(parents=True)
    (kept / "snapshots" / "c" / "config.json").write_text("{}")
    assert asked(tmp_path, NOBODY, hub=["some/model"]) == []
