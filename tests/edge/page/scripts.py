"""What the tests of the page run in it: it is looked at, watched, and made to fail as browsers do."""

from __future__ import annotations

TEXT = "The ferry leaves the northern harbour at nine. The last bus waits for everyone who missed it."
AT = """player => new Promise((heard) => {{
    player.ontimeupdate = () => player.currentTime > {} && heard(document.getElementById("said").textContent);
}})"""
"""An event that is waited for: the policy of the page lets nobody evaluate words, Playwright included."""
FULL = """
const append = SourceBuffer.prototype.appendBuffer;
let taken = 0;
SourceBuffer.prototype.appendBuffer = function (bytes) {
    if (taken++ >= 3) throw new DOMException("full", "QuotaExceededError");
    return append.call(this, bytes);
};"""
BREAKS_OFF = """
const real = window.fetch;
window.fetch = async (path, options) => {
    const response = await real(path, options);
    if (!String(path).endsWith("/speech")) return response;
    const reader = response.body.getReader();
    let given = 0;
    const body = new ReadableStream({ async pull(control) {
        const { value } = await reader.read();
        if (given++ < 4) control.enqueue(value);
        else control.error(new TypeError("network error"));
    } });
    return new Response(body, { headers: response.headers });
};"""
SAMPLES = """
delete window.MediaSource;
window.contexts = [];
window.AudioContext = class extends AudioContext {
    constructor(...given) {
        super(...given);
        contexts.push(this);
    }
};"""
NOTHING_KEPT = """
for (const name of ["localStorage", "indexedDB"])
    Object.defineProperty(window, name, { get() { throw new DOMException("denied", "SecurityError"); } });"""
FULL_ONCE = """
const open = IDBFactory.prototype.open;
let times = 0;
IDBFactory.prototype.open = function (...given) {
    if (times++ === 0) throw new DOMException("full", "QuotaExceededError");
    return open.apply(this, given);
};"""
MICROPHONES = """
window.tracks = [];
const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wish) => {
    const stream = await ask(wish);
    tracks.push(...stream.getTracks());
    return stream;
};"""
COPIES = """
window.copies = 0;
window.urls = new Set();
window.Blob = class extends Blob {
    constructor(...given) {
        super(...given);
        copies++;
    }
};
const { createObjectURL, revokeObjectURL } = URL;
URL.createObjectURL = (thing) => {
    const url = createObjectURL.call(URL, thing);
    urls.add(url);
    return url;
};
URL.revokeObjectURL = (url) => {
    urls.delete(url);
    revokeObjectURL.call(URL, url);
};"""
TWICE = "button => { button.click(); button.click(); }"
TEXTS = """() => {
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walk.nextNode()) found.push(walk.currentNode.data.trim());
    for (const element of document.querySelectorAll("[aria-label], [placeholder]"))
        found.push(element.getAttribute("aria-label") ?? "", element.getAttribute("placeholder") ?? "");
    return found.filter(Boolean);
}"""
CONTRASTS = """() => {
    const light = (colour) => {
        const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => {
            const is = part / 255;
            return is <= 0.04045 ? is / 12.92 : ((is + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    };
    const contrast = (one, other) => {
        const [dark, bright] = [light(one), light(other)].sort((a, b) => a - b);
        return (bright + 0.05) / (dark + 0.05);
    };
    const style = (id, part) => getComputedStyle(document.getElementById(id), part);
    const grounds = [getComputedStyle(document.body).backgroundColor, style("wish").backgroundColor];
    const edges = ["voice", "stop", "name", "consent", "drop", "record", "theme", "forget"];
    return [
        ...edges.flatMap((id) =>
            grounds.map((ground) => [id, 3, contrast(style(id).borderTopColor, ground)])),
        ["placeholder", 4.5, contrast(style("text", "::placeholder").color, grounds[1])],
    ];
}"""
