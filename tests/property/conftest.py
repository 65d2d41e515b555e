from collections.abc import Iterator

import pytest

from tests.property.freeze_world import Bed


@pytest.fixture
def bed(database_url: str) -> Iterator[Bed]:
    made = Bed(database_url)
    yield made
    made.close()
