// What this browser remembers of the page. Where it may not (private windows, blocked storage), the page does until it
// is closed.

const here = new Map();

export function recall(name) {
  if (here.has(name)) return here.get(name);
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

export function remember(name, value) {
  here.delete(name);
  try {
    localStorage.setItem(name, value);
  } catch {
    here.set(name, value);
  }
}
