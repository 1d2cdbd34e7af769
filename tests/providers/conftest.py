"""One double per module, emptied before each test."""

from collections.abc import Iterator

import pytest

from providers.aws.double.server import Ec2Double
from tests.providers.harness import AwsHarness, Harness


@pytest.fixture(scope="module")
def running_double() -> Iterator[Ec2Double]:
    with Ec2Double() as double:
        yield double


@pytest.fixture
def double(running_double: Ec2Double) -> Ec2Double:
    running_double.reset()
    return running_double


@pytest.fixture
def aws(double: Ec2Double) -> AwsHarness:
    return AwsHarness(double)


@pytest.fixture(params=["aws"])
def cloud(request: pytest.FixtureRequest) -> Harness:
    """Each cloud in turn; those that are added come under the same tests."""
    return request.getfixturevalue(request.param)
