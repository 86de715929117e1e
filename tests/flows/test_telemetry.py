"""Metrics and traces go to the collector that is named, and nowhere where none is."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL

from tests.fake_model import fake_model
from tests.flows.fakes import answer, recipe

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra otel")

ROOT = Path(__file__).parents[2]

RUN = """
import asyncio, sys
from pathlib import Path
from flows.preferences import build_preferences
from flows.recipe import Recipe
asyncio.run(build_preferences(Recipe.model_validate_json(sys.argv[1]), Path(sys.argv[2])))
"""


@pytest.fixture
def collector() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Its address, and all it was sent, by route."""
    got: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got[self.path] = got.get(self.path, b"") + self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()


def test_a_collector_that_is_named_has_models_stages_and_shards(
    collector: tuple[str, dict[str, bytes]], tmp_path: Path, prompt_file: Path
):
    address, got = collector
    environment = os.environ | {"PREFECT_API_URL": str(PREFECT_API_URL.value()), "PYTHONPATH": str(ROOT)}
    environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_EXPORTER_OTLP_COMPRESSION": "none"}
    with fake_model(answer) as fake:
        settings = recipe(fake.url, prompt_file).model_dump_json()
        done = subprocess.run(
            [sys.executable, "-c", RUN, settings, str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert b"zephyr.requests.running" in got["/v1/metrics"] and b"fake" in got["/v1/metrics"]
    assert b"generate cool" in got["/v1/metrics"]
    assert b"generate-cool-00000" in got["/v1/traces"] and b"preferences-flowtest" in got["/v1/traces"]
