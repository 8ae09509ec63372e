// The edge as the page calls it. Errors carry the sentence that the server gave.

import { words } from "./words.js";

export class ApiError extends Error {
  constructor(body, status) {
    super(body?.error?.message ?? body?.detail ?? `HTTP ${status}`);
    this.code = body?.error?.code ?? "";
    this.status = status;
  }
}

// Not `localStorage.key`: that is a method of every Storage.
export const keys = {
  get: () => localStorage.getItem("api-key"),
  set: (key) => localStorage.setItem("api-key", key),
};

export async function call(path, options = {}) {
  const headers = new Headers(options.headers);
  if (keys.get()) headers.set("Authorization", `Bearer ${keys.get()}`);
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401) {
    const key = prompt(words("key"));
    if (key) {
      keys.set(key.trim());
      return call(path, options);
    }
  }
  if (!response.ok) {
    throw new ApiError(await response.json().catch(() => null), response.status);
  }
  return response;
}

export const json = async (path, options) => (await call(path, options)).json();

export const speech = (wish, signal) =>
  call("/v1/audio/speech", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(wish),
    signal,
  });
