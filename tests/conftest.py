"""What every test shares: how hypothesis runs."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline: a slow moment of the machine is not a failure. CI tries the same examples every time.
settings.register_profile("triolet", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "triolet")
