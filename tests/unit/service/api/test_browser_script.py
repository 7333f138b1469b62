"""The script for web pages, run in Node with a page made of a few objects."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

import service.api.browser
from features.event_types import PACKAGED, parse_event_types
from service.api.wire import ConsentSent, ConsentsRequest, EventSent, EventsRequest, Outcome, OutcomesRequest, RecommendRequest

SCRIPT = Path(service.api.browser.__file__).with_name("nextbest.js")
README = Path(__file__).parents[4] / "README.md"
MOST_BYTES = 11_000
PAGE = """
const listeners = {}, sent = [], stored = {};
const on = (name, run) => { (listeners[name] = listeners[name] || []).push(run); };
const fire = (name, event) => (listeners[name] || []).forEach(run => run(event || {}));
let status = 202;
const answered = (status, body, headers) => new Response(JSON.stringify(body), {status, headers});
let marked = [], look = null, mutate = null;
const entry = (target, intersectionRatio) => ({target, intersectionRatio, boundingClientRect: target.box});
globalThis.document = {
  currentScript: {dataset: {...(CONSENT ? {consent: "granted"} : {}), ...DATA}, src: "https://d.example/nextbest.js"},
  visibilityState: "visible", addEventListener: on, documentElement: {}, querySelectorAll: () => marked,
};
globalThis.IntersectionObserver = function (told) {
  look = told;
  this.observe = target => told([entry(target, target.ratio)]);
  this.unobserve = () => {};
};
globalThis.MutationObserver = function (told) { mutate = told; this.observe = () => {}; };
const mark = (action, ratio, height = 100) => {
  const dataset = {nextbestDecision: "d1", nextbestPlacement: "home_hero", nextbestAction: action};
  const element = {dataset, ratio, box: {width: 300, height}, isConnected: true, closest: () => element};
  marked.push(element);
  mutate();
  return element;
};
const after = ms => new Promise(done => setTimeout(done, ms));
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
  return Promise.resolve(answered(status, {decision_id: "d1"}));
};
globalThis.window = globalThis;
"""


@pytest.fixture
def page():
    """Runs code on a page that has the script; what it sent, and what it kept."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("the script is tried in Node, which is not here")

    def run(code: str, *, consent: bool = True, **data: str):
        start = f"const CONSENT = {json.dumps(consent)}, DATA = {json.dumps(data)};{PAGE}\n{SCRIPT.read_text()}\n"
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
    assert allowed.headers["access-control-expose-headers"] == "Retry-After"
    assert "access-control-allow-origin" not in other.headers


def test_without_consent_nothing_is_sent_and_nothing_is_kept(page):
    """Not even what happened before it was given, or after it was taken back."""
    code = "nextbest.track('product_viewed'); nextbest.outcome('d', 'p', 'a', 'click'); const r = await nextbest.recommend({});"
    assert page(code + "nextbest.flush(); fire('pagehide');", consent=False) == ([], {})
    sent, stored = page("nextbest.track('product_viewed'); nextbest.consent(false); nextbest.flush(); fire('pagehide');")
    assert (sent, stored) == ([], {})


def test_a_page_view_is_told_by_itself_and_dwell_time_when_the_page_goes(page):
    """By beacon, which outlives the page; as another type, so that a view counts once, and both as the service declares them."""
    sent, stored = page("await new Promise(done => setTimeout(done, 150)); fire('pagehide');")
    first, last = events_in(sent)
    assert (first.type, first.properties) == ("page_viewed", {"page": "/home"})
    assert (last.type, last.properties["page"]) == ("page_left", "/home")
    assert last.properties["dwell_s"] >= 0.1
    types = parse_event_types(PACKAGED.read_text())
    assert [types.problem(event.type, event.channel, event.properties) for event in (first, last)] == [None, None]
    assert {"page_viewed", "page_left"} <= types.types.keys()
    assert all(call["beacon"] for call in sent)
    assert first.anonymous_id == last.anonymous_id == stored["nextbest"]
    assert first.event_id != last.event_id


def test_events_of_a_known_customer_carry_the_name_and_go_together(page):
    """One call for what was queued, the page's own view included; the service's own types accept it."""
    code = "nextbest.identify('c42'); nextbest.track('product_viewed', {category: 'home', price: 5}); nextbest.flush();"
    sent, stored = page(code)
    [call] = sent
    assert call["url"] == "https://d.example/events"
    assert [event.customer_id for event in events_in(sent)] == ["c42", "c42"]
    assert stored == {}
    assert events_in(sent)[1].properties == {"category": "home", "price": 5.0}


def test_a_customer_whom_the_tag_names_is_known_from_the_first_view_on(page):
    """In events and questions."""
    sent, stored = page("await nextbest.recommend({placement: 'hero'}); nextbest.flush();", customer="c42")
    assert [event.customer_id for event in events_in(sent)] == ["c42"]
    assert [call["body"]["customer_id"] for call in sent if call["url"].endswith("/recommend")] == ["c42"]
    assert stored == {}


def test_what_a_customer_did_stays_theirs_when_the_page_names_another_or_nobody(page):
    """Also where it is still queued; what a visitor did just before logging in is the customer's."""
    code = "nextbest.identify('c1'); nextbest.track('a'); nextbest.identify('c2'); nextbest.track('b'); nextbest.identify(null);"
    sent, stored = page(code + "nextbest.track('c'); nextbest.flush();")
    assert [event.customer_id for event in events_in(sent)] == ["c1", "c1", "c2", None]
    assert events_in(sent)[-1].anonymous_id == stored["nextbest"]


def test_a_recommendation_is_asked_with_context_and_answers_or_is_null(page):
    """Whatever goes wrong, the page gets null, not an exception."""
    sent, _ = page("const a = await nextbest.recommend({placement: 'home_hero'}); if (a.decision_id !== 'd1') throw a;")
    [call] = [one for one in sent if one["url"].endswith("/recommend")]
    asked = decoded(call, RecommendRequest)
    assert (asked.placement, asked.context) == ("home_hero", {"channel": "web", "device": "mobile"})
    assert asked.anonymous_id
    page("status = 500; if (await nextbest.recommend({}) !== null) throw 1;")
    page("globalThis.fetch = () => Promise.reject(1); if (await nextbest.recommend({}) !== null) throw 1;")
    page("globalThis.fetch = () => Promise.resolve(new Response('no JSON')); if (await nextbest.recommend({}) !== null) throw 1;")


@pytest.fixture
def example(page):
    """Runs what README shows for a web page, once the page is there; its element, as it is then."""

    def run(code: str):
        [markup] = re.findall(r"^```html\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
        [script] = re.findall(r"<script>\n(.*?)</script>", markup, re.DOTALL)
        hero = """const hero = {dataset: {}, textContent: "New", href: "/new"};
        document.getElementById = () => hero;
        const answer = content => JSON.stringify({decision_id: "d1", placements: [{items: [{action_id: "gold", content}]}]});
        const give = content => { globalThis.fetch = () => Promise.resolve(new Response(answer(content))); };"""
        sent, _ = page(f"{hero} {code} {script} fire('load'); await after(10); sent.push(hero);")
        return sent[-1]

    return run


def test_the_example_for_a_page_shows_what_is_recommended_and_marks_it(example):
    """What has no address, as the fallback of the demo's catalog, keeps the page's own."""
    shown = example("give({title: 'Gold', url: '/gold'});")
    assert (shown["textContent"], shown["href"]) == ("Gold", "/gold")
    assert shown["dataset"] == {"nextbestDecision": "d1", "nextbestPlacement": "home_hero", "nextbestAction": "gold"}
    assert example("give({title: 'Welcome back'});")["href"] == "/new"


@pytest.mark.parametrize("missing", ["delete globalThis.nextbest;", "globalThis.fetch = () => Promise.reject(1);"])
def test_the_example_for_a_page_leaves_it_as_it_is_without_the_script_or_an_answer(example, missing):
    """Neither an error, which would end the program here, nor an empty element."""
    shown = example(missing)
    assert (shown["textContent"], shown["href"], shown["dataset"]) == ("New", "/new", {})


def outcomes_in(sent) -> list[Outcome]:
    calls = [decoded(call, OutcomesRequest) for call in sent if call["url"].endswith("/outcomes")]
    return [msgspec.json.decode(outcome, type=Outcome) for call in calls for outcome in call.outcomes]


def told(sent) -> list[tuple[str, str]]:
    return [(outcome.action_id, outcome.type) for outcome in outcomes_in(sent)]


def test_a_click_on_what_was_shown_is_an_outcome_and_says_that_it_was_seen(page):
    """From attributes of the element or of one around it; a click beside them is nothing."""
    sent, _ = page("const gold = mark('gold', 0); fire('click', {target: gold}); fire('click', {target: {closest: () => null}});")
    seen, clicked = outcomes_in(sent)
    assert (clicked.decision_id, clicked.placement, clicked.action_id, clicked.type) == ("d1", "home_hero", "gold", "click")
    assert (seen.decision_id, seen.placement, seen.action_id, seen.type) == ("d1", "home_hero", "gold", "impression")


def test_a_click_that_opens_a_new_tab_is_one(page):
    """With the middle button; the right one opens a menu."""
    sent, _ = page("const gold = mark('gold', 0); for (const button of [1, 2]) fire('auxclick', {target: gold, button});")
    assert told(sent) == [("gold", "impression"), ("gold", "click")]


def test_what_was_to_be_seen_for_a_second_is_an_impression(page):
    """Once, however often it comes into view; what was there for a moment, a corner of it, or an empty element is none."""
    code = """
    const gold = mark('gold', 0.5), moment = mark('moment', 1);
    mark('corner', 0.4);
    mark('empty', 1, 0);
    await after(300);
    look([entry(moment, 0)]);
    await after(900);
    look([entry(gold, 0), entry(gold, 1)]);
    await after(1100);
    nextbest.flush();
    """
    assert told(page(code)[0]) == [("gold", "impression")]


def test_a_picture_that_comes_later_is_an_impression_from_then_on(page):
    """Its element has no area until then, which is all in view, and so it is afterwards; one that is taken away is none."""
    code = """
    const banner = mark('banner', 1, 0), gone = mark('gone', 1, 0);
    await after(300);
    banner.box = gone.box = {width: 300, height: 100};
    gone.isConnected = false;
    await after(1000);
    nextbest.flush();
    if (sent.some(call => call.url.endsWith('/outcomes'))) throw 1;
    await after(900);
    nextbest.flush();
    """
    assert told(page(code)[0]) == [("banner", "impression")]


def test_a_page_that_moves_all_the_time_does_not_keep_an_impression_from_being_told(page):
    """And an element that shows something else is looked at again."""
    code = """
    const gold = mark('gold', 1);
    for (let i = 0; i < 6; i++) { await after(200); mutate(); }
    gold.dataset.nextbestAction = 'silver';
    mutate();
    await after(1100);
    nextbest.flush();
    """
    assert told(page(code)[0]) == [("gold", "impression"), ("silver", "impression")]


def test_nothing_is_seen_before_consent_or_in_a_tab_behind_another(page):
    """What is in view when consent comes, or the page comes back, is seen from then on."""
    code = """
    mark('gold', 1);
    await after(1100);
    nextbest.consent(true);
    nextbest.flush();
    if (sent.some(call => call.url.endsWith('/outcomes'))) throw 1;
    await after(1100);
    nextbest.flush();
    """
    assert told(page(code, consent=False)[0]) == [("gold", "impression")]
    code = """
    const behind = visibility => { document.visibilityState = visibility; fire('visibilitychange'); };
    mark('gold', 1);
    behind('hidden');
    await after(1100);
    nextbest.flush();
    if (sent.some(call => call.url.endsWith('/outcomes'))) throw 1;
    behind('visible');
    await after(1100);
    nextbest.flush();
    """
    assert told(page(code)[0]) == [("gold", "impression")]


def test_a_browser_that_cannot_watch_tells_clicks_still(page):
    """An old one has no IntersectionObserver; the script is run again without."""
    again = f"delete globalThis.IntersectionObserver; {SCRIPT.read_text()} nextbest.consent(true);"
    sent, _ = page(f"{again} fire('click', {{target: mark('old', 1)}});", consent=False)
    assert told(sent) == [("old", "impression"), ("old", "click")]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_was_not_taken_is_sent_again_with_the_same_ids(page, status):
    """Whatever trouble there is: kept, and sent with what comes next."""
    code = f"status = {status}; nextbest.flush(); await new Promise(d => setTimeout(d, 10)); status = 202;"
    code += "nextbest.track('x'); nextbest.flush();"
    sent, _ = page(code)
    first, second = (call["body"]["events"] for call in sent)
    assert second[0] == first[0]
    assert len(second) == 2


def test_a_service_in_trouble_is_left_alone_for_a_while(page):
    """Neither a full queue nor a click ends the pause; the page's going does, as the last chance."""
    code = """
    status = 503;
    nextbest.flush();
    await after(10);
    for (let i = 0; i < 120; i++) nextbest.track('x');
    fire('click', {target: mark('gold', 0)});
    await after(2200);
    if (sent.length !== 1) throw sent.length;
    fire('pagehide');
    """
    sent, _ = page(code)
    assert len(events_in(sent[1:])) == 1 + 120 + 1
    assert told(sent) == [("gold", "impression"), ("gold", "click")]


@pytest.mark.parametrize(
    ("header", "pause"), [("{}", 10_000), ("{'retry-after': '1'}", 10_000), ("{'retry-after': '60'}", 60_000)]
)
def test_the_pause_is_as_long_as_the_service_asks_for(page, header, pause):
    """But not shorter than ten seconds; the clock is one of the test's own."""
    code = f"""
    const waits = [];
    globalThis.setTimeout = (run, ms) => {{ waits.push(ms); return 1; }};
    globalThis.fetch = () => Promise.resolve(answered(503, {{}}, {header}));
    nextbest.flush();
    await new Promise(setImmediate);
    globalThis.setTimeout = later;
    sent.push(waits);
    """
    assert page(f"const later = setTimeout; {code}")[0] == [[pause]]


def test_what_is_refused_is_told_on_the_console(page):
    """One event of several, a request as a whole, and a question: nothing of it is sent again."""
    code = """
    console.warn = (...words) => sent.push(words);
    globalThis.fetch = () => Promise.resolve(answered(202, {rejected: [{index: 0, reason: 'Expected a number'}]}));
    nextbest.flush();
    await after(10);
    globalThis.fetch = () => Promise.resolve(answered(403, {detail: 'Expected a key'}));
    nextbest.track('x');
    nextbest.flush();
    if (await nextbest.recommend({}) !== null) throw 1;
    await after(10);
    nextbest.flush();
    """
    assert page(code)[0] == [
        ["nextbest: /events rejected 1", [{"index": 0, "reason": "Expected a number"}]],
        ["nextbest: /events answered 403", "Expected a key"],
        ["nextbest: /recommend answered 403", "Expected a key"],
    ]


def test_a_recommendation_is_not_waited_for_without_end(page):
    """Null after two seconds, as where it fails: a page that waits is empty until then."""
    code = """
    globalThis.fetch = (_, {signal}) => new Promise((_, fail) => signal.addEventListener('abort', () => fail(signal.reason)));
    const found = await Promise.race([nextbest.recommend({placement: 'hero'}), after(2500)]);
    if (found !== null) throw found;
    """
    assert page(code)[0] == []


@pytest.mark.parametrize("fails", ["Promise.resolve(answered(503))", "Promise.resolve(answered(429))", "Promise.reject(1)"])
def test_what_was_under_way_when_consent_was_taken_back_is_not_sent_again(page, fails):
    """But for what the visitor said of a purpose: a withdrawal is to arrive."""
    code = f"""
    const take = globalThis.fetch;
    let fail;
    const waiting = new Promise(done => {{ fail = done; }});
    globalThis.fetch = () => waiting.then(() => {fails});
    nextbest.track('x');
    nextbest.outcome('d', 'p', 'a', 'click');
    nextbest.agree('newsletter', true);
    nextbest.agree('marketing', false);
    nextbest.consent(false);
    fail();
    await after(10);
    globalThis.fetch = take;
    nextbest.flush();
    """
    sent, _ = page(code)
    assert [call["url"] for call in sent] == ["https://d.example/consents"]
    assert [consent["given"] for consent in sent[0]["body"]["consents"]] == [False]


def test_a_withdrawal_that_waits_to_be_sent_again_outlives_the_consent(page):
    """Nothing else that waits does: not even what the visitor agreed to a moment before."""
    code = """
    const take = globalThis.fetch;
    globalThis.fetch = () => Promise.resolve(answered(503));
    nextbest.track('x');
    nextbest.agree('newsletter', true);
    nextbest.agree('marketing', false);
    await after(10);
    nextbest.consent(false);
    globalThis.fetch = take;
    fire('pagehide');
    """
    sent, _ = page(code)
    assert [call["url"] for call in sent] == ["https://d.example/consents"]
    assert [(consent["purpose"], consent["given"]) for consent in sent[0]["body"]["consents"]] == [("marketing", False)]


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
