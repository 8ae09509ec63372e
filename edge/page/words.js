// The page in two languages. A text without an entry stays as the document has it.

const ZH = {
  pulse: "节点 {workers} · 排队 {waiting}", placeholder: "输入要朗读的文字。", skip: "跳到文本", views: "视图", speak: "朗读", voices: "音色", live: "工作节点", history: "历史", docs: "接口",
  dark: "深色", text: "文本", voice: "音色", engine: "引擎", speed: "语速", say: "朗读", stop: "停止",
  rate: "每秒任务数", hear: "试听", "speech-begun": "开始朗读：{voice}，{worker}", "speech-done": "朗读完成：{seconds} 秒，{worker}",
  "speech-failed": "朗读失败", "speech-cancelled": "朗读已取消，{worker}", "job-running": "任务 {id}：{done} / {total}",
  "job-done": "任务 {id} 完成：{total} 行", "job-failed": "任务 {id} 失败", "job-cancelled": "任务 {id} 已取消",
  keys: "Ctrl+Enter 朗读，Esc 停止", waveform: "波形", format: "格式", download: "下载", add: "添加音色",
  "add-hint": "一个人说话的录音，六到二十秒，没有音乐。", drop: "把录音拖到这里，或点击选择", record: "录音",
  "record-stop": "停止录音", level: "音量", name: "名称", who: "这是谁的声音？本人如何同意的？",
  agreed: "说话人已同意克隆此声音。", keep: "保存音色", worker: "节点", state: "状态", busy: "忙碌", warm: "内存中的音色",
  events: "动态", "history-hint": "只保存在此浏览器中。", forget: "全部删除", again: "再读一次", remove: "删除",
  "any-engine": "默认", speaking: "正在合成…", done: "完成：{seconds} 秒，{engine}，首音 {first} 毫秒",
  kept: "已保存音色“{name}”", stopped: "已停止", connected: "实时", lost: "连接断开，正在重连…",
  came: "{name} 已加入", went: "{name} 已离开", waiting: "排队", running: "进行中", finished: "已完成", workers: "节点数",
  "no-mic": "无法使用麦克风：{why}", "confirm-remove": "删除音色“{name}”？", key: "此服务器需要 API 密钥：",
};

const EN = {
  pulse: "workers {workers} · waiting {waiting}",
  "record-stop": "Stop recording", again: "Say again", remove: "Remove", "any-engine": "the usual one", speaking: "Speaking…",
  done: "Done: {seconds} s by {engine}, first heard after {first} ms", kept: "The voice “{name}” is kept", stopped: "Stopped",
  connected: "live", lost: "The connection is lost; trying again…", came: "{name} has come", went: "{name} has gone",
  waiting: "waiting", running: "running", finished: "done", workers: "workers", "no-mic": "No microphone: {why}",
  rate: "jobs a second", hear: "Hear it", "speech-begun": "speech begun by {worker}", "speech-done": "{seconds} s of speech by {worker}",
  "speech-failed": "speech failed", "speech-cancelled": "speech cancelled at {worker}", "job-running": "job {id}: {done} of {total}",
  "job-done": "job {id} done: {total} lines", "job-failed": "job {id} failed", "job-cancelled": "job {id} cancelled",
  "confirm-remove": "Remove the voice “{name}”?", key: "This server wants an API key:",
};

let chosen = localStorage.language ?? (navigator.language.startsWith("zh") ? "zh" : "en");

export const language = () => chosen;

export function words(name, values = {}) {
  const text = (chosen === "zh" ? ZH[name] : undefined) ?? EN[name] ?? ZH[name] ?? name;
  return text.replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
}

export function choose(next) {
  chosen = next;
  localStorage.language = next;
  apply();
}

export function apply(root = document) {
  document.documentElement.lang = chosen === "zh" ? "zh-CN" : "en";
  for (const element of root.querySelectorAll("[data-words]")) {
    element.dataset.original ??= element.textContent;
    element.textContent = (chosen === "zh" && ZH[element.dataset.words]) || element.dataset.original;
  }
  for (const element of root.querySelectorAll("[data-words-placeholder]")) {
    element.dataset.originalPlaceholder ??= element.placeholder;
    element.placeholder = (chosen === "zh" && ZH[element.dataset.wordsPlaceholder]) || element.dataset.originalPlaceholder;
  }
  for (const element of root.querySelectorAll("[data-words-label]")) {
    element.dataset.originalLabel ??= element.getAttribute("aria-label") ?? EN[element.dataset.wordsLabel] ?? element.dataset.wordsLabel;
    element.setAttribute("aria-label", (chosen === "zh" && ZH[element.dataset.wordsLabel]) || element.dataset.originalLabel);
  }
}
