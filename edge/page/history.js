// What was spoken before, in this browser's IndexedDB: the wish, and the audio as it came.

const KEPT = 50;
let opening = null;

function open() {
  opening ??= new Promise((resolve, reject) => {
    const asked = indexedDB.open("voicebus", 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore("spoken", { keyPath: "id", autoIncrement: true });
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
  return opening;
}

async function within(mode, work) {
  const store = (await open()).transaction("spoken", mode).objectStore("spoken");
  const asked = work(store);
  return new Promise((resolve, reject) => {
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
}

export async function keep(entry) {
  await within("readwrite", (store) => store.add({ ...entry, at: Date.now() }));
  const keys = await within("readonly", (store) => store.getAllKeys());
  for (const key of keys.slice(0, Math.max(0, keys.length - KEPT))) await within("readwrite", (store) => store.delete(key));
}

export const all = async () => (await within("readonly", (store) => store.getAll())).reverse();
export const forget = (id) => within("readwrite", (store) => store.delete(id));
export const clear = () => within("readwrite", (store) => store.clear());
