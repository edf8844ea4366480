"""Servers and the model hub are asked before a run, and their answers become two lines."""

import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

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


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of the same server behind TLS, whose certificate nobody has signed."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    no_password = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password)
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.socket = context.wrap_socket(served.socket, server_side=True, do_handshake_on_connect=False)
    served.handle_error = lambda *_: None
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{served.server_address[1]}"
    served.shutdown()
    served.server_close()


def asked(folder: Path, hub_url: str, **places: object) -> list[str]:
    """Return the problems of `places`, asked in a process of its own, as a run does."""
    return [problem for problem, _ in answers(folder, hub_url, **places)]


def answers(folder: Path, hub_url: str, **places: object) -> list[list[str]]:
    """Return the problems of `places` and their remedies."""
    variables = {**os.environ, "PYTHONPATH": python_path(), "HF_ENDPOINT": hub_url, "HF_HOME": str(folder)}
    variables.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-m", "rollout_bench.measure.reachable"]
    done = subprocess.run(command, input=json.dumps(places), env=variables, capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


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


def test_a_scheme_that_the_server_does_not_speak_is_named_with_the_other(tmp_path: Path, server: str, secure: str):
    urls = [url.replace(one, other) for url, one, other in ((server, "http", "https"), (secure, "https", "http"))]
    endpoints = [{"url": f"{url}/v1", "model": "m"} for url in urls]
    plain, tls = answers(tmp_path, server, endpoints=endpoints)
    assert plain == [f"{urls[0]}/v1: the server speaks plain http there, not https", f"write {server}/v1"]
    assert tls == [f"{urls[1]}/v1: the server speaks https there, not http", f"write {secure}/v1"]


def test_a_certificate_of_nobody_is_refused_unless_the_config_takes_it(tmp_path: Path, server: str, secure: str):
    here = {"url": f"{secure}/v1", "model": "m"}
    assert asked(tmp_path, server, endpoints=[here | {"verify_tls": False}]) == []
    (problem,) = asked(tmp_path, server, endpoints=[here])
    assert problem == f"{secure}/v1: its certificate is not accepted: self-signed certificate"


def test_a_hub_out_of_reach_is_a_problem_unless_its_cache_has_the_model(tmp_path: Path):
    (problem,) = asked(tmp_path, NOBODY, hub=["some/model"])
    assert problem.startswith("hub:some/model: the hub cannot be reached: ")
    kept = tmp_path / "hub" / "models--some--model"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("c")
    (kept / "snapshots" / "c").mkdir(parents=True)
    (kept / "snapshots" / "c" / "config.json").write_text("{}")
    assert asked(tmp_path, NOBODY, hub=["some/model"]) == []
