"""The examples of the OpenAPI document: one request and its answer, each of which decodes as its type."""

from litestar.openapi.spec import Example

RECOMMEND_REQUEST = {
    "customer_id": "c42",
    "placements": [{"id": "home_hero", "slots": 1}],
    "context": {"channel": "web", "device": "mobile"},
}
RECOMMEND_ANSWER = [
    Example(
        summary="One offer",
        value={
            "decision_id": "5f0c8e5d5b0e4f5c9c4c3c1f2c2b7a10",
            "customer_id": "c42",
            "placements": [
                {
                    "id": "home_hero",
                    "items": [
                        {
                            "rank": 1,
                            "action_id": "gold_card",
                            "treatment_id": "gold_hero",
                            "kind": "offer",
                            "content": {"title": "Gold"},
                            "predicted_rate": 0.041,
                            "utility": 4.92,
                            "choice_probability": 0.91,
                            "explored": False,
                            "reasons": ["highest_utility"],
                        }
                    ],
                    "fallback": False,
                }
            ],
            "experiment": None,
            "versions": {"catalog": 7, "bundle": "visit-20260101-120000-a1b2c3"},
            "degraded": [],
            "logged": True,
            "took_ms": 2.1,
        },
    )
]
OUTCOMES_REQUEST = {
    "outcomes": [
        {
            "outcome_id": "o-1",
            "decision_id": "5f0c8e5d5b0e4f5c9c4c3c1f2c2b7a10",
            "placement": "home_hero",
            "action_id": "gold_card",
            "type": "click",
            "at": "2026-01-01T12:00:00Z",
        }
    ]
}
OUTCOMES_ANSWER = [Example(summary="On disk", value={"accepted": 1, "duplicates": 0, "orphans": 0, "late": 0, "rejected": []})]
EVENTS_REQUEST = {
    "events": [
        {
            "event_id": "e-1",
            "customer_id": "c42",
            "type": "product_viewed",
            "channel": "web",
            "at": "2026-01-01T12:00:00Z",
            "properties": {"product": "p7", "category": "fashion", "price": 59.0},
        }
    ],
    "decide": {"customer_id": "c42", "placement": "home_hero"},
}
EVENTS_ANSWER = [
    Example(
        summary="On disk",
        value={"accepted": 1, "duplicates": 0, "undeclared": 0, "rejected": [], "decision": None},
    )
]
CONSENTS_REQUEST = {"consents": [{"customer_id": "c42", "purpose": "marketing", "given": True, "source": "web form"}]}
CONSENTS_ANSWER = [Example(summary="They hold", value={"accepted": 1, "rejected": []})]
IDENTITIES_REQUEST = {"links": [{"alias": "a-7f3c", "customer_id": "c42"}]}
IDENTITIES_ANSWER = [Example(summary="Linked", value={"linked": 1, "known": 0, "rejected": []})]
