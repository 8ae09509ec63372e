// The API key, where the server wants one. It is asked for once, and taken as people paste it.

import { recall, remember } from "./storage.js";
import { words } from "./words.js";

// What may stand in a header and in a WebSocket's subprotocol alike.
const KEY = /^[\w.-]+$/;
const AROUND = /^["'“”‘’`\s]+|["'“”‘’`\s]+$/g;
let declined = false;

const plain = (pasted) => pasted.replace(AROUND, "").replace(/^bearer\s+/i, "").replace(AROUND, "");

export function key() {
  const kept = recall("api-key") ?? "";
  return KEY.test(kept) ? kept : "";
}

// Whether there is now another key than the one that was refused. Several requests may be refused at once: the first
// asks, the others find the answer. Who does not want to be asked is not, until the page is loaded again.
export function renewed(refused) {
  if (key() !== refused) return true;
  let question = words("key");
  while (!declined) {
    const pasted = prompt(question);
    if (pasted === null) {
      declined = true;
    } else if (KEY.test(plain(pasted))) {
      remember("api-key", plain(pasted));
      return true;
    }
    question = words("key-again");
  }
  return false;
}
