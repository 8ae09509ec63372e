// The edge as the page calls it. Failures carry the sentence that the server gave.

import { Failure } from "./failure.js";
import { key, renewed } from "./keys.js";

export async function call(path, options = {}) {
  for (;;) {
    const used = key();
    const headers = new Headers(options.headers);
    if (used) headers.set("Authorization", `Bearer ${used}`);
    const response = await fetch(path, { ...options, headers }).catch((error) => {
      throw error.name === "AbortError" ? error : new Failure("unreachable");
    });
    if (response.ok) return response;
    if (response.status === 401 && renewed(used)) continue;
    const body = await response.json().catch(() => null);
    throw new Failure(body?.error?.code ?? "", body?.error?.message ?? body?.detail ?? `HTTP ${response.status}`);
  }
}

const broken = () => {
  throw new Failure("broken");
};

export const json = async (path, options) => (await call(path, options)).json().catch(broken);

export const blob = (response) => response.blob().catch(broken);

export const speech = (wish, signal) =>
  call("/v1/audio/speech", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(wish),
    signal,
  });
