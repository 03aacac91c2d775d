// What live asks for: a site's page in a tab behind, which takes over when the site is opened; and tabs let go.
// Each order is carried out once at most. What is warmed and not used goes by itself, also when live is gone.
import { ask, report, send, siteOf } from "./visits.js";

const MOST_ADDRESSES = 300;
const CHECK_MS = 2000;
const OWN_WAYS = ["typed", "auto_bookmark"];
const EMPTY = ["", "about:blank", "chrome://newtab/", "chrome://new-tab-page/"];
const HOSTS = { origins: ["http://*/*", "https://*/*"] };

// In memory alone, gone with the browser: the address of each site that is to be loaded.
const session = (name, none) => chrome.storage.session.get(name).then((found) => found[name] ?? none);
let line = Promise.resolve();
let making = null; // a tab that is being made: it may have loaded, or failed to, before it is noted
function inTurn(what) {
  const done = line.then(what);
  line = done.catch(() => {});
  return done;
}
const change = (name, none, how) =>
  inTurn(async () => chrome.storage.session.set({ [name]: how(await session(name, none)) }));

// What a tab begins and what it ends come in this order, however long either takes.
let tabsLine = Promise.resolve();
export function ofTab(what) {
  tabsLine = tabsLine.then(what).catch(() => {});
}

// What is loaded of a site is where the person went by typing or by a bookmark, else its first page: never what a
// link led to, and nothing with a query, as a page could have made that up, and loading it might do something
// (log out, buy, confirm).
export async function arrived({ url, transitionType }) {
  const site = siteOf(url);
  if (!site || !(await chrome.storage.local.get("key")).key) return;
  const { origin, pathname, search } = new URL(url);
  const own = OWN_WAYS.includes(transitionType) && !search;
  await change("addresses", {}, (known) => {
    const { [site]: before, ...rest } = known;
    const address = own ? origin + pathname : (before ?? `${origin}/`);
    return Object.fromEntries([...Object.entries(rest), [site, address]].slice(-MOST_ADDRESSES));
  });
}

// A warmed tab, taken from those that are held; undefined where somebody was quicker.
async function take(tabId) {
  let one;
  await change("warmed", {}, ({ [tabId]: found, ...rest }) => ((one = found), rest));
  return one;
}

// A warmed tab that the person looks at is the person's: nobody closes it any more.
export async function lookedAt(tabId) {
  if (!(tabId in (await session("warmed", {})))) return;
  const one = await take(tabId);
  if (!one) return;
  await chrome.tabs.update(tabId, { muted: false }).catch(() => {});
  await report(one.order, { used: "tab" });
  send();
}

// What does not load takes over nothing.
export async function failed({ tabId, error }) {
  await making?.catch(() => {});
  if (error === "net::ERR_ABORTED" || !(tabId in (await session("warmed", {})))) return; // a page went on elsewhere
  const one = await take(tabId);
  if (!one) return;
  await close(tabId);
  await report(one.order, { failed: error });
  send();
}

// A tab that a page has opened may still be spoken to by it: it is never replaced.
export function startedByPage(tabId) {
  return change("byPage", [], (known) => [...known, tabId].slice(-MOST_ADDRESSES));
}

export async function carryOut(orders) {
  for (const order of orders) {
    const done = await session("carriedOut", []);
    if (done.includes(order.id)) continue;
    await change("carriedOut", [], (known) => [...known, order.id].slice(-MOST_ADDRESSES));
    let came;
    try {
      came = order.what === "load" ? await warm(order) : await letGo(order.site);
    } catch (error) {
      came = { failed: String(error.message ?? error).slice(0, 100) };
    }
    if (came) await report(order.id, came);
  }
}

async function tabsOf(site) {
  return (await chrome.tabs.query({})).filter((tab) => siteOf(tab.pendingUrl || tab.url) === site);
}

async function warm({ id, site, until }) {
  if ((await tabsOf(site)).some((tab) => !tab.discarded)) return { failed: "it is open" };
  const address = (await session("addresses", {}))[site] ?? `https://${site}/`;
  const one = { order: id, site, address, until, began: Date.now() };
  const make = async () => {
    const tab = await chrome.tabs.create({ url: address, active: false });
    await change("warmed", {}, (all) => ({ ...all, [tab.id]: one }));
    return tab;
  };
  const tab = await (making = make());
  await chrome.tabs.update(tab.id, { muted: true });
  stayInTouch();
  return null; // told when it is loaded
}

// As long as something is warmed, live is asked for word: it answers after a while, or when it stops. Where it was
// killed, nobody answers, and that is noticed as soon.
let inTouch = false;
export async function stayInTouch() {
  if (inTouch) return;
  inTouch = true;
  try {
    while (Object.keys(await session("warmed", {})).length) {
      const answer = await ask("/v1/wait", {});
      if (answer && !answer.ended) continue;
      await letGoOfLeft(false);
      return;
    }
  } finally {
    inTouch = false;
  }
}

// A page has been loaded: in a tab behind, or where a warmed one stood behind it in the cache.
export async function loaded({ tabId, url, timeStamp }) {
  await making?.catch(() => {});
  const one = (await session("warmed", {}))[tabId];
  if (one && !one.took_s) {
    const took_s = (timeStamp - one.began) / 1000;
    await change("warmed", {}, (all) => (all[tabId] ? { ...all, [tabId]: { ...one, took_s, url } } : all));
    await report(one.order, { took_s });
  }
  const by = (await session("opened", {}))[tabId];
  if (by) {
    await change("opened", {}, ({ [tabId]: _, ...rest }) => rest);
    const opened_s = (timeStamp - by.began) / 1000;
    if (siteOf(url) === by.site) await report(by.order, { used: "cache", opened_s });
  }
  if (one || by) send();
}

// The person opens an address: a warmed tab takes over an empty one, else its files are in the cache.
export async function opening({ tabId, url, timeStamp }) {
  const warmed = Object.entries(await session("warmed", {}));
  const site = siteOf(url);
  const [behind, one] = warmed.find(([id, x]) => x.site === site && Number(id) !== tabId) ?? [];
  if (!one) return;
  const [tab, byPage] = await Promise.all([chrome.tabs.get(tabId).catch(() => null), session("byPage", [])]);
  if (!tab?.active || tab.incognito) return;
  const same = [one.address, one.url].includes(url);
  if (!(await take(behind))) return;
  if (same && EMPTY.includes(tab.url) && !byPage.includes(tabId)) {
    await chrome.tabs.update(Number(behind), { active: true });
    const opened_s = (Date.now() - timeStamp) / 1000;
    await chrome.tabs.remove(tabId);
    await chrome.tabs.update(Number(behind), { muted: false });
    await chrome.tabs.move(Number(behind), { windowId: tab.windowId, index: tab.index }).catch(() => {});
    await report(one.order, { used: "tab", opened_s });
    send();
  } else {
    await change("opened", {}, (all) => ({ ...all, [tabId]: { order: one.order, site, began: timeStamp } }));
    await close(Number(behind));
  }
}

// A tab is closed, by whomever.
export async function forgetTab(tabId) {
  for (const name of ["warmed", "opened"]) await change(name, {}, ({ [tabId]: _, ...rest }) => rest);
}

async function close(tabId) {
  const tab = await chrome.tabs.get(tabId).catch(() => null);
  if (tab && !tab.active) await chrome.tabs.remove(tabId).catch(() => {});
  else if (tab) await chrome.tabs.update(tabId, { muted: false });
}

// Closes what was warmed and not used in time; all of it where live does not answer: it was stopped, or killed.
export async function letGoOfLeft(answered) {
  for (const [id, one] of Object.entries(await session("warmed", {}))) {
    if (answered && one.until > Date.now() / 1000) continue;
    if (await take(id)) await close(Number(id));
  }
}

// Closes what was warmed for a site and not used; of its other tabs those that lose nothing are discarded.
async function letGo(site) {
  const came = { closed: 0, discarded: 0 };
  const stays = (why) => (came[why] = (came[why] ?? 0) + 1);
  const warmed = await session("warmed", {});
  for (const tab of await tabsOf(site)) {
    if (warmed[tab.id] && !tab.active) {
      if (await take(tab.id)) {
        await close(tab.id);
        came.closed += 1;
        continue;
      }
    }
    const why = tab.discarded ? "discarded before" : await reasonToStay(tab);
    if (why) stays(why);
    else if (await chrome.tabs.discard(tab.id)) came.discarded += 1;
  }
  return came;
}

async function reasonToStay(tab) {
  if (tab.active) return "in front";
  if (tab.pinned) return "pinned";
  if (tab.audible) return "sound";
  if (!tab.autoDiscardable) return "not discardable";
  if (!(await chrome.permissions.contains(HOSTS))) return "not allowed";
  const slow = new Promise((done) => setTimeout(done, CHECK_MS, true));
  const typed = chrome.scripting
    .executeScript({ target: { tabId: tab.id, allFrames: true }, func: hasInput })
    .then((frames) => frames.some((frame) => frame.result !== false))
    .catch(() => true);
  if (await Promise.race([typed, slow])) return "input";
  const now = await chrome.tabs.get(tab.id); // it may have come to the front meanwhile
  return now.active ? "in front" : now.audible ? "sound" : "";
}

// Runs in the page: whether something may have been typed or chosen there that would be lost.
function hasInput() {
  const used = navigator.userActivation.hasBeenActive;
  const changed = (field) => {
    if (field.isContentEditable) return used; // also empty: some editors only catch the keys with it
    if (field.localName === "select") return [...field.options].some((x) => x.selected !== x.defaultSelected && used);
    if (["checkbox", "radio"].includes(field.type)) return field.checked !== field.defaultChecked;
    if (["hidden", "submit", "button", "reset", "image"].includes(field.type)) return false;
    return field.value !== field.defaultValue || (used && field.value !== "" && field.type !== "range");
  };
  const within = (root) =>
    [...root.querySelectorAll("*")].some((node) => {
      const field = ["input", "textarea", "select"].includes(node.localName) || node.isContentEditable;
      const inside = chrome.dom?.openOrClosedShadowRoot?.(node);
      return (field && changed(node)) || (inside && within(inside));
    });
  return within(document) || document.designMode === "on";
}
