"""What users ask of a selection: the plane and its entropies, measures beyond it, and whether to believe them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ibstore.analyze.measures import Asked, find_measure
from ibstore.analyze.selection import Names, Selection, check_unit, named_estimators

if TYPE_CHECKING:
    import polars as pl


class Question(Selection):
    """Waists on runs, layers and epochs of a store, as `Study.ask` makes it: its methods are the questions."""

    def measure(self, what: str, estimators: Names = "plugin", *, unit: str = "bits") -> "pl.DataFrame":
        """A question beyond the plane, such as "diagram" or "intervals(level=0.9)"; `docs/measures.md` has them all.

        Parameters
        ----------
        what
            Name of the measure, with its numbers where they are not the defaults.
        estimators
            One or more by name.
        unit
            "bits" or "nats".

        Raises
        ------
        UsageError
            When there is no such measure or estimator, or it cannot be asked of these samples.
        """
        check_unit(unit)
        return find_measure(what)(Asked(self, named_estimators(estimators), unit))

    def doctor(self, estimators: Names = ()) -> "pl.DataFrame":
        """What can be said against each row, as `ibstore.analyze.measures.doctor` describes it."""
        from ibstore.analyze.measures.doctor import doctor

        return doctor(self, named_estimators(estimators) if estimators else ())

    def report(
        self,
        title: str = "Information planes",
        estimators: Names = "plugin",
        *,
        beta: float = 1.0,
        unit: str = "bits",
        diagnosed: str = "last",
        commands: Sequence[str] = (),
    ) -> str:
        """A page of it all: one HTML file, as text, that shows the plane, the training, and how far to believe it.

        Parameters
        ----------
        title
            Of the page.
        estimators, beta, unit
            As of `Study.analyze`.
        diagnosed
            Which epochs the doctor looks at: the "last" of each run, "all", or "none".
        commands
            Lines that the page tells to do it again with.

        Raises
        ------
        UsageError
            When one of these cannot be meant, or a single run has more rows than a page holds.
        """
        from ibstore.analyze.report import contents, page

        named = named_estimators(estimators)
        return page(contents(self, title, named, beta=beta, unit=unit, diagnosed=diagnosed), commands)

    def probe(self, target: str = "y", *, hidden: int = 128, seed: int = 0, unit: str = "bits") -> "pl.DataFrame":
        """How much of a target layers still hold, as `ibstore.analyze.measures.probe` describes it.

        Parameters
        ----------
        target
            ``y``, the labels, or the name of a target that the samples were recorded with, such as ``nuisance``.
        hidden
            Units of the classifier's hidden layer; 0: it is linear.
        seed
            Of its weights, and of the samples that are held back.
        unit
            "bits" or "nats".

        Raises
        ------
        UsageError
            When there is no such target, or it is no class.
        """
        from ibstore.analyze.measures.probe import probe

        check_unit(unit)
        return probe(self, target, hidden, seed, unit)
