"""A log line is one JSON object."""

import json
import logging
import sys

from service.logs import JsonFormatter


def record(**extra) -> logging.LogRecord:
    made = logging.LogRecord("nextbest", logging.INFO, __file__, 1, "took %s", ("over",), extra.pop("exc_info", None))
    vars(made).update(extra)
    return made


def test_fields_of_the_call_become_fields_of_the_line():
    """Also those that JSON does not know by itself."""
    line = json.loads(JsonFormatter().format(record(fields={"catalog": 7, "where": object})))
    assert (line["message"], line["level"], line["catalog"]) == ("took over", "info", 7)
    assert "object" in line["where"]


def test_an_exception_is_in_the_line_whole():
    """The traceback stays on one line of the log."""
    try:
        raise ValueError("broken\nin two")  # noqa: TRY301  # the traceback is what the test is about
    except ValueError:
        text = JsonFormatter().format(record(exc_info=sys.exc_info()))
    assert "\n" not in text
    assert "ValueError: broken" in json.loads(text)["error"]
