"""Whether figures can be drawn here, and whether a page has drawn its own."""

from importlib.util import find_spec

import pytest

needs_vega = pytest.mark.skipif(find_spec("vl_convert") is None, reason="vl-convert-python is not installed")

READY = (
    "document.querySelectorAll('.chart').length === document.querySelectorAll('.chart[data-answers]').length"
)
