import pytest
from watched import Told


@pytest.fixture
def told():
    told = Told()
    yield told
    told.tracer_provider.shutdown()
    told.meter_provider.shutdown()
