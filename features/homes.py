"""Which features a home works with: its own document, or the one that comes with the package."""

from pathlib import Path

from features.contract import Contract, contract_document, read_contract
from features.request_time import check_request_time

PACKAGED = Path(__file__).parent / "features.yaml"


def features_folder(home: Path) -> Path:
    """Where a home keeps its feature document, Feast's registry and the offline tables."""
    return home / "features"


def contract_path(home: Path) -> Path:
    """The feature document of a home; absent until somebody writes one."""
    return features_folder(home) / "features.yaml"


def home_contract(home: Path) -> Contract:
    """The contract this home works with. Raises ContractError where its document cannot be used."""
    path = contract_path(home)
    contract = read_contract(path if path.exists() else PACKAGED)
    check_request_time(contract)
    return contract


def write_home_contract(home: Path, contract: Contract) -> Path:
    """Make this the contract of the home; readers see the old document or the new one, never a part of it."""
    check_request_time(contract)
    path = contract_path(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(contract_document(contract))
    return unfinished.replace(path)
