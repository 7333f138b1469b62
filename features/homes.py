"""Which features a home works with: its own document, or the one that comes with the package; and its journey, if it has one."""

from pathlib import Path

from features.contract import Contract, Journey, contract_document, read_contract
from features.journey import journey_document, parse_journey
from features.request_time import check_request_time

PACKAGED = Path(__file__).parent / "features.yaml"


def features_folder(home: Path) -> Path:
    """Where a home keeps its feature document, Feast's registry and the offline tables."""
    return home / "features"


def contract_path(home: Path) -> Path:
    """The feature document of a home; absent until somebody writes one."""
    return features_folder(home) / "features.yaml"


def journey_path(home: Path) -> Path:
    """The journey of a home; absent where nobody declared one."""
    return features_folder(home) / "journey.yaml"


def home_journey(home: Path) -> Journey | None:
    """The journey of a home's customers. Raises ContractError where its document cannot be used."""
    path = journey_path(home)
    return parse_journey(path.read_text(), path.name) if path.exists() else None


def home_contract(home: Path) -> Contract:
    """The contract this home works with, its journey included. Raises ContractError where a document cannot be used."""
    path = contract_path(home)
    contract = read_contract(path if path.exists() else PACKAGED, home_journey(home))
    check_request_time(contract)
    return contract


def write_home_contract(home: Path, contract: Contract) -> Path:
    """Make this the contract of the home, its journey included; readers see an old document or a new one, never a part of it.

    Where the contract has no journey, that of the home stays.
    """
    check_request_time(contract)
    if contract.journey is not None:
        _replace(journey_path(home), journey_document(contract.journey))
    return _replace(contract_path(home), contract_document(contract))


def _replace(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(text)
    return unfinished.replace(path)
