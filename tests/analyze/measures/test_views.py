"""What layers look like: their stored values, whatever waist the question has."""

from pathlib import Path

import pytest

from ibstore.analyze import Study

WAISTS = ["thesis-6.2", "thesis-6.3-ex4"]


@pytest.mark.parametrize("measure", ["units", "samples", "histogram"])
def test_values_are_those_of_the_layer_under_any_waist(captured: Path, tmp_path: Path, measure: str) -> None:
    study, about = Study(captured, tmp_path), {"layers": ["conv2", "out"], "epochs": [1]}
    stored = study.ask("values: *=identity | exact", **about).measure(measure)
    assert study.ask(WAISTS, **about).measure(measure).equals(stored)
    numbers = stored.filter(layer="conv2")
    assert len(numbers) >= 32 * 7 * 7 if measure == "units" else not numbers.is_empty()
