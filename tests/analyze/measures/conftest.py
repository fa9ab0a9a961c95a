import pytest

from ibstore.analyze import Study

from . import stores


@pytest.fixture(scope="package")
def study(tmp_path_factory):
    return Study(stores.write(tmp_path_factory.mktemp("measures") / "lab.zarr"))


@pytest.fixture
def asked(study):
    return study.ask(stores.WAIST)
