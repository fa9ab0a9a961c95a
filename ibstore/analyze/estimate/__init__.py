"""Estimators of entropy and information: pure functions from counts, or from arrays, to numbers."""
