"""`ibstore capture`: train a bundled recipe and record it."""

NAME = "capture"


def command() -> None:
    """Stub until the capture part lands."""
