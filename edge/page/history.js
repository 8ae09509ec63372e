// What was spoken before, in this browser's IndexedDB: the wish, and the audio as it came.

const KEPT = 50;
let opening = null;

function open() {
  opening ??= new Promise((resolve, reject) => {
    const asked = indexedDB.open("voicebus", 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore("spoken", { keyPath: "id", autoIncrement: true });
    asked.onsuccess = () => {
      asked.result.onclose = () => (opening = null);
      resolve(asked.result);
    };
    asked.onerror = () => reject(asked.error);
  }).catch((error) => {
    // It may go better the next time.
    opening = null;
    throw error;
  });
  return opening;
}

// What was written is kept only when the transaction is through: a full disk shows no earlier.
async function within(mode, work) {
  const transaction = (await open()).transaction("spoken", mode);
  const asked = work(transaction.objectStore("spoken"));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(asked.result);
    transaction.onabort = transaction.onerror = () => reject(transaction.error ?? asked.error);
  });
}

export async function keep(entry) {
  await within("readwrite", (store) => store.add({ ...entry, at: Date.now() }));
  const ids = await within("readonly", (store) => store.getAllKeys());
  for (const id of ids.slice(0, Math.max(0, ids.length - KEPT))) await within("readwrite", (store) => store.delete(id));
}

export const all = async () => (await within("readonly", (store) => store.getAll())).reverse();
export const clear = () => within("readwrite", (store) => store.clear());
