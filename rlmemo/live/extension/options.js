// The page on which the key is given, which says how things stand.
import { ask } from "./visits.js";

const HOSTS = { origins: ["http://*/*", "https://*/*"] };
const KEY = /^\d{1,5}:[\w-]{16,100}$/;
const at = (id) => document.getElementById(id);

async function show() {
  const { key, queue = [] } = await chrome.storage.local.get(["key", "queue"]);
  const about = key ? await ask("/v1/about", {}) : null;
  const { trouble } = await chrome.storage.session.get("trouble");
  const waits = queue.length ? ` ${queue.length} visits wait for it.` : "";
  at("standing").textContent = !key
    ? "Not paired: nothing is noted."
    : about
      ? `Paired; live ${about.paused ? "is paused" : "records"}, and acts on pages: ${about.acts ? "yes" : "no"}.`
      : trouble === "token"
        ? `Who listens there does not know this key: ask python -m rlmemo.live extension again.${waits}`
        : `Paired, and live does not answer: start it, python -m rlmemo.live start --source browser.${waits}`;
  const allowed = await chrome.permissions.contains(HOSTS);
  at("allow").textContent = allowed ? "Take back" : "Allow";
  at("allowed").textContent = allowed ? "Allowed." : "Not allowed: no tab is let go.";
}

document.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const key = at("key").value.trim();
  if (!KEY.test(key)) {
    at("standing").textContent = "That is no key: it is a number, a colon, and a token.";
    return;
  }
  await chrome.storage.local.set({ key });
  at("key").value = "";
  await show();
});
at("allow").addEventListener("click", async () => {
  if (await chrome.permissions.contains(HOSTS)) await chrome.permissions.remove(HOSTS);
  else await chrome.permissions.request(HOSTS);
  await show();
});
show();
