"""Whether figures can be drawn here."""

from importlib.util import find_spec

import pytest

needs_vega = pytest.mark.skipif(find_spec("vl_convert") is None, reason="vl-convert-python is not installed")
