"""Which features a home works with."""

from pathlib import Path

import pytest

from features.contract import Contract, ContractError, Feature
from features.homes import contract_path, home_contract, write_home_contract

ONE = Contract((Feature(name="recency", type="number", origin="activity", max_age=86_400.0),))


def test_a_new_home_works_with_the_features_of_the_package(tmp_path: Path):
    """The default contract covers the four kinds of customer data, the request's context and its moment."""
    contract = home_contract(tmp_path)
    assert {f.origin for f in contract.features} == {"profile", "activity", "value", "attitude", "context", "request_time"}
    assert list(tmp_path.iterdir()) == []


def test_a_home_with_its_own_document_works_with_that(tmp_path: Path):
    """What was written is what is read, without a trace of the writing."""
    write_home_contract(tmp_path, ONE)
    assert home_contract(tmp_path) == ONE
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["features.yaml"]


def test_a_home_refuses_a_moment_that_nothing_produces(tmp_path: Path):
    """Neither writing nor reading lets such a contract in."""
    impossible = Contract((Feature(name="moon_phase", type="number", origin="request_time"),))
    with pytest.raises(ContractError, match="moon_phase"):
        write_home_contract(tmp_path, impossible)
    path = contract_path(tmp_path)
    path.parent.mkdir()
    path.write_text("features: [{name: moon_phase, type: number, origin: request_time}]")
    with pytest.raises(ContractError, match="moon_phase"):
        home_contract(tmp_path)
