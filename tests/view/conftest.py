"""One run for all that only look at it."""

import pytest

from flows.run import Run
from tests.view.stored_run import stored_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return stored_run(tmp_path_factory.mktemp("view"), 60, shard_size=25)
