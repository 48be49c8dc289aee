"""The planted defects still fit the code they are planted in."""

import ast

import pytest

from mutants import MUTANTS, ROOT, Edit, Mutant, planted


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_has_its_place_and_is_python(mutant: Mutant) -> None:
    changed = list(planted(mutant, ROOT))
    assert changed
    for file, text in changed:
        ast.parse(text)
        assert text != file.read_text()


def test_a_place_that_is_gone_is_told() -> None:
    with pytest.raises(ValueError, match="there is not one place for: 'not in there'"):
        list(planted(Mutant("gone", (Edit("Makefile", "not in there", ""),), ""), ROOT))
