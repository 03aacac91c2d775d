// Which site came to the front, with its time: noted in chrome.storage first, sent then, and forgotten when live
// has written it down. A site is the host of a page; nothing else of the page is kept or sent.
import { carryOut } from "./pages.js";

const MOST_KEPT = 10000;
const MOST_SENT = 100;
const ANSWER_MS = 8000;

let line = Promise.resolve();
let sending = null;
let wanted = false;

// One change of the storage after the other: two events at once must not write over each other.
export function inTurn(what) {
  const done = line.then(what);
  line = done.catch(() => {});
  return done;
}

export function siteOf(address) {
  try {
    const url = new URL(address);
    return ["http:", "https:"].includes(url.protocol) ? url.host : "";
  } catch {
    return "";
  }
}

// A tab whose address has changed; it counts where its window is in front.
export async function note(tab) {
  const at = Date.now();
  await inTurn(async () => {
    const front = await chrome.windows.get(tab.windowId).catch(() => null);
    if (front?.focused && !tab.incognito) await write(tab.url, at);
  });
  await send();
}

export async function noteFront() {
  const at = Date.now();
  await inTurn(async () => write((await inFront())?.url ?? "", at));
  await send();
}

// The tab that one looks at; none where another program, or a private window, is in front.
async function inFront() {
  const front = await chrome.windows.getLastFocused().catch(() => null);
  if (!front?.focused || front.incognito) return null;
  const [tab] = await chrome.tabs.query({ active: true, windowId: front.id });
  return tab ?? null;
}

// Before a key was given, nothing is noted.
async function write(address, at) {
  const site = siteOf(address);
  const { key, last = "", queue = [] } = await chrome.storage.local.get(["key", "last", "queue"]);
  if (!key) return;
  if (site === last) return;
  queue.push({ id: crypto.randomUUID(), t: at / 1000, site });
  await chrome.storage.local.set({ last: site, queue: queue.slice(-MOST_KEPT) });
}

// A new browser, or another server: what is in front is told again.
export async function startAnew() {
  await inTurn(() => chrome.storage.local.remove("last"));
  await noteFront();
}

// Keeps word of what an order came to, until live has it.
export function report(order, came) {
  return inTurn(async () => {
    const { reports = [] } = await chrome.storage.local.get("reports");
    reports.push({ id: crypto.randomUUID(), order, came });
    await chrome.storage.local.set({ reports: reports.slice(-MOST_SENT) });
  });
}

// Sends what is noted until nothing is left; whether live answered. One at a time: what is noted meanwhile is
// looked for once more before it ends.
export function send() {
  wanted = true;
  sending ??= sendWanted();
  return sending;
}

async function sendWanted() {
  try {
    let answered = false;
    while (wanted) {
      wanted = false;
      answered = await sendAll();
    }
    return answered;
  } finally {
    sending = null; // at once, so that nobody waits for one that has ended
  }
}

async function sendAll() {
  for (;;) {
    const { queue = [], reports = [] } = await chrome.storage.local.get(["queue", "reports"]);
    if (!queue.length && !reports.length) return true;
    if (!(await post(queue.slice(0, MOST_SENT), reports))) return false;
  }
}

// Says that the browser is there, whether or not there is something to tell; whether live answered.
export async function beat() {
  const { key, queue = [], reports = [] } = await chrome.storage.local.get(["key", "queue", "reports"]);
  if (!key) return false;
  return queue.length || reports.length ? send() : post([], []);
}

async function post(visits, reports) {
  const answer = await ask("/v1/browser", { visits, reports });
  if (!answer) return false;
  const gone = new Set([...visits, ...reports].map((one) => one.id));
  await inTurn(async () => {
    const kept = await chrome.storage.local.get(["queue", "reports"]);
    const left = (list = []) => list.filter((one) => !gone.has(one.id));
    await chrome.storage.local.set({ queue: left(kept.queue), reports: left(kept.reports) });
  });
  if (answer.due_s != null) chrome.alarms.create("due", { when: Date.now() + 1000 * answer.due_s });
  if (answer.orders?.length) carryOut(answer.orders).then(send);
  return true;
}

// What live answers; null where it is away, refuses, or is somebody else (options.html says which).
export async function ask(path, body) {
  const { key = "" } = await chrome.storage.local.get("key");
  const [port, token] = key.split(":");
  if (!token) return null;
  let trouble = "away";
  try {
    if (!(await isLive(port, token))) {
      trouble = "token";
      return null;
    }
    const answer = await told(port, path, body, { Authorization: `Bearer ${token}` });
    trouble = answer.ok ? "" : answer.status === 401 ? "token" : `status ${answer.status}`;
    if (answer.ok) return await answer.json();
  } catch {
    // away: the alarm tries again
  } finally {
    await chrome.storage.session.set({ trouble });
  }
  return null;
}

function told(port, path, body, headers) {
  return fetch(`http://127.0.0.1:${port}${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify(body),
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
    signal: AbortSignal.timeout(ANSWER_MS),
  });
}

// Whether who listens there knows the token, too; nothing is said to anybody else.
async function isLive(port, token) {
  const nonce = crypto.randomUUID();
  const answer = await told(port, "/v1/hello", { nonce }, {});
  const bytes = (text) => new TextEncoder().encode(text);
  const hmac = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", bytes(token), hmac, false, ["verify"]);
  const { proof = "" } = await answer.json();
  const said = Uint8Array.from(String(proof).match(/[0-9a-f]{2}/g) ?? [], (x) => parseInt(x, 16));
  return crypto.subtle.verify("HMAC", key, said, bytes(`${port} ${nonce}`));
}
