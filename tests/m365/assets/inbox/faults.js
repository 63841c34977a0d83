/**
 * Common faults to switch on and off, and all that are on as the control API has them.
 */

import { clearFaults, listFaults, switchFault } from "./api.js";
import { announce, button, byId, element, fold } from "./dom.js";

/** Shows the switches; the focus stays on the one that has it. */
export async function show() {
  const { switches, others, faults } = await listFaults();
  const view = byId("view-faults");
  const focused = document.activeElement?.id;
  const wasOpen = view.querySelector("details")?.open;
  const all = fold("As the control API has them", element("pre", {}, JSON.stringify(faults, null, 2)));
  all.open = Boolean(wasOpen);
  const off = button("Switch all off", () => allOff().catch((error) => announce(error.message)));
  off.id = "all-off";
  const groups = Map.groupBy(switches, (one) => one.service);
  view.replaceChildren(
    element("h2", {}, "Faults"),
    element("p", { class: "help" }, "What is switched on happens until it is switched off. Nothing of it is stored."),
    element("div", { class: "actions" }, off),
    ...[...groups].map(([service, members]) => group(service, members)),
    element("p", { class: "note" }, others ? "Faults without a switch are on too; the control API set them." : ""),
    all,
  );
  byId(focused)?.focus();
}

function group(service, members) {
  return element(
    "section",
    { class: "faults", "aria-label": service },
    element("h3", {}, service),
    ...members.map(toggle),
  );
}

function toggle({ id, title, effect, on }) {
  const input = element("input", { type: "checkbox", role: "switch", id: `fault-${id}`, checked: on });
  input.addEventListener("change", async () => {
    try {
      await switchFault(id, input.checked);
      announce(`${title}: ${input.checked ? "on" : "off"}`);
    } catch (error) {
      input.checked = !input.checked;
      announce(error.message);
    }
  });
  return element("label", {}, input, element("span", {}, title), element("span", { class: "effect" }, effect));
}

async function allOff() {
  await clearFaults();
  announce("All faults are off");
  await show();
}
