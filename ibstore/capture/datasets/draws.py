"""Random numbers for data: one seed, and for each purpose numbers of its own."""

import numpy as np

from ibstore.errors import UsageError


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Generator of a seed for one purpose, independent of those for others.

    Were it the same for all, labels, the part that is trained on and the samples that are recorded would hang on one
    another: a probe of all samples would be drawn as the training samples were.

    Raises
    ------
    UsageError
        When the seed is no integer from 0.

    Examples
    --------
    >>> [int(generator(0, purpose).integers(100)) for purpose in ("labels", "labels", "part")]
    [60, 60, 48]
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise UsageError(f"the seed of the data is {seed!r}; give an integer from 0")
    return np.random.default_rng(np.random.SeedSequence(int(seed), spawn_key=tuple(purpose.encode())))
