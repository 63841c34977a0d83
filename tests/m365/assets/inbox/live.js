/**
 * Changes as they happen: server-sent events, made anew when the connection is lost. A page that nobody sees holds none,
 * since a browser allows only a few connections to one host.
 */

import { byId } from "./dom.js";

/** Pause before another attempt when the browser has given up, milliseconds. */
const AGAIN = 3000;

/**
 * Calls `changed` with the figures now and after each change.
 * @param {(figures: {newest: number, messages: number, violations: number, refusals: number, faults: number}) => void} changed
 */
export function listen(changed) {
  let source = null;
  let timer = 0;

  function close() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  function open() {
    close();
    source = new EventSource("events");
    source.addEventListener("open", () => show("Live"));
    source.addEventListener("change", (event) => changed(JSON.parse(event.data)));
    source.addEventListener("error", () => {
      show("Reconnecting");
      if (source?.readyState === EventSource.CLOSED) {
        timer = setTimeout(open, AGAIN);
      }
    });
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  open();
}

/** @param {string} state */
function show(state) {
  const status = byId("connection");
  if (status.textContent !== state) {
    status.textContent = state;
  }
}
