"""What operators ask."""


async def test_the_status_says_what_the_log_promises(client):
    """A section for each part; this one is the log in memory, of which a power loss takes everything."""
    response = await client.get("/status")
    assert response.status_code == 200
    assert response.json()["log"] == {
        "mode": "memory", "loss_window_ms": None, "waiting_bytes": 0, "failures": 0, "segments": {},
    }  # fmt: skip
