// What goes wrong, told in the page's own words where it has some, else in the server's.

import { show, tell } from "./words.js";

const OWN = { unreachable: "unreachable", broken: "broken", text_too_long: "too-long" };

export class Failure extends Error {
  constructor(code, message = code) {
    super(message);
    this.code = code;
  }
}

export function complain(element, error, values = {}) {
  const own = OWN[error.code];
  if (own) tell(element, own, values);
  else show(element, error.message);
}
