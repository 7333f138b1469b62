"""One customer on seven channels, first nobody and then somebody, over HTTP and a real Redis: a private one, and a cluster."""

import httpx
import pytest

from features.redis_server import resolve_redis
from tests.acceptance.rows.story import Story, story_home
from training.demo.running import running_server


@pytest.mark.parametrize("kind", ["private", "cluster"])
def test_each_answer_fits_what_just_happened(tmp_path, request, kind):
    """No reminder after the purchase, no selling while a complaint is open, no repeat beyond the cap, by whichever id."""
    home = story_home(tmp_path / "home")
    given = request.getfixturevalue("cluster_url") if kind == "cluster" else None
    with (
        resolve_redis(given, home) as url,
        running_server(home, url) as server,
        httpx.Client(base_url=server.url, timeout=5.0) as web,
    ):
        story = Story(web, "e2e")
        story.tell()
    assert story.problems == []
    assert (story.steps, len(story.channels)) == (7, 7)
