import pytest

from lowest import floors_of, tools_of


def test_a_requirement_is_pinned_to_its_floor() -> None:
    assert ["a==1.2", "b-c[aio]==12.15", "d==0.19;platform_system!='Windows'"] == floors_of(
        ["a>=1.2", "b-c[aio]>=12.15", "d>=0.19; platform_system != 'Windows'"]
    )


@pytest.mark.parametrize("requirement", ["a", "a<2", "a>=1,<2", "a==1"])
def test_a_requirement_without_a_plain_floor_is_refused(requirement: str) -> None:
    with pytest.raises(ValueError, match="has no floor"):
        floors_of([requirement])


def test_tools_are_those_of_the_constraints_but_for_the_old_ones() -> None:
    assert ["anyio==4.11", "pytest==9.2.0"] == tools_of(
        ["anyio>=4.11", "pytest>=8", "ruff>=0.1"], "pytest==9.2.0\nruff==1\n"
    )
