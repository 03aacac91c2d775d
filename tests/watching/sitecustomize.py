"""Run by Python at its start, in the commands that the tests start: see `raw_opens`, and `light` where
RLMEMO_TESTS_LIGHT is set."""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
import raw_opens

raw_opens.install_from_environment()
sys.path.pop()
if os.environ.get("RLMEMO_TESTS_LIGHT") and "rlmemo.train" in sys.orig_argv:
    from tests.light import lighten

    lighten()
