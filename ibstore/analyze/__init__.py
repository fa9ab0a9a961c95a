"""Analysis: waists, keys, counts and information planes, all after the fact.

It imports neither `ibstore.capture` nor torch; DuckDB lives in `ibstore.analyze.sql`.
"""

from ibstore.analyze.discretize import Binning, Coding, register_discretizer
from ibstore.analyze.estimate.entropy import estimator as register_estimator
from ibstore.analyze.grammar import Recipe, parse_recipe
from ibstore.analyze.immediate import Informations, informations
from ibstore.analyze.reduce import register_reduction
from ibstore.analyze.study import Study, open_store
from ibstore.analyze.waist import Waist, load_waists, parse_waist, presets

__all__ = [
    "Binning",
    "Coding",
    "Informations",
    "Recipe",
    "Study",
    "Waist",
    "informations",
    "load_waists",
    "open_store",
    "parse_recipe",
    "parse_waist",
    "presets",
    "register_discretizer",
    "register_estimator",
    "register_reduction",
]
