"""The script for web pages, run in Node with a page made of a few objects."""

import json
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

import service.api.browser
from service.api.wire import ConsentSent, ConsentsRequest, EventSent, EventsRequest, Outcome, OutcomesRequest, RecommendRequest

SCRIPT = Path(service.api.browser.__file__).with_name("nextbest.js")
MOST_BYTES = 8000
PAGE = """
const listeners = {}, sent = [], stored = {};
const on = (name, run) => { (listeners[name] = listeners[name] || []).push(run); };
const fire = (name, event) => (listeners[name] || []).forEach(run => run(event || {}));
let status = 202;
globalThis.document = {
  currentScript: {dataset: CONSENT ? {consent: "granted"} : {}, src: "https://d.example/nextbest.js"},
  visibilityState: "visible", addEventListener: on,
};
globalThis.location = {pathname: "/home", origin: "https://shop.example"};
globalThis.addEventListener = on;
globalThis.innerWidth = 500;
globalThis.localStorage = {
  getItem: k => stored[k] || null, setItem: (k, v) => { stored[k] = v; }, removeItem: k => { delete stored[k]; },
};
Object.defineProperty(globalThis, "navigator", {
  configurable: true,
  value: {sendBeacon: (url, body) => { sent.push({url, body: JSON.parse(body), beacon: true}); return true; }},
});
globalThis.fetch = (url, options) => {
  sent.push({url, body: JSON.parse(options.body), beacon: false});
  return Promise.resolve({ok: status < 300, status, json: () => Promise.resolve({decision_id: "d1"})});
};
globalThis.window = globalThis;
"""


@pytest.fixture
def page():
    """Runs code on a page that has the script; what it sent, and what it kept."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("the script is tried in Node, which is not here")

    def run(code: str, *, consent: bool = True):
        start = f"const CONSENT = {json.dumps(consent)};{PAGE}\n{SCRIPT.read_text()}\n"
        end = ".then(() => setTimeout(() => { console.log(JSON.stringify({sent, stored})); process.exit(0); }, 30));"
        program = f"{start}(async () => {{ {code} }})(){end}"
        done = subprocess.run([node, "-e", program], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        return found["sent"], found["stored"]

    return run


def decoded(call, kind):
    """What the service makes of a body."""
    return msgspec.json.decode(msgspec.json.encode(call["body"]), type=kind)


def events_in(sent) -> list[EventSent]:
    calls = [decoded(call, EventsRequest) for call in sent if call["url"].endswith("/events")]
    return [msgspec.json.decode(event, type=EventSent) for call in calls for event in call.events]


async def test_it_is_served_with_its_type(client):
    """And small."""
    answer = await client.get("/nextbest.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.content == SCRIPT.read_bytes()
    assert len(answer.content) < MOST_BYTES


async def test_a_page_of_another_origin_may_read_answers_where_it_is_allowed_to(service, publish_catalog):
    """CORS: only the origins that were set."""
    publish_catalog()
    async with service.client(origins="https://shop.example, https://app.example") as client:
        asked = {"content": b'{"customer_id": "c42", "placement": "home_hero"}'}
        allowed = await client.post("/recommend", headers={"origin": "https://app.example"}, **asked)
        other = await client.post("/recommend", headers={"origin": "https://evil.example"}, **asked)
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-origin" not in other.headers


def test_without_consent_nothing_is_sent_and_nothing_is_kept(page):
    """Not even what happened before it was given, or after it was taken back."""
    code = "nextbest.track('product_viewed'); nextbest.outcome('d', 'p', 'a', 'click'); const r = await nextbest.recommend({});"
    assert page(code + "nextbest.flush(); fire('pagehide');", consent=False) == ([], {})
    sent, stored = page("nextbest.track('product_viewed'); nextbest.consent(false); nextbest.flush(); fire('pagehide');")
    assert (sent, stored) == ([], {})


def test_a_page_view_is_told_by_itself_and_dwell_time_when_the_page_goes(page):
    """By beacon, which outlives the page."""
    sent, stored = page("await new Promise(done => setTimeout(done, 150)); fire('pagehide');")
    first, last = events_in(sent)
    assert (first.type, first.properties) == ("page_viewed", {"page": "/home"})
    assert last.properties["dwell_s"] >= 0.1
    assert all(call["beacon"] for call in sent)
    assert first.anonymous_id == last.anonymous_id == stored["nextbest"]
    assert first.event_id != last.event_id


def test_events_of_a_known_customer_carry_the_name_and_go_together(page):
    """One call for what was queued; the service's own types accept it."""
    code = "nextbest.identify('c42'); nextbest.track('product_viewed', {category: 'home', price: 5}); nextbest.flush();"
    sent, _ = page(code)
    [call] = sent
    assert call["url"] == "https://d.example/events"
    assert [event.customer_id for event in events_in(sent)] == [None, "c42"]
    assert events_in(sent)[1].properties == {"category": "home", "price": 5.0}


def test_a_recommendation_is_asked_with_context_and_answers_or_is_null(page):
    """Whatever goes wrong, the page gets null, not an exception."""
    sent, _ = page("const a = await nextbest.recommend({placement: 'home_hero'}); if (a.decision_id !== 'd1') throw a;")
    [call] = [one for one in sent if one["url"].endswith("/recommend")]
    asked = decoded(call, RecommendRequest)
    assert (asked.placement, asked.context) == ("home_hero", {"channel": "web", "device": "mobile"})
    assert asked.anonymous_id
    page("status = 500; if (await nextbest.recommend({}) !== null) throw 1;")
    page("globalThis.fetch = () => Promise.reject(1); if (await nextbest.recommend({}) !== null) throw 1;")


def test_a_click_on_what_was_shown_is_an_outcome(page):
    """From attributes of the element or of one around it."""
    shown = "{dataset: {nextbestDecision: 'd1', nextbestPlacement: 'home_hero', nextbestAction: 'gold'}}"
    clicks = (f"fire('click', {{target: {{closest: () => {found}}}}});" for found in (f"({shown})", "null"))
    sent, _ = page("".join(clicks))
    [call] = [one for one in sent if one["url"].endswith("/outcomes")]
    [raw] = decoded(call, OutcomesRequest).outcomes
    outcome = msgspec.json.decode(raw, type=Outcome)
    assert (outcome.decision_id, outcome.placement, outcome.action_id, outcome.type) == ("d1", "home_hero", "gold", "click")


def test_what_was_not_taken_is_sent_again_with_the_same_ids(page):
    """503: kept, and sent with what comes next."""
    code = "status = 503; nextbest.flush(); await new Promise(d => setTimeout(d, 10)); status = 202;"
    code += "nextbest.track('x'); nextbest.flush();"
    sent, _ = page(code)
    first, second = (call["body"]["events"] for call in sent)
    assert second[0] == first[0]
    assert len(second) == 2


def test_what_a_visitor_says_of_a_purpose_goes_out_at_once(page):
    """As the service takes it, for whoever the visitor is; nothing before consent to be remembered at all."""
    sent, _ = page("nextbest.identify('c42'); nextbest.agree('marketing', true);")
    [call] = [call for call in sent if call["url"].endswith("/consents")]
    [consent] = decoded(call, ConsentsRequest).consents
    said = msgspec.json.decode(consent, type=ConsentSent)
    assert (said.purpose, said.given, said.customer_id, said.source) == ("marketing", True, "c42", "/home")
    assert page("nextbest.agree('marketing', true);", consent=False) == ([], {})


def test_a_key_goes_along_in_the_address(page):
    """Of events and questions: a beacon has no headers."""
    code = "document.currentScript.dataset.key = 'nb_1 2';"
    program = SCRIPT.read_text()
    sent, _ = page(f"{code} {program} nextbest.consent(true); await nextbest.recommend({{placement: 'hero'}}); nextbest.flush();")
    assert {call["url"] for call in sent if "?" in call["url"]} == {
        "https://d.example/recommend?key=nb_1%202", "https://d.example/events?key=nb_1%202",
    }  # fmt: skip
