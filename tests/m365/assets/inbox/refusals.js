/**
 * What the simulator refused, and why.
 */

import { deleteViolations, listRefusals } from "./api.js";
import { button, byId, element, time } from "./dom.js";

/** Shows both lists. */
export async function show() {
  const { total, violations, refused } = await listRefusals();
  const view = byId("view-refusals");
  const focused = document.activeElement?.id;
  const clear = button("Delete violations", async () => {
    await deleteViolations();
    await show();
    byId("violations-title").focus();
  });
  clear.id = "delete-violations";
  view.replaceChildren(
    element("h2", { id: "violations-title", tabindex: "-1" }, `Violations (${total})`),
    help("What Exchange would refuse, or what a careful client does not do. A client without faults has none."),
    entries("violations", violations, ({ at, connection, kind, detail }) => entry(kind, detail, at, connection)),
    element("div", { class: "actions" }, ...(total > 0 ? [clear] : [])),
    element("h2", {}, "Refused commands and requests"),
    help("Replies 4yz and 5yz of the newest connections, and token requests that failed."),
    entries("refused", refused, ({ at, connection, asked, reply }) => entry(asked || "Connection", reply, at, connection)),
  );
  byId(focused)?.focus();
}

const help = (text) => element("p", { class: "help" }, text);

function entries(id, all, make) {
  if (all.length === 0) {
    return element("p", { class: "empty", id }, "None.");
  }
  return element("ul", { class: "plain entries", id }, ...all.map(make));
}

function entry(title, detail, at, connection) {
  const where = connection > 0 ? `, connection ${connection}` : "";
  return element(
    "li",
    {},
    element("p", { class: "kind" }, title),
    element("p", {}, detail),
    element("p", { class: "note" }, time(at), where),
  );
}
