// The pages work without this file. With it they stay up to date, say how old each figure is, and
// refuse changes while nobody knows how things stand.
"use strict";
(() => {
  const QUIET_MS = 4000; // the server says something every second
  const REFRESH_MS = 1500; // at most so often
  const live = () => document.getElementById("live");
  let offset = 0; // the server's clock less ours
  let heard = Date.now();
  let lost = false;
  let due = false;
  let loading = false;
  let loadedAt = Date.now();

  const words = (ms) => {
    const seconds = Math.max(0, Math.round(ms / 1000));
    if (seconds < 90) return `${seconds} s ago`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
    if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
    return `${Math.round(seconds / 86400)} days ago`;
  };

  const ages = () => {
    const now = Date.now() + offset;
    for (const time of document.querySelectorAll("time.age")) {
      const said = words(now - Date.parse(time.dateTime));
      if (time.textContent !== said) time.textContent = said;
    }
    for (const figure of document.querySelectorAll("[data-at]")) {
      const tick = Number(figure.dataset.tick);
      figure.classList.toggle("stale", tick > 0 && now - Date.parse(figure.dataset.at) > 2 * tick);
    }
  };

  const standing = (isLost) => {
    if (lost === isLost) return;
    lost = isLost;
    document.getElementById("lost").hidden = !isLost;
    for (const set of document.querySelectorAll("fieldset[data-change]")) set.disabled = isLost;
  };

  // What the reader holds must not be pulled away.
  const busy = () => {
    const held = document.activeElement;
    if (held && live().contains(held) && /^(INPUT|SELECT|TEXTAREA)$/.test(held.tagName)) return true;
    const typed = (field) => field.tagName === "SELECT"
      ? field.selectedIndex !== Math.max(0, [...field.options].findIndex((option) => option.defaultSelected))
      : field.value !== field.defaultValue;
    if ([...live().querySelectorAll("input:not([type=hidden]), select, textarea")].some(typed)) return true;
    const chosen = window.getSelection();
    return Boolean(chosen && !chosen.isCollapsed && live().contains(chosen.anchorNode));
  };

  const replace = (into, from) => {
    if (into.innerHTML === from.innerHTML) return;
    const open = new Set([...into.querySelectorAll("details[open][id]")].map((each) => each.id));
    const held = into.contains(document.activeElement) ? document.activeElement : null;
    const path = held && { tag: held.tagName, id: held.id, href: held.getAttribute("href"), text: held.textContent };
    into.replaceChildren(...from.childNodes);
    for (const id of open) { const each = document.getElementById(id); if (each) each.open = true; }
    if (path) {
      const again = [...into.querySelectorAll(path.tag)].find((each) => path.id ? each.id === path.id
        : each.getAttribute("href") === path.href && (path.href || each.textContent === path.text));
      if (again) again.focus({ preventScroll: true });
    }
  };

  const refresh = async () => {
    if (!due || loading || lost || document.hidden || busy() || Date.now() - loadedAt < REFRESH_MS) return;
    due = false;
    loading = true;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, redirect: "manual" });
      if (answer.type === "opaqueredirect") { location.reload(); return; }
      if (answer.ok) {
        const next = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const id of ["state", "live"]) {
          const [into, from] = [document.getElementById(id), next.getElementById(id)];
          if (into && from) replace(into, document.adoptNode(from));
        }
        for (const set of document.querySelectorAll("fieldset[data-change]")) set.disabled = lost;
        ages();
      } else due = true;
    } catch { due = true; } finally { loading = false; loadedAt = Date.now(); }
  };

  if (!document.body.dataset.stream) { ages(); return; }
  const stream = new EventSource(document.body.dataset.stream);
  const hear = (event) => {
    heard = Date.now();
    const said = JSON.parse(event.data);
    if (said.at) offset = Date.parse(said.at) - heard;
    standing(false);
    return said;
  };
  let version = document.body.dataset.version; // of the ledger, before the page was made from it
  stream.addEventListener("beat", (event) => {
    const said = hear(event);
    if (said.version !== version) due = true;
    version = said.version;
  });
  stream.addEventListener("pause", (event) => { hear(event); due = true; loadedAt = 0; });
  stream.addEventListener("decision", (event) => { hear(event); due = true; });
  stream.addEventListener("error", () => {
    // A key that is no longer good ends the stream for good: the page itself says what to do.
    if (stream.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 10000);
  });
  setInterval(() => { standing(Date.now() - heard > QUIET_MS); ages(); refresh(); }, 500);
  document.addEventListener("visibilitychange", () => { due = true; });
  ages();
})();
