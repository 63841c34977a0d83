/**
 * The requests that the page makes. Addresses are relative to the page, which may be behind a proxy that adds a path.
 */

/** A request that was refused, or not answered. */
export class RequestError extends Error {
  /** @param {string} message @param {number} status 0 when there was no answer */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/**
 * @param {string} method
 * @param {string} address
 * @param {object} [body] sent as JSON
 * @returns {Promise<any>} the JSON of the answer; `null` when it has none
 */
async function request(method, address, body) {
  const options = { method };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers = { "Content-Type": "application/json" };
  }
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new RequestError("The simulator does not answer.", 0);
  }
  if (!response.ok) {
    throw new RequestError(`The simulator answered ${response.status}.`, response.status);
  }
  return response.status === 204 ? null : response.json();
}

/** @param {string} search @param {number} [before] only messages with a smaller id */
export function listMessages(search, before) {
  const query = new URLSearchParams({ search });
  if (before !== undefined) {
    query.set("before", String(before));
  }
  return request("GET", `messages?${query}`);
}

/** @param {number} id */
export const readMessage = (id) => request("GET", `messages/${id}`);

/** @param {number} id */
export const deleteMessage = (id) => request("DELETE", `../messages/${id}`);

export const deleteMessages = () => request("DELETE", "../messages");

export const listRefusals = () => request("GET", "refusals");

export const deleteViolations = () => request("DELETE", "../violations");

export const listFaults = () => request("GET", "faults");

/** @param {string} id @param {boolean} on */
export const switchFault = (id, on) => request("PUT", `faults/${id}`, { on });

export const clearFaults = () => request("DELETE", "../faults");
