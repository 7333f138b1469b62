"""Settings: command line before environment before default."""

import pytest

from service.errors import BadRequest
from service.settings import Settings, settings_from


def test_nothing_given_means_the_defaults():
    """An empty environment serves on loopback."""
    assert settings_from({}) == Settings()
    assert Settings().host == "127.0.0.1"


def test_the_command_line_comes_before_the_environment():
    """And what the command line leaves out does not hide the environment."""
    settings = settings_from({"NEXTBEST_PORT": "9000", "NEXTBEST_WORKERS": "2", "PATH": "/bin"}, {"port": 9001, "workers": None})
    assert (settings.port, settings.workers) == (9001, 2)


def test_a_value_of_the_wrong_type_names_the_setting():
    """Expected, found, where."""
    with pytest.raises(BadRequest, match=r"Expected `int`.* - at `\$.port`"):
        settings_from({"NEXTBEST_PORT": "many"})
