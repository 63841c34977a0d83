/**
 * The list of messages: it follows what arrives, and keeps the focus where it is.
 */

import { deleteMessage, deleteMessages, listMessages } from "./api.js";
import { announce, byId, confirmed, element, service, time } from "./dom.js";

/** Messages that are shown at most, also after "Show older messages" many times. */
const MOST = 1000;

/** Pause after a letter before the search begins, milliseconds. */
const PAUSE = 200;

/** What is shown, newest first. @type {any[]} */
let shown = [];

/** Id of the newest message that was ever shown; what comes above it is announced. */
let newest = null;

/** Counts the requests, so that a late answer does not replace a newer one. */
let turn = 0;

/** The open message. @type {number | null} */
let open = null;

/** The message that was deleted last, and the one that has its place now. @type {{id: number, next?: number} | null} */
let deleted = null;

/** Shows the newest messages that the search finds. */
export async function refresh() {
  const mine = ++turn;
  const page = await listMessages(byId("search").value);
  if (mine !== turn) {
    return;
  }
  const last = page.messages.at(-1)?.id ?? Infinity;
  // Older ones stay that a person has asked for, unless everything was deleted.
  const older = page.more ? shown.filter((message) => message.id < last) : [];
  show([...page.messages, ...older], page.more && (older.length === 0 || !byId("older").hidden));
  tellNew(page.messages);
  tellEmpty(page.total);
}

async function showOlder() {
  const mine = ++turn;
  const page = await listMessages(byId("search").value, shown.at(-1)?.id);
  if (mine === turn) {
    show([...shown, ...page.messages].slice(0, MOST), page.more && shown.length + page.messages.length < MOST);
  }
}

/** @param {any[]} messages @param {boolean} more */
function show(messages, more) {
  shown = messages;
  const list = byId("messages");
  const known = new Map([...list.children].map((item) => [Number(item.dataset.id), item]));
  let before = null;
  for (const message of messages) {
    const item = known.get(message.id) ?? line(message);
    known.delete(message.id);
    const place = before ? before.nextSibling : list.firstChild;
    if (item !== place) {
      list.insertBefore(item, place);
    }
    before = item;
  }
  for (const gone of known.values()) {
    gone.remove();
  }
  byId("older").hidden = !more;
  byId("delete-all").disabled = messages.length === 0 && byId("search").value === "";
  mark(open);
}

/** A message's line, which is a link to it. */
function line(message) {
  const others = message.moreRecipients ? ` and ${message.moreRecipients} more` : "";
  const link = element(
    "a",
    { href: `#/messages/${message.id}` },
    element("span", { class: "from" }, message.from || "no sender"),
    element("span", { class: "time" }, time(message.receivedAt)),
    element("span", { class: "subject" }, message.subject || "no subject"),
    element("span", { class: "to" }, `to ${message.to}${others}`),
    element("span", { class: "face" }, service(message.face)),
  );
  return element("li", { "data-id": message.id }, link);
}

/** Announces what is above the newest message that was known. */
function tellNew(messages) {
  const added = newest === null ? [] : messages.filter((message) => message.id > newest);
  if (added.length === 1) {
    announce(`New message from ${added[0].from}: ${added[0].subject || "no subject"}`);
  } else if (added.length > 1) {
    announce(`${added.length} new messages`);
  }
  newest = Math.max(newest ?? 0, messages[0]?.id ?? 0);
}

/** @param {number} total messages that are stored */
function tellEmpty(total) {
  const empty = byId("empty");
  empty.hidden = shown.length > 0;
  empty.textContent = total > 0 ? "No message has these words." : "No message has arrived yet.";
}

/** Marks the open message in the list. @param {number | null} id */
export function mark(id) {
  open = id;
  for (const item of byId("messages").children) {
    const link = item.firstElementChild;
    if (Number(item.dataset.id) === id) {
      link.setAttribute("aria-current", "true");
    } else {
      link.removeAttribute("aria-current");
    }
  }
}

/** Focuses a message's line, or of a deleted one the line that has its place; without either the first. @param {number} id */
export function focus(id) {
  const wanted = deleted?.id === id ? deleted.next : id;
  const items = [...byId("messages").children];
  const item = items.find((item) => Number(item.dataset.id) === wanted) ?? items[0];
  (item?.firstElementChild ?? byId("search")).focus();
}

/** Deletes a message; the focus goes to the one that has its place in the list. @param {number} id */
export async function remove(id) {
  const at = shown.findIndex((message) => message.id === id);
  deleted = { id, next: (shown[at + 1] ?? shown[at - 1])?.id };
  await deleteMessage(id);
  shown = shown.filter((message) => message.id !== id);
  await refresh();
  announce("Message deleted");
  if (open === id) {
    location.hash = "#/messages";
  } else {
    focus(id);
  }
}

async function removeAll() {
  if (await confirmed("Delete all messages, also those that the search does not show?", "Delete all")) {
    await deleteMessages();
    location.hash = "#/messages";
    await refresh();
    announce("All messages deleted");
    byId("search").focus();
  }
}

/** Arrow keys, Home, End and Delete, while the focus is in the list. @param {KeyboardEvent} event */
function key(event) {
  const item = event.target.closest("li");
  if (!item || event.altKey || event.ctrlKey || event.metaKey) {
    return;
  }
  const list = byId("messages");
  const goal = {
    ArrowDown: item.nextElementSibling,
    ArrowUp: item.previousElementSibling,
    Home: list.firstElementChild,
    End: list.lastElementChild,
  }[event.key];
  if (goal) {
    event.preventDefault();
    goal.firstElementChild.focus();
  } else if (event.key === "Delete") {
    event.preventDefault();
    remove(Number(item.dataset.id)).catch((error) => announce(error.message));
  }
}

/** Prepares the list. */
export function start() {
  let timer = 0;
  byId("search").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      shown = [];
      refresh();
    }, PAUSE);
  });
  byId("search-form").addEventListener("submit", (event) => event.preventDefault());
  byId("messages").addEventListener("keydown", key);
  byId("older").addEventListener("click", showOlder);
  byId("delete-all").addEventListener("click", removeAll);
}
