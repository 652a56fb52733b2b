"""What holds for every test: no generated example fails for the time that it takes."""

from __future__ import annotations

import os

from hypothesis import settings

# A deadline an example measures how busy the machine is; a hang ends by the timeout of the test.
# CI judges a change by the same examples each time; new ones are looked for everywhere else.
settings.register_profile("lakehouse", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("lakehouse")
