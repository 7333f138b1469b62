// nextbest in the browser: what a visitor does, what to show them, what came of it. No dependencies, 10 kB.
//
//   <script src="https://decisions.example/nextbest.js" data-consent="granted" defer></script>
//   nextbest.recommend({placement: "home_hero"}).then(show)
//
// An element that says what it shows tells by itself that it was seen, and that it was clicked:
//
//   <a data-nextbest-decision="..." data-nextbest-placement="home_hero" data-nextbest-action="gold_card">
//
// Nothing is stored and nothing is sent before consent: data-consent="granted" on the tag, or nextbest.consent(true). What happens
// before it is forgotten. Events and outcomes are queued, and leave together every two seconds, at 50, or with the page; what a service
// in trouble does not take is kept for ten seconds and sent again, and what it refuses is told on the console. What a
// visitor says of a purpose of the catalog leaves at once: nextbest.agree("marketing", true). Where the service asks for keys:
// data-key="...", one for `decide` and `ingest` with a rate, since everybody can read it. Who is logged in: data-customer="c42",
// or nextbest.identify("c42"); either holds for this page, and for what is still queued.
(function () {
  "use strict";
  var tag = document.currentScript;
  var base = (tag && tag.dataset.base) || (tag && tag.src ? new URL(tag.src).origin : location.origin);
  var channel = (tag && tag.dataset.channel) || "web";
  var key = tag && tag.dataset.key ? "?key=" + encodeURIComponent(tag.dataset.key) : "";
  var EVERY_MS = 2000, PAUSE_S = 10, LONGEST_PAUSE_S = 3600, ANSWER_MS = 2000, MOST = 50, KEY = "nextbest";
  var queues = {events: [], outcomes: [], consents: []};
  var allowed = false, timer = null, pausing = false, visible = 0, since = null;
  var customer = (tag && tag.dataset.customer) || null;

  function id() {
    var random = crypto.getRandomValues(new Uint8Array(16));
    return Array.prototype.map.call(random, function (b) { return (b + 256).toString(16).slice(1); }).join("");
  }

  function who() {
    if (customer) return {customer_id: customer};
    var known = null;
    try { known = localStorage.getItem(KEY); } catch (_) { /* storage may be forbidden: then a page is a visitor */ }
    if (!known) {
      known = who.once = who.once || id();
      try { localStorage.setItem(KEY, known); } catch (_) { /* as above */ }
    }
    return {anonymous_id: known};
  }

  function queue(kind, item) {
    queues[kind].push(item);
    if (queues[kind].length >= MOST && !pausing) flush(false);
    else if (!timer) timer = setTimeout(function () { flush(false); }, EVERY_MS);
    return item;
  }

  function flush(leaving) {
    clearTimeout(timer);
    timer = null;
    pausing = false;
    sign();
    Object.keys(queues).forEach(function (kind) {
      while (queues[kind].length) send(kind, queues[kind].splice(0, MOST), leaving);
    });
  }

  function send(kind, items, leaving) {
    var body = {};
    body[kind] = items;
    var text = JSON.stringify(body), url = base + "/" + kind + key;
    if (leaving && navigator.sendBeacon && navigator.sendBeacon(url, text)) return;
    fetch(url, {method: "POST", body: text, keepalive: leaving}).then(function (answer) {
      if (answer.status === 429 || answer.status >= 500) again(kind, items, answer.headers.get("retry-after"));
      else warn(kind, answer);
    }, function () { again(kind, items); });
  }

  // ids make a repetition harmless
  function again(kind, items, after) {
    queues[kind] = items.concat(queues[kind]).slice(0, 20 * MOST);
    if (!allowed) forget();
    if (!queues[kind].length) return;
    pausing = true;
    clearTimeout(timer);
    timer = setTimeout(flush, 1000 * Math.min(LONGEST_PAUSE_S, Math.max(PAUSE_S, Number(after) || 0)), false);
  }

  // what was refused is refused another time, too: for whoever makes the page
  function warn(kind, answer) {
    answer.json().catch(function () { return {}; }).then(function (said) {
      var refused = said.rejected || [];
      if (!answer.ok) console.warn("nextbest: /" + kind + " answered " + answer.status, said.detail);
      else if (refused.length) console.warn("nextbest: /" + kind + " rejected " + refused.length, refused);
    });
  }

  function track(type, properties) {
    if (!allowed) return null;
    return queue("events", {
      event_id: id(), type: type, channel: channel, at: new Date().toISOString(), properties: properties || {}
    });
  }

  // as late as can be: a page says who it is once its first view is queued
  function sign() {
    queues.events.forEach(function (event) {
      if (!event.customer_id && !event.anonymous_id) Object.assign(event, who());
    });
  }

  function recommend(request) {
    if (!allowed) return Promise.resolve(null);
    var asked = Object.assign({}, who(), request);
    asked.context = Object.assign({channel: channel, device: device()}, request && request.context);
    // old browsers wait as long as the service takes
    var patience = window.AbortSignal && AbortSignal.timeout ? AbortSignal.timeout(ANSWER_MS + (asked.deadline_ms || 0)) : undefined;
    return fetch(base + "/recommend" + key, {method: "POST", body: JSON.stringify(asked), signal: patience}).then(function (answer) {
      if (answer.ok) return answer.json();
      warn("recommend", answer);
      return null;
    }).catch(function () { return null; });
  }

  function outcome(decision, placement, action, type, value) {
    if (!allowed) return null;
    return queue("outcomes", {
      outcome_id: id(), decision_id: decision, placement: placement, action_id: action, type: type, value: value || 0,
      at: new Date().toISOString()
    });
  }

  function device() {
    return innerWidth < 768 ? "mobile" : innerWidth < 1100 ? "tablet" : "desktop";
  }

  function agree(purpose, given) {
    if (!allowed) return null;
    var said = {purpose: purpose, given: !!given, at: new Date().toISOString(), source: location.pathname};
    queue("consents", Object.assign(said, who()));
    flush(false);
    return said;
  }

  function consent(given) {
    if (given && !allowed) {
      allowed = true;
      since = Date.now();
      visible = 0;
      track("page_viewed", {page: location.pathname});
      watchAnew();
    } else if (!given) {
      allowed = false;
      forget();
      who.once = null;
      try { localStorage.removeItem(KEY); } catch (_) { /* nothing was kept */ }
    }
  }

  // after consent was taken back only a withdrawal that has not arrived is still to go
  function forget() {
    queues.events = [];
    queues.outcomes = [];
    queues.consents = queues.consents.filter(function (said) { return !said.given; });
  }

  function identify(name) {
    if (customer) sign(); // what is queued is not the next one's
    customer = name || null;
  }

  // dwell time: how long the page was to be seen, told once, when it goes
  document.addEventListener("visibilitychange", function () {
    if (document.visibilityState === "hidden") {
      if (since !== null) visible += Date.now() - since;
      since = null;
      flush(true);
    } else {
      since = Date.now();
      watchAnew();
    }
  });
  addEventListener("pagehide", function () {
    if (since !== null) visible += Date.now() - since;
    since = null;
    if (allowed && visible > 0) track("page_left", {page: location.pathname, dwell_s: Math.round(visible / 100) / 10});
    visible = 0;
    flush(true);
  });
  function tell(element, type) {
    var data = element.dataset;
    return outcome(data.nextbestDecision, data.nextbestPlacement, data.nextbestAction, type);
  }

  // an impression, once for each: half of the element was to be seen for a second, or it was clicked
  var MARKED = "[data-nextbest-decision]", SEEN_MS = 1000, seen = {}, watched = new Map(), clocks = new Map();
  function what(element) {
    var data = element.dataset;
    return [data.nextbestDecision, data.nextbestPlacement, data.nextbestAction].join(" ");
  }
  function impression(element) {
    clocks.delete(element);
    if (document.visibilityState === "hidden" || seen[what(element)]) return;
    if (tell(element, "impression")) seen[what(element)] = true;
  }
  var watcher = typeof IntersectionObserver === "undefined" ? null : new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      var element = entry.target;
      clearTimeout(clocks.get(element));
      clocks.delete(element);
      if (entry.intersectionRatio < 0.5) return;
      var box = entry.boundingClientRect; // of what has no area the ratio is 1, and still is once a picture has come
      clocks.set(element, setTimeout(box.width * box.height > 0 ? impression : look, SEEN_MS, element));
    });
  }, {threshold: 0.5});
  function look(element) {
    watcher.unobserve(element); // whoever is watched anew is looked at at once
    if (element.isConnected) watcher.observe(element);
    else clocks.delete(element);
  }
  function watch() {
    if (!watcher) return;
    watched.forEach(function (_, element) { if (!element.isConnected) watched.delete(element); });
    document.querySelectorAll(MARKED).forEach(function (element) {
      if (watched.get(element) === what(element)) return;
      watched.set(element, what(element));
      look(element);
    });
  }
  function watchAnew() { watched.clear(); watch(); }
  if (watcher) {
    var marks = ["data-nextbest-decision", "data-nextbest-placement", "data-nextbest-action"];
    new MutationObserver(watch).observe(document.documentElement, {subtree: true, childList: true, attributeFilter: marks});
  }
  function clicked(event) {
    var shown = event.target.closest && event.target.closest(MARKED);
    if (!shown) return;
    impression(shown);
    tell(shown, "click");
    if (!pausing) flush(true); // of a beacon nobody knows whether it was taken
  }
  document.addEventListener("click", clicked, true);
  document.addEventListener("auxclick", function (event) { if (event.button === 1) clicked(event); }, true); // in a new tab

  window.nextbest = {
    track: track, recommend: recommend, outcome: outcome, consent: consent, agree: agree, identify: identify,
    flush: function () { flush(false); }
  };
  if (tag && tag.dataset.consent === "granted") consent(true);
})();
