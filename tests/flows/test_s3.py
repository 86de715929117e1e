"""A store behind the S3 protocol, on a real server of it: the same dataset, nothing twice, seen by all machines."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec.config
import pytest

import flows.ranges
from flows.preferences import build_preferences
from flows.ranges import Elsewhere, answer_shards
from tests.fake_model import fake_model
from tests.flows.fakes import answer, recipe

pytest.importorskip("s3fs", reason="S3 needs s3fs")
moto = pytest.importorskip("moto.server", reason="needs a server of the S3 protocol: moto")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A bucket's address."""
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    options = {"endpoint_url": f"http://{host}:{port}", "key": "none", "secret": "none"}
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("ZEPHYR_CACHE", str(tmp_path / "cache"))
    bucket = f"bucket-{uuid4().hex}"  # the server's buckets outlive it
    fsspec.filesystem("s3").mkdir(bucket)
    yield f"s3://{bucket}/zephyr"
    server.stop()
    fsspec.filesystem("s3").clear_instance_cache()


async def test_a_run_keeps_its_shards_in_a_bucket_and_goes_on_from_there(
    store: str, tmp_path: Path, prompt_file: Path
):
    with fake_model(answer) as fake:
        settings = recipe(fake.url, prompt_file)
        here = await build_preferences(settings, tmp_path / "disk")
        asked = len(fake.asked)
        there = await build_preferences(settings, tmp_path / "one", store)
        assert there["dataset"]["digest"] == here["dataset"]["digest"]
        assert len(fake.asked) == 2 * asked
        again = await build_preferences(settings, tmp_path / "another machine", store)
        assert again["dataset"]["digest"] == here["dataset"]["digest"]
        assert len(fake.asked) == 2 * asked, "another machine finds all of it"
    assert not list((tmp_path / "one").rglob("completions"))


async def test_machines_that_share_nothing_but_a_bucket_make_one_dataset(
    store: str, tmp_path: Path, prompt_file: Path, monkeypatch: pytest.MonkeyPatch
):
    async def run_child(deployment: str, parameters: dict[str, Any], name: str, *_: Any) -> None:
        own = parameters | {"out": str(tmp_path / name)}
        await answer_shards(**answer_shards.validate_parameters(own))

    monkeypatch.setattr(flows.ranges, "run_child", run_child)
    with fake_model(answer) as fake:
        settings = recipe(fake.url, prompt_file, shard_size=2)
        alone = await build_preferences(settings, tmp_path / "alone")
        asked = len(fake.asked)
        spread = Elsewhere(shards=2, at_once=3)
        there = await build_preferences(settings, tmp_path / "parent", store, spread)
        assert there["dataset"]["digest"] == alone["dataset"]["digest"]
        assert len(fake.asked) == 2 * asked
