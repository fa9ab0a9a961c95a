"""Mean and variance of numbers that come one after another, without the difference of large squares.

Welford's recurrence: with d = g − mean before, the mean grows by d / n and the sum of squared deviations by
d² · (n − 1) / n. E[g²] − E[g]² would lose all digits of the variance where the mean is 10³ times the deviation, as
gradients' early in a training.
"""

import torch


class Moments:
    """Elementwise mean and population variance of arrays of one shape.

    Parameters
    ----------
    zeros
        An array of zeros of that shape, in the type in which sums are taken; it becomes the mean.

    Examples
    --------
    >>> moments = Moments(torch.zeros(2, dtype=torch.float64))
    >>> for gradient in torch.tensor([[1.0, 10000.0], [3.0, 10001.0]]):
    ...     moments.add(gradient)
    >>> moments.mean.tolist(), moments.variance.tolist()
    ([2.0, 10000.5], [1.0, 0.25])
    """

    def __init__(self, zeros: torch.Tensor) -> None:
        self.count = 0
        self.mean = zeros
        self._squares = torch.zeros_like(zeros)

    def add(self, values: torch.Tensor) -> None:
        """Take the next array."""
        self.count += 1
        deviation = values - self.mean
        self.mean.add_(deviation, alpha=1 / self.count)
        self._squares.addcmul_(deviation, deviation, value=(self.count - 1) / self.count)

    @property
    def variance(self) -> torch.Tensor:
        """Mean squared deviation from the mean; of no array NaN."""
        return self._squares / self.count

    def restart(self) -> None:
        """Forget all arrays."""
        self.count = 0
        self.mean.zero_()
        self._squares.zero_()
