"""Run by Python at its start, in the commands that the tests start: see `raw_opens`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
import raw_opens

raw_opens.install_from_environment()
sys.path.pop()
