// What live asks for: a site's page in a tab behind, which takes over when the site is opened; and tabs let go.
// Each order is carried out once at most. What is warmed and not used goes by itself, also when live is gone.
import { report, send, siteOf } from "./visits.js";

const MOST_ADDRESSES = 300;
const CHECK_MS = 2000;
const EMPTY = ["", "about:blank", "chrome://newtab/", "chrome://new-tab-page/"];
const HOSTS = { origins: ["http://*/*", "https://*/*"] };

// In memory alone, gone with the browser: the address of each site that was in front last, to know what to load.
const session = (name, none) => chrome.storage.session.get(name).then((found) => found[name] ?? none);
let line = Promise.resolve();
function inTurn(what) {
  const done = line.then(what);
  line = done.catch(() => {});
  return done;
}
const change = (name, none, how) =>
  inTurn(async () => chrome.storage.session.set({ [name]: how(await session(name, none)) }));
const bare = (address) => (address ?? "").split("#")[0];

// What a tab begins and what it ends come in this order, however long either takes.
let tabsLine = Promise.resolve();
export function ofTab(what) {
  tabsLine = tabsLine.then(what).catch(() => {});
}

export function remember(site, address) {
  return change("addresses", {}, (known) => {
    const { [site]: _, ...rest } = known;
    return Object.fromEntries([...Object.entries(rest), [site, bare(address)]].slice(-MOST_ADDRESSES));
  });
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
  const tab = await chrome.tabs.create({ url: address, active: false });
  await chrome.tabs.update(tab.id, { muted: true });
  const one = { order: id, site, address, until, began: Date.now() };
  await change("warmed", {}, (all) => ({ ...all, [tab.id]: one }));
  const now = await chrome.tabs.get(tab.id);
  if (now.status === "complete" && now.url) await loaded({ tabId: tab.id, url: now.url, timeStamp: Date.now() });
  return null; // told when it is loaded
}

// A page has been loaded: in a tab behind, or where a warmed one stood behind it in the cache.
export async function loaded({ tabId, url, timeStamp }) {
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
  const same = [one.address, one.url].map(bare).includes(bare(url));
  await change("warmed", {}, ({ [behind]: _, ...rest }) => rest);
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
    await change("warmed", {}, ({ [id]: _, ...rest }) => rest);
    await close(Number(id));
  }
}

// Closes what was warmed for a site and not used; of its other tabs those that lose nothing are discarded.
async function letGo(site) {
  const came = { closed: 0, discarded: 0 };
  const stays = (why) => (came[why] = (came[why] ?? 0) + 1);
  const warmed = await session("warmed", {});
  for (const tab of await tabsOf(site)) {
    if (warmed[tab.id] && !tab.active) {
      await change("warmed", {}, ({ [tab.id]: _, ...rest }) => rest);
      await close(tab.id);
      came.closed += 1;
      continue;
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
    if (field.isContentEditable) return used && field.textContent.trim() !== "";
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
