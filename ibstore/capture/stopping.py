"""Early stopping by information: when what a layer tells of the labels grows no more."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ibstore.capture.arguments import is_count
from ibstore.capture.forward import activations
from ibstore.errors import CaptureError, UsageError

Estimator = Callable[[NDArray[Any], NDArray[np.int64]], Sequence[float]]
"""From activations (sample, …) and labels (sample,) to I(X;T) and I(T;Y), such as `ibstore.informations` makes."""


class InformationStopping:
    """Says when to stop a training: a callable for any loop.

    At every look it takes m = I(T;Y) − β · I(X;T) of a layer; a look counts where m − m_last < tol · |m_last|, with
    m_last the m of the look before. It says stop when ``patience`` looks in a row count. (A report on the code of
    Shwartz-Ziv & Tishby 2017 has the rule with β = 1 and tol = 0.1; its printed code never updates m_last, and its text
    weighs the other information.)

    Parameters
    ----------
    estimator
        Gives I(X;T) and I(T;Y), in that order.
    layer
        Whose: as a `Recorder` names it.
    beta
        Weight of I(X;T).
    tol
        Growth, as a part of |m_last|, below which a look counts.
    every
        It looks at epochs that are multiples of this.
    patience
        How many looks in a row have to count.

    Raises
    ------
    UsageError
        When an argument cannot be meant.

    Attributes
    ----------
    history
        Of each look its epoch, m, I(X;T) and I(T;Y).

    Examples
    --------
    >>> stopping = InformationStopping(lambda t, y: (0.0, float(t.sum())), "0", every=1)
    >>> [stopping.update(m) for m in (1.0, 2.0, 2.1)]
    [False, False, True]
    """

    def __init__(
        self,
        estimator: Estimator,
        layer: str,
        beta: float = 1.0,
        tol: float = 0.1,
        every: int = 10,
        patience: int = 1,
    ) -> None:
        if not callable(estimator):
            raise UsageError(f"estimator is of type {type(estimator).__name__}; give a function of (t, y)")
        if not isinstance(layer, str):
            raise UsageError(f"layer is {layer!r}; give the name of one layer")
        numbers = all(isinstance(number, Real) for number in (tol, beta))
        if not (numbers and tol >= 0 and isfinite(beta)):
            raise UsageError(f"tol is {tol!r} and beta {beta!r}; give tol 0 or more, and beta a finite number")
        for name, number in (("every", every), ("patience", patience)):
            if not is_count(number) or number < 1:
                raise UsageError(f"{name} is {number!r}; give an integer from 1")
        self.every = every
        self.history: list[tuple[int, float, float, float]] = []
        self._estimator, self._layer = estimator, layer
        self._beta, self._tol, self._patience = beta, tol, patience
        self._last: float | None = None
        self._counted = 0

    @property
    def told(self) -> dict[str, str | float]:
        """The rule, by the names of the arguments, as a manifest can hold it."""
        return {
            "estimator": _named(self._estimator),
            "layer": self._layer,
            "beta": float(self._beta),
            "tol": float(self._tol),
            "every": int(self.every),
            "patience": int(self._patience),
        }

    def __str__(self) -> str:
        looks = f"{self._counted} looks in a row" if self._counted > 1 else "the last look"
        rule = f"I(T;Y) − {self._beta:g}·I(X;T) of layer {self._layer!r} grew by less than {self._tol:g} of itself"
        return f"{rule} at {looks}, every {self.every} epochs"

    def can_stop(self, epochs: int) -> bool:
        """Whether it looks often enough in a training of so many epochs, and not only at its end.

        Examples
        --------
        >>> stopping = InformationStopping(lambda t, y: (0.0, 0.0), "out", every=10, patience=2)
        >>> stopping.can_stop(20), stopping.can_stop(21)
        (False, True)
        """
        return self.every * self._patience < epochs

    def __call__(self, epoch: int, model: nn.Module, x: Any, y: Any) -> bool:
        """Whether to stop now.

        Parameters
        ----------
        epoch
            It looks where this is a multiple of ``every``, and says False elsewhere; ``history`` gets
            (epoch, m, I(X;T), I(T;Y)).
        model
            The network as it is now; it is run in eval mode and left as it was.
        x, y
            The probe set: what the network takes, and integer labels (sample,).

        Raises
        ------
        CaptureError
            When the network has no such layer, the layer has NaN, or the estimator gives no two finite numbers.
        UsageError
            When the epoch is no integer from 0.
        """
        if not is_count(epoch):
            raise UsageError(f"epoch is {epoch!r}; give an integer from 0")
        if epoch % self.every:
            return False
        t = activations(model, x, [self._layer])[self._layer]
        if t.dtype.kind == "f" and np.isnan(t).any():
            raise CaptureError(
                f"layer {self._layer!r} has NaN in epoch {epoch}, of which there is no information to look at: the "
                "training has diverged; take a smaller learning rate, or look at another layer"
            )
        labels = y.cpu().numpy() if isinstance(y, torch.Tensor) else np.asarray(y)
        found = self._estimator(t, labels)
        try:
            i_xt, i_ty = map(float, found)
        except (TypeError, ValueError):
            raise CaptureError(f"the estimator gave {found!r}; let it give two numbers, I(X;T) and I(T;Y)") from None
        m = i_ty - self._beta * i_xt
        stop = self.update(m)
        self.history.append((epoch, m, i_xt, i_ty))
        return stop

    def update(self, m: float) -> bool:
        """The rule alone: take m of a look, and say whether to stop.

        Raises
        ------
        CaptureError
            When m is not finite.
        UsageError
            When it is no number.
        """
        try:
            finite = isfinite(m)
        except TypeError:
            raise UsageError(f"m is {m!r}; give a number") from None
        if not finite:
            raise CaptureError(
                f"the information of layer {self._layer!r} makes {m}; look whether the training has diverged, or "
                "take another estimator"
            )
        grew = self._last is None or m - self._last >= self._tol * abs(self._last)
        self._last, self._counted = m, 0 if grew else self._counted + 1
        return self._counted >= self._patience

    def state_dict(self) -> dict[str, Any]:
        """Where it is, to go on from there."""
        return {"last": self._last, "counted": self._counted, "history": [list(look) for look in self.history]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; UsageError when it is no state of this."""
        try:
            last, counted = state["last"], state["counted"]
            history = [(epoch, m, i_xt, i_ty) for epoch, m, i_xt, i_ty in state["history"]]
        except (KeyError, TypeError) as error:
            raise UsageError(f"this is no state of an InformationStopping ({error}); give its state_dict()") from None
        self._last, self._counted, self.history = last, counted, history


def _named(estimator: Estimator) -> str:
    """What a reader knows it by, the same in every process."""
    text: str = getattr(estimator, "__qualname__", None) or str(estimator)
    return type(estimator).__name__ if " at 0x" in text else text
