"""What every test may ask for."""

import pytest

pytest_plugins = ["azurite_server", "stage"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests that need Azurite together in one of several test processes: one Azurite is enough."""
    for item in items:
        parameters = getattr(item, "callspec", None)
        on_azure = parameters is not None and parameters.params.get("stage") == "azure"
        if on_azure or "azurite" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("azurite"))
