// The page works without this; this keeps it up to date, and spares it the reloads.
// The server alone makes HTML: when an event says that something has changed, it is asked for the page again. That is
// parsed into a document in which nothing runs, and what differs in it takes its place here.
"use strict";

const page = document;
const $ = (selector, from = page) => from.querySelector(selector);
const main = $("main");

// --- times ---------------------------------------------------------------------------------------------------

const skew = Date.now() / 1000 - main.dataset.now; // seconds by which this clock is ahead of the server's

function duration(seconds) { // as the server tells it
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds), two = number => String(Math.floor(number)).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(whole % 3600 / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole % 86400 / 3600)} h`;
}

function tick(from = page) {
  const now = Date.now() / 1000 - skew;
  for (const time of from.querySelectorAll("[data-since]")) {
    time.textContent = duration(Math.max(now - time.dataset.since, 0));
  }
  for (const time of from.querySelectorAll("[data-until]")) {
    const left = time.dataset.until - now;
    time.textContent = duration(Math.max(left, 0));
    if (left < -1 && stream && from === page) changed(); // the look was taken by now
  }
}

function localize(from) {
  const lang = page.documentElement.lang;
  const brief = new Intl.DateTimeFormat(lang, { month: "short", day: "numeric", hour: "numeric", minute: "2-digit" });
  const whole = new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "medium" });
  for (const time of from.querySelectorAll("time[datetime]")) {
    time.textContent = (time.closest("#rows") ? brief : whole).format(new Date(time.dateTime));
  }
}

// --- what differs takes its place ----------------------------------------------------------------------------

let draft = null; // the form for a new job, while a job stands in its place

function morph(old, fresh) {
  if (!old || !fresh || old.isEqualNode(fresh)) return;
  if (old.className !== fresh.className || !("parts" in old.dataset)) return old.replaceWith(fresh);
  const ids = new Set([...fresh.children].map(child => child.id));
  for (const child of [...old.children]) if (!ids.has(child.id)) child.remove();
  let next = old.firstElementChild;
  for (const child of [...fresh.children]) { // what stays is not moved, so that it keeps the focus
    if (next?.id === child.id) {
      const mine = next;
      next = next.nextElementSibling;
      morph(mine, child);
    } else {
      old.insertBefore(child, next);
    }
  }
}

function apply(fresh, kind) {
  tick(fresh);
  localize(fresh);
  for (const open of page.querySelectorAll("details[open]")) $(`#${open.id}`, fresh)?.setAttribute("open", "");
  const focused = page.activeElement.id;
  tell(fresh);
  Object.assign(main.dataset, $("main", fresh).dataset);
  draft = kind === "sent" ? null : $("#new") ?? draft;
  if (draft) $("#new", fresh)?.replaceWith(draft.isConnected ? draft.cloneNode(true) : draft); // what is written stays
  morph($("#top"), $("#top", fresh));
  if (kind) {
    morph($("#said"), $("#said", fresh));
    page.title = fresh.title;
    $("h1").textContent = $("h1", fresh).textContent;
    $("[hreflang]").href = $("[hreflang]", fresh).getAttribute("href");
    if (!$("#filter").contains(page.activeElement)) morph($("#filter"), $("#filter", fresh));
  }
  morph($("#rows"), $("#rows", fresh));
  morph($("#foot"), $("#foot", fresh));
  if (focused && page.activeElement === page.body) page.getElementById(focused)?.focus();
}

function tell(fresh) { // what has ended, to whom does not see it
  const ended = [...fresh.querySelectorAll("#rows [data-said]")].filter(row => {
    const known = row.dataset.said && page.getElementById(row.id);
    return known && known.dataset.status !== row.dataset.status;
  });
  if (ended.length) $("#news").textContent = ended.slice(0, 3).map(row => row.dataset.said).join(", ");
}

// --- going somewhere -----------------------------------------------------------------------------------------

let moves = 0;

async function load(url, kind = "", options = {}) {
  const turn = kind ? ++moves : moves;
  const answer = await fetch(url, options);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (answer.status === 401) location.reload();
  if (!$("#rows", fresh)) throw new Error("a proxy says that there is no server, say");
  $("#lost").hidden = true;
  if (turn === moves) apply(fresh, kind === "sent" && !answer.ok ? "moved" : kind); // else one has gone elsewhere
  return answer;
}

async function arrive(loading, was = main.dataset.job) {
  const answer = await loading;
  if (main.dataset.job !== was) ($("#d-title") ?? page.getElementById(`go-${was}`) ?? $("#list")).focus();
  return answer;
}

function go(url, how = "pushState") {
  history[how](null, "", url);
  return arrive(load(location.href, "moved")).catch(lost);
}

async function send(form, button) {
  if (form.ariaBusy) return; // a second click
  form.ariaBusy = "true";
  try {
    const body = new URLSearchParams(new FormData(form, button));
    const kind = form.id === "new" ? "sent" : "moved";
    const answer = await arrive(load(form.getAttribute("action"), kind, { method: "POST", body }));
    const url = new URL(answer.url);
    url.searchParams.delete("said"); // once
    if (answer.redirected) history.pushState(null, "", url);
    $("#message")?.scrollIntoView({ block: "nearest" });
  } catch {
    lost();
  } finally {
    form.ariaBusy = null;
  }
}

// --- keeping up to date --------------------------------------------------------------------------------------

let stream = null, isDue = false, catching = null;

function changed() { // many changes at once are one
  isDue = true;
  catching ??= catchUp().finally(() => { catching = null; });
}

async function catchUp() {
  const pause = milliseconds => new Promise(done => setTimeout(done, milliseconds));
  while (isDue) {
    await pause(100);
    isDue = false;
    const began = Date.now();
    await load(location.href).catch(lost);
    await pause(Math.max(900, 3 * (Date.now() - began))); // a slow server is asked rarely
  }
}

function leave() {
  stream?.close();
  stream = null;
}

function listen() {
  let failures = 0;
  leave();
  stream = new EventSource(`api/events?after=${main.dataset.position}`);
  for (const kind of ["job", "removed", "reset"]) stream.addEventListener(kind, changed);
  stream.onopen = () => { failures = 0; $("#lost").hidden = true; };
  stream.onerror = () => { // every stream ends, and is opened again by itself
    if (stream?.readyState === EventSource.CLOSED) lost();
    else if (++failures > 1) $("#lost").hidden = false;
  };
}

function lost() {
  leave();
  $("#lost").hidden = false;
  setTimeout(resume, 2000);
}

function resume() {
  if (!page.hidden && !stream) load(location.href).then(listen).catch(lost);
}

// --- what people do ------------------------------------------------------------------------------------------

async function copy(button) {
  const text = page.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(text.textContent);
  } catch { // only where the connection is secure
    getSelection().selectAllChildren(text);
    page.execCommand("copy");
  }
  const before = button.textContent;
  button.textContent = $("#news").textContent = page.body.dataset.copied;
  setTimeout(() => { button.textContent = before; $("#news").textContent = ""; }, 2000);
}

function find() {
  const wanted = new URLSearchParams(new FormData($("#filter")));
  for (const [name, value] of [...wanted]) if (!value) wanted.delete(name);
  go(`./?${wanted}`, "replaceState");
}

function start() {
  let typing;
  page.documentElement.classList.add("live");
  localize(page);
  setInterval(tick, 1000);
  listen();
  page.addEventListener("visibilitychange", () => page.hidden ? leave() : resume());
  addEventListener("popstate", () => arrive(load(location.href, "moved")).catch(lost));
  page.addEventListener("input", event => {
    if (!event.target.closest("#filter")) return;
    clearTimeout(typing);
    typing = setTimeout(find, 250);
  });
  page.addEventListener("submit", event => {
    event.preventDefault();
    if (event.target.id === "filter") find();
    else send(event.target, event.submitter);
  });
  page.addEventListener("click", event => {
    const button = event.target.closest("[data-copy]"), link = event.target.closest("a[href^='./']:not([hreflang])");
    if (button) copy(button);
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(link.getAttribute("href"));
  });
  page.addEventListener("keydown", event => {
    const open = $("details[open]");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.id === "question") {
      event.target.form.requestSubmit();
    } else if (event.key === "Escape" && open) {
      open.open = false;
      $("summary", open).focus();
    } else if (event.key === "Escape" && $("#back") && !event.target.closest("input, select")) {
      go($("#back").getAttribute("href"));
    }
  });
}

const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token !== null) history.replaceState(null, "", location.pathname + location.search); // no history keeps it
if ($("#rows")) {
  start();
} else if (token) {
  $("#token").value = token;
  $("form").submit();
}
