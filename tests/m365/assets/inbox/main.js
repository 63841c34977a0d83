/**
 * The page: which part is shown, and what happens when something changes. The part is in the address, behind `#`.
 */

import { announce, byId } from "./dom.js";
import * as faults from "./faults.js";
import * as list from "./list.js";
import { listen } from "./live.js";
import * as message from "./message.js";
import * as refusals from "./refusals.js";

const VIEWS = ["messages", "refusals", "faults"];

/** The part that is shown. */
let current = "";

/** The message that is shown. @type {number | null} */
let opened = null;

/** Shows what the address names. */
async function route() {
  const [, view, id] = /^#\/(\w+)(?:\/(\d+))?$/.exec(location.hash) ?? [];
  current = VIEWS.includes(view) ? view : "messages";
  for (const name of VIEWS) {
    byId(`view-${name}`).hidden = name !== current;
  }
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === current) {
      link.setAttribute("aria-current", "page");
    } else {
      link.removeAttribute("aria-current");
    }
  }
  if (current === "refusals") {
    await refusals.show();
  } else if (current === "faults") {
    await faults.show();
  } else {
    const before = opened;
    opened = id === undefined ? null : Number(id);
    await message.show(opened);
    if (opened === null && before !== null) {
      list.focus(before);
    }
  }
}

/** Shows the figures, and anew what they are of. */
async function changed(figures) {
  byId("count-messages").textContent = String(figures.messages);
  byId("count-violations").textContent = String(figures.violations);
  byId("count-faults").textContent = String(figures.faults);
  await list.refresh();
  if (current === "refusals") {
    await refusals.show();
  } else if (current === "faults") {
    await faults.show();
  }
}

/** A request that failed is told; the next change asks again. */
const told = (work) => (...values) => work(...values).catch((error) => announce(error.message));

list.start();
addEventListener("hashchange", told(route));
await told(route)();
listen(told(changed));
