"""What operators ask."""

from service.api.admission import BEGIN, TARGET_S
from service.api.status import page


async def test_the_status_says_what_the_log_promises(client):
    """A section for each part; this one is the log in memory, of which a power loss takes everything."""
    response = await client.get("/status")
    assert response.status_code == 200
    assert response.json()["log"] == {
        "mode": "memory", "loss_window_ms": None, "waiting_bytes": 0, "failures": 0, "segments": {},
    }  # fmt: skip


async def test_the_status_says_what_decides_and_what_answers_had_to_do_without(client):
    """Versions, shares of decisions that were degraded, and how many requests may be under way."""
    for number in range(4):
        await client.post("/recommend", json={"customer_id": f"nobody-{number}", "placement": "sidebar"})
    told = (await client.get("/status")).json()
    assert set(told) == {"process", "versions", "degraded", "stages", "store", "admission", "log"}
    assert (told["versions"]["catalog"], told["versions"]["trained_at"], told["versions"]["problem"]) == (1, None, None)
    assert told["versions"]["serving_for_s"] >= 0
    assert told["store"] == {"answers": True, "problem": None}
    assert 0 < told["stages"]["decide"]["p50_ms"] <= told["stages"]["decide"]["p99_ms"]
    assert told["degraded"] == {"no_model": 1.0}
    assert told["admission"] == {"limit": BEGIN, "under_way": 0, "in_time_ms": TARGET_S * 1000}


async def test_a_browser_gets_the_status_as_a_page_that_loads_nothing(client):
    """What it says is text, whatever it contains."""
    answer = await client.get("/status", headers={"Accept": "text/html,*/*"})
    assert answer.headers["content-type"].startswith("text/html")
    assert "<td>versions</td>" not in answer.text
    assert "<h2>versions</h2>" in answer.text
    assert "src=" not in answer.text
    assert page({"a": {"b": "<i>"}}).endswith("<h2>a</h2><table><tr><td>b</td><td>&lt;i&gt;</td></tr></table></html>")
