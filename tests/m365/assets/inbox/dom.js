/**
 * Making elements. Text is always set as text: there is no way here from a string to HTML.
 */

/**
 * @param {string} name of the element
 * @param {Record<string, unknown>} [attributes] `undefined`, `null` and `false` leave one out; `true` sets it empty
 * @param {...(Node | string)} children
 * @returns {HTMLElement}
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) {
      continue;
    }
    made.setAttribute(attribute, value === true ? "" : String(value));
  }
  made.append(...children);
  return made;
}

/** @param {string} id */
export const byId = (id) => document.getElementById(id);

/**
 * A button.
 * @param {string} text
 * @param {() => void} action
 * @param {string} [className]
 */
export function button(text, action, className) {
  const made = element("button", { type: "button", class: className }, text);
  made.addEventListener("click", action);
  return made;
}

/**
 * A list of names and values.
 * @param {[string, string | Node][]} rows those with an empty value are left out
 */
export function facts(rows) {
  const list = element("dl");
  for (const [name, value] of rows) {
    if (value !== "" && value !== undefined && value !== null) {
      list.append(element("dt", {}, name), element("dd", {}, value));
    }
  }
  return list;
}

/**
 * A part that a person opens.
 * @param {string} title
 * @param {...Node} children
 */
export const fold = (title, ...children) => element("details", {}, element("summary", {}, title), ...children);

/** Reads a text out to people who do not see the page. @param {string} text */
export function announce(text) {
  byId("announcer").textContent = text;
}

/**
 * A time as this computer's language writes it; today's without the date.
 * @param {string} text in RFC 3339
 */
export function time(text) {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) {
    return element("span", {}, text);
  }
  const isToday = at.toDateString() === new Date().toDateString();
  const shown = isToday ? at.toLocaleTimeString() : at.toLocaleString();
  return element("time", { datetime: text, title: text }, shown);
}

/** @param {number} octets */
export function size(octets) {
  if (octets < 1000) {
    return `${octets} bytes`;
  }
  return octets < 1e6 ? `${(octets / 1000).toFixed(1)} kB` : `${(octets / 1e6).toFixed(1)} MB`;
}

/** The services, as their names are written. */
const FACES = {
  submission: "Client submission",
  relay: "Port 25",
  highVolumeEmail: "High Volume Email",
  communicationServices: "Communication Services",
  graph: "Graph",
};

/** @param {string} face */
export const service = (face) => FACES[face] ?? face;

/**
 * Asks before something cannot be undone.
 * @param {string} question
 * @param {string} answer text of the button that agrees
 * @returns {Promise<boolean>}
 */
export function confirmed(question, answer) {
  const dialog = byId("confirm");
  byId("confirm-text").textContent = question;
  byId("confirm-yes").textContent = answer;
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "confirm"), { once: true });
  });
}
