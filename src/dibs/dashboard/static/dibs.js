// Keeps a page up to date: listens to its events, and changes in place what they bring. Without it the page reads
// just as well, and stands still.
"use strict";

(() => {
  const button = document.getElementById("live");
  const word = button.querySelector(".word");
  const gone = document.getElementById("gone");
  const words = { live: "Live", paused: "Paused", lost: "Offline", wait: "…" };
  const LONGEST_WAIT = 10000;
  let source = null;
  let isPaused = false;
  let wait = 1000;
  let timer = 0;

  function show(state) {
    button.dataset.state = state;
    button.setAttribute("aria-pressed", String(!isPaused));
    button.setAttribute("aria-label", isPaused ? "Updates are paused. Go on" : "The page is live. Pause updates");
    if (word.textContent !== words[state]) word.textContent = words[state];
  }

  function say(text) {
    if (text === null || text === undefined) {
      gone.hidden = true;
    } else {
      if (gone.textContent !== text) gone.textContent = text;
      gone.hidden = false;
    }
  }

  function connect() {
    disconnect();
    if (isPaused || document.hidden) return;
    source = new EventSource(location.pathname + withoutSaid(location.search));
    source.addEventListener("news", (event) => {
      wait = 1000;
      const news = JSON.parse(event.data);
      const wasStuck = document.querySelector("[data-live]") !== null && !document.querySelector("main [data-live]");
      say(news.gone);
      show(news.gone === null ? "live" : "lost");
      if (wasStuck && news.gone === null) return location.reload(); // the page was loaded while the broker was gone
      for (const [name, html] of Object.entries(news.regions)) put(name, html);
    });
    source.onerror = () => {
      // The browser gives up for good on an answer that is no stream (a session that is over, a full house).
      disconnect();
      show("lost");
      say("The dashboard can’t be reached. This page goes on when it can.");
      timer = setTimeout(connect, wait);
      wait = Math.min(wait * 2, LONGEST_WAIT);
    };
  }

  function disconnect() {
    clearTimeout(timer);
    if (source) source.close();
    source = null;
  }

  function withoutSaid(search) {
    const fields = new URLSearchParams(search);
    fields.delete("did");
    fields.delete("n");
    return fields.size ? "?" + fields : "";
  }

  function put(name, html) {
    const region = document.querySelector(`[data-live="${name}"]`);
    if (!region) return;
    const box = document.createElement("template");
    box.innerHTML = html;
    morph(region, box.content);
    reveal(region);
  }

  // Makes the children of `old` those of `fresh`, and touches only what differs: so focus, ticks, open details,
  // selected text and the place that is scrolled to stay.
  function morph(old, fresh) {
    const keyed = new Map();
    for (const child of old.children) if (child.dataset.key !== undefined) keyed.set(child.dataset.key, child);
    let at = old.firstChild;
    for (const wanted of [...fresh.childNodes]) {
      const key = wanted.nodeType === 1 ? wanted.dataset.key : undefined;
      let have = key === undefined ? at : keyed.get(key);
      if (key === undefined) while (have && have.nodeType === 1 && have.dataset.key !== undefined) have = have.nextSibling;
      if (have && isLike(have, wanted)) {
        if (have !== at) old.insertBefore(have, at);
        else at = at.nextSibling;
        patch(have, wanted);
      } else {
        old.insertBefore(wanted, at);
      }
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  function isLike(left, right) {
    return left.nodeType === right.nodeType && left.nodeName === right.nodeName &&
      (left.nodeType !== 1 || left.dataset.key === right.dataset.key);
  }

  function patch(have, wanted) {
    if (have.nodeType !== 1) {
      if (have.nodeValue !== wanted.nodeValue) have.nodeValue = wanted.nodeValue;
      return;
    }
    if (have.isEqualNode(wanted)) return;
    const isOpen = have.nodeName === "DETAILS" && have.open;
    for (const { name } of [...have.attributes]) {
      if (!wanted.hasAttribute(name) && !(name === "open" && isOpen) && name !== "hidden") have.removeAttribute(name);
    }
    for (const { name, value } of wanted.attributes) {
      if (have.getAttribute(name) !== value && name !== "hidden") have.setAttribute(name, value);
    }
    morph(have, wanted);
  }

  // What only works with a script is hidden until there is one.
  function reveal(root) {
    for (const all of root.querySelectorAll("[data-ticks][hidden]")) all.hidden = false;
  }

  document.addEventListener("change", (event) => {
    const name = event.target.dataset ? event.target.dataset.ticks : undefined;
    if (name === undefined) return;
    for (const box of document.querySelectorAll(`input[name="${name}"]`)) box.checked = event.target.checked;
  });

  document.addEventListener("keydown", (event) => {
    const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.nodeName);
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      document.getElementById("find").focus();
    }
  });

  button.addEventListener("click", () => {
    isPaused = !isPaused;
    show(isPaused ? "paused" : "wait");
    if (isPaused) disconnect();
    else connect();
  });

  // Nobody looks at a hidden page, so nothing is asked for it; and a browser has few connections to give away.
  document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", (event) => event.persisted && connect());

  button.hidden = false;
  show("wait");
  reveal(document);
  connect();
})();
