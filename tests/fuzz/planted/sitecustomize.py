"""Plants a bug in a process under test: this folder is on the path of those, and of no others."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.fuzz.plants import plant_for_good

plant_for_good(os.environ["VOICEBUS_FUZZ_PLANT"])
