"""Settings for all tests. They come before anything imports torch or transformers, which read them once."""

from __future__ import annotations

import os
import tempfile

from hypothesis import settings

# No test may reach for the network, and parallel workers may not fight for the cores.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Nobody's own progress may be touched: what a test records goes to a folder of this run.
os.environ["QLAB_HOME"] = tempfile.mkdtemp(prefix="qlab-tests-")

# The same examples on every run: a failure here is a failure everywhere. No deadline: machines differ in speed.
settings.register_profile("qlab", derandomize=True, deadline=None, database=None, print_blob=True)
settings.load_profile("qlab")
