// Chromium ends an idle worker after 30 s and starts it anew for an event. So the listeners stand here, at the
// top, once; what must outlive the worker lies in chrome.storage; an alarm asks for a server that came later.
import { beat, note, noteFront, startAnew } from "./visits.js";
import { arrived, failed, forgetTab, letGoOfLeft, loaded, lookedAt, ofTab, opening, startedByPage } from "./pages.js";
import { stayInTouch } from "./pages.js";

const BEAT = "beat";

chrome.tabs.onActivated.addListener(({ tabId }) => {
  noteFront();
  lookedAt(tabId);
});
chrome.tabs.onUpdated.addListener((id, change, tab) => {
  if (change.url && tab.active) note(tab);
});
chrome.tabs.onRemoved.addListener((tabId) => {
  forgetTab(tabId);
  noteFront();
});
chrome.windows.onFocusChanged.addListener(() => noteFront());

const inTab = (where) => where.frameId === 0 && where.documentLifecycle !== "prerender";
chrome.webNavigation.onCreatedNavigationTarget.addListener((made) => startedByPage(made.tabId));
chrome.webNavigation.onBeforeNavigate.addListener((where) => inTab(where) && ofTab(() => opening(where)));
chrome.webNavigation.onCommitted.addListener((where) => inTab(where) && arrived(where));
chrome.webNavigation.onErrorOccurred.addListener((where) => inTab(where) && ofTab(() => failed(where)));
chrome.webNavigation.onCompleted.addListener((where) => inTab(where) && ofTab(() => loaded(where)));

chrome.alarms.onAlarm.addListener(async () => {
  await noteFront();
  await letGoOfLeft(await beat());
  stayInTouch();
});
chrome.runtime.onStartup.addListener(() => startAnew());
chrome.runtime.onInstalled.addListener(() => noteFront());
chrome.storage.onChanged.addListener((change, area) => {
  if (area === "local" && change.key) startAnew();
});

chrome.storage.local.setAccessLevel({ accessLevel: "TRUSTED_CONTEXTS" });
chrome.alarms.get(BEAT).then((there) => there || chrome.alarms.create(BEAT, { periodInMinutes: 0.5 }));
noteFront(); // what came to the front while the worker was being ended
