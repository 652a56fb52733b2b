"""What holds for every test: no generated example fails for the time that it takes."""

from __future__ import annotations

from hypothesis import settings

# A deadline an example measures how busy the machine is; a hang ends by the timeout of the test.
settings.register_profile("lakehouse", deadline=None)
settings.load_profile("lakehouse")
