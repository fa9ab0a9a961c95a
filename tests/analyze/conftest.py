"""Hypothesis without a stopwatch, for the whole session: how long a machine takes is no property of ibstore."""

from hypothesis import settings

settings.register_profile("unhurried", settings(), deadline=None)
settings.load_profile("unhurried")
