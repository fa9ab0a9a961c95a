"""A page for a colleague: what was trained, the information plane to play with, and how far to believe it."""

from ibstore.analyze.report.contents import Contents, contents
from ibstore.analyze.report.page import page

__all__ = ["Contents", "contents", "page"]
