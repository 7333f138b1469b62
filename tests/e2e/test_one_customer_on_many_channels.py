"""One customer on seven channels, first nobody and then somebody, over HTTP and a real Redis."""

import httpx

from features.redis_server import resolve_redis
from tests.acceptance.rows.story import Story, story_home
from training.demo.running import running_server


def test_each_answer_fits_what_just_happened(tmp_path):
    """No reminder after the purchase, no selling while a complaint is open, no repeat beyond the cap, by whichever id."""
    home = story_home(tmp_path / "home")
    with (
        resolve_redis(None, home) as url,
        running_server(home, url) as server,
        httpx.Client(base_url=server.url, timeout=5.0) as web,
    ):
        story = Story(web, "e2e")
        story.tell()
    assert story.problems == []
    assert (story.steps, len(story.channels)) == (7, 7)
