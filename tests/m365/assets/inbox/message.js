/**
 * One message, as a person reads it. Its HTML is shown in a frame that runs nothing, loads nothing and follows no link.
 */

import { readMessage } from "./api.js";
import { announce, button, byId, element, facts, fold, service, size, time } from "./dom.js";
import * as list from "./list.js";

/** Counts the messages that were asked for, so that a late answer does not replace a newer one. */
let turn = 0;

/** Shows a message, or none. @param {number | null} id */
export async function show(id) {
  const mine = ++turn;
  const pane = byId("message-pane");
  byId("view-messages").classList.toggle("reading", id !== null);
  list.mark(id);
  if (id === null) {
    pane.replaceChildren(element("p", { class: "empty" }, "Select a message to read it."));
    return;
  }
  let message;
  try {
    message = await readMessage(id);
  } catch (error) {
    if (mine === turn) {
      const text = error.status === 404 ? "This message is no longer there." : error.message;
      pane.replaceChildren(back(), element("p", { class: "empty", role: "alert" }, text));
    }
    return;
  }
  if (mine === turn) {
    const title = element("h2", { id: "subject", tabindex: "-1" }, message.subject || "no subject");
    pane.replaceChildren(back(), article(message, title));
    title.focus();
  }
}

/** The way to the list, where only one of both is shown. */
function back() {
  return element("p", { class: "back" }, element("a", { href: "#/messages" }, "Back to the list"));
}

function article(message, title) {
  return element(
    "article",
    { "aria-labelledby": "subject" },
    title,
    facts([
      ["From", people(message.from)],
      ["To", people(message.to)],
      ["Cc", people(message.cc)],
      ["Reply to", people(message.replyTo)],
      ["Date", message.date ? time(message.date) : ""],
      ["Received", time(message.receivedAt)],
      ["Size", size(message.octets)],
    ]),
    actions(message),
    body(message),
    ...attachments(message),
    ...links(message),
    fold("Envelope", envelope(message)),
    fold(`Headers (${message.headers.length})`, facts(message.headers.map(({ name, value }) => [name, value || " "]))),
    fold("Access token", token(message.token)),
    fold("Connection", connection(message.connection)),
    fold("Dialogue", ...dialogue(message.dialogue)),
  );
}

function actions(message) {
  const failed = (error) => announce(error.message);
  const remove = button("Delete message", () => list.remove(message.id).catch(failed), "danger");
  const whole = element("a", { href: `messages/${message.id}/message.eml`, download: true }, "Download message");
  return element("div", { class: "actions" }, remove, whole);
}

/** The HTML or the text; where there are both, a person chooses. */
function body(message) {
  const frame = message.html ? htmlFrame(message.id) : null;
  const text = message.text === null ? null : element("pre", { id: "text" }, message.text);
  if (!frame && !text) {
    return element("p", { class: "note" }, "The message has no text.");
  }
  const box = element("div", { class: "body" }, frame ?? text);
  const parts = [box];
  if (message.textCut) {
    parts.push(element("p", { class: "note" }, "Only the beginning of the text is shown. Download the message for the rest."));
  }
  if (frame && text) {
    parts.unshift(choice([["HTML", frame], ["Text", text]], (part) => box.replaceChildren(part)));
  }
  return element("section", { "aria-label": "Body" }, ...parts);
}

/** The `sandbox` attribute is empty: no scripts, no forms, no popups, an origin of its own. */
function htmlFrame(id) {
  return element("iframe", {
    id: "html",
    title: "HTML of the message",
    sandbox: "",
    referrerpolicy: "no-referrer",
    src: `messages/${id}/html`,
  });
}

/** Radio buttons; the first is chosen. */
function choice(options, choose) {
  const group = element("fieldset", {}, element("legend", {}, "Show as"));
  options.forEach(([name, part], index) => {
    const input = element("input", { type: "radio", name: "show-as", checked: index === 0 });
    input.addEventListener("change", () => choose(part));
    group.append(element("label", {}, input, ` ${name}`));
  });
  return group;
}

function attachments(message) {
  if (message.attachments.length === 0) {
    return [];
  }
  const items = message.attachments.map((attachment, number) => {
    const address = `messages/${message.id}/attachments/${number}`;
    const link = element("a", { href: address, download: true }, attachment.name);
    return element("li", {}, link, ` ${attachment.kind} ${size(attachment.octets)}`);
  });
  return [element("h3", {}, "Attachments"), element("ul", { class: "plain", id: "attachments" }, ...items)];
}

/** Links of the message, which a person may follow in a new tab that knows nothing of this page. */
function links(message) {
  if (message.links.length === 0) {
    return [];
  }
  const items = message.links.filter(isWeb).map((address) => {
    const link = element("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, address);
    return element("li", {}, link);
  });
  return [fold(`Links (${items.length})`, element("ul", { class: "plain" }, ...items))];
}

/** @param {string} address */
function isWeb(address) {
  const url = URL.parse(address);
  return url !== null && (url.protocol === "http:" || url.protocol === "https:");
}

function envelope({ envelope, messageId }) {
  const recipient = ({ address, parameters }) => [address, ...(parameters ?? [])].join(" ");
  const attribution = envelope.attribution;
  return facts([
    ["Mailbox", envelope.mailbox],
    ["MAIL FROM", [envelope.mailFrom || "<>", ...envelope.mailParameters].join(" ")],
    ["RCPT TO", lines(envelope.recipients.map(recipient))],
    ["Message-ID", messageId],
    ["Sent Items", envelope.sentItems ? "a copy is there" : "no copy"],
    ["Attributed by", attribution ? [attribution.by, attribution.connector].filter(Boolean).join(", ") : ""],
    ["Tenant", attribution?.tenant ?? ""],
  ]);
}

/** The claims. The token itself is stored nowhere. */
function token(claims) {
  if (!claims.credential) {
    return element("p", {}, "No token: nobody logged in.");
  }
  const at = (seconds) => (seconds ? time(new Date(seconds * 1000).toISOString()) : "");
  return facts([
    ["Tenant", claims.tenant],
    ["Application", claims.clientId],
    ["Credential", claims.credential],
    ["Assertion by", claims.assertionIssuer],
    ["Subject", claims.assertionSubject],
    ["Issued", at(claims.issuedAt)],
    ["Expires", at(claims.expiresAt)],
  ]);
}

function connection(facts_) {
  return facts([
    ["Number", String(facts_.id)],
    ["Service", service(facts_.face)],
    ["Client", facts_.client],
    ["EHLO", facts_.ehlo],
    ["TLS", facts_.tlsVersion ?? "none"],
    ["Server name", facts_.sni ?? ""],
  ]);
}

/** What was said on the connection, also before and after this message. */
function dialogue(said) {
  if (!said) {
    return [element("p", {}, "The dialogue of this connection is no longer stored.")];
  }
  const marks = { client: "C: ", server: "S: ", event: "" };
  const items = said.lines.map(({ by, text }) => element("li", { class: by }, marks[by] + text));
  const parts = [element("ol", { class: "dialogue", id: "dialogue" }, ...items)];
  if (said.omitted > 0) {
    parts.unshift(element("p", { class: "note" }, `${said.omitted} earlier lines are no longer stored.`));
  }
  return parts;
}

/** @param {{name: string, address: string}[]} all */
function people(all) {
  return all.length === 0 ? "" : lines(all.map(({ name, address }) => (name ? `${name} <${address}>` : address)));
}

/** @param {string[]} texts */
const lines = (texts) => element("ul", { class: "plain" }, ...texts.map((text) => element("li", {}, text)));

