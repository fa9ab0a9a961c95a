"""Callbacks that record within other libraries' training loops: each library is imported by its own module alone."""
