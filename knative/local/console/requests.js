// Recent requests with the path each took, and a waterfall of one of them.
import { clock, h, milliseconds, s, table } from "./dom.js";

const SEGMENTS = [
  ["queue", "waiting for a pod"], ["fetch", "fetching the model"], ["start", "starting the process"],
  ["load", "loading"], ["answer", "answering"],
];

/** Entries (requests from outside), newest first, each with the requests made for it. */
export function entries(requests) {
  const traces = new Map();
  for (const item of requests) {
    if (!traces.has(item.trace)) traces.set(item.trace, []);
    traces.get(item.trace).push(item);
  }
  return requests.filter((item) => item.entry).sort((a, b) => b.at - a.at).map((item) => ({
    ...item,
    steps: traces.get(item.trace).filter((other) => other.id !== item.id).sort((a, b) => a.at - b.at || a.id - b.id),
  }));
}

export function requestsTable(list, show) {
  if (!list.length) return h("p", { class: "soft" }, "No requests yet. Send one with the form above, or with ", h("code", {}, "turnout invoke"), ".");
  const rows = list.map((item) => h("tr", {},
    h("td", {}, clock(item.at)),
    h("td", { class: item.status >= 500 ? "bad" : item.status >= 400 ? "warn" : "good" }, item.status || "–"),
    h("td", { class: "number" }, milliseconds(item.total_ms)),
    h("td", { class: "text" }, h("span", { class: "path" }, [item, ...item.steps].map(chip))),
    h("td", { class: "text soft" }, item.error ?? ""),
    h("td", {}, h("button", { type: "button", class: "small", "data-key": `show ${item.id}`, "aria-label": `Timeline of request ${item.id} to ${item.service}`, click: () => show(item) }, "Timeline"))));
  return table("Recent requests", [["Time"], ["Status"], ["Took", "number"], ["Path"], ["Problem"], [""]], rows);
}

function chip(item) {
  const kind = `chip${item.cold ? " cold" : ""}${item.status >= 400 ? " failed" : ""}`;
  const name = item.service.replace(/^default\//, "");
  return h("span", { class: kind, title: `${item.method} ${item.path} → ${item.status} in ${milliseconds(item.total_ms)}${item.cold ? ", from zero" : ""}` }, name, item.cold ? h("span", { class: "hidden" }, " (from zero)") : null);
}

/** [kind, from, to] in ms from the arrival of the request itself. */
export function segments(item) {
  const found = [];
  const add = (kind, from, to) => { if (to > from) found.push([kind, Math.max(0, from), to]); };
  const total = item.total_ms ?? 0;
  if (!item.cold) {
    add("queue", 0, item.waited_ms);
    add("answer", item.waited_ms, total);
    return found;
  }
  const { created_ms: created, init_started_ms: init, init_ended_ms: fetched, started_ms: started, listening_ms: listening, ready_ms: ready } = item.cold;
  add("queue", 0, init ?? started ?? created ?? 0);
  if (init !== null) add("fetch", init, fetched ?? started ?? total);
  if (started !== null) {
    add("start", started, listening ?? ready ?? total);
    if (listening !== null && listening !== undefined) add("load", listening, ready ?? total);
  }
  add("answer", item.waited_ms, total);
  return found;
}

export function waterfall(entry, close) {
  const list = [entry, ...entry.steps];
  const end = Math.max(1, ...list.map((item) => (item.at - entry.at) * 1000 + (item.total_ms ?? 0)));
  const [left, width, line] = [230, 620, 26];
  const scale = (value) => left + (value / end) * width;
  const bars = list.flatMap((item, index) => {
    const offset = (item.at - entry.at) * 1000;
    const y = index * line + 8;
    return [
      s("text", { x: 0, y: y + 13 }, s("title", {}, item.service), item.service.replace(/^default\//, "").slice(0, 32)),
      ...segments(item).map(([kind, from, to]) => s("rect", { class: `seg-${kind}`, x: scale(offset + from), y, width: Math.max(1.5, scale(offset + to) - scale(offset + from)), height: 17, rx: 2 },
        s("title", {}, `${item.service}: ${SEGMENTS.find(([name]) => name === kind)[1]}, ${milliseconds(to - from)}`))),
      s("text", { class: "soft", x: Math.min(scale(offset + (item.total_ms ?? 0)) + 6, left + width + 6), y: y + 13 }, milliseconds(item.total_ms)),
    ];
  });
  const height = list.length * line + 30;
  const marks = [0, .25, .5, .75, 1].flatMap((part) => [
    s("line", { class: "grid", x1: scale(end * part), x2: scale(end * part), y1: 2, y2: height - 22 }),
    s("text", { class: "soft", x: scale(end * part), y: height - 6, "text-anchor": "middle" }, milliseconds(end * part)),
  ]);
  return [
    h("h3", {}, `Request ${entry.id}: ${entry.method} ${entry.service} `, h("button", { type: "button", class: "small", "data-key": "close", click: close }, "Close")),
    h("ul", { class: "legend" }, SEGMENTS.map(([kind, text]) => h("li", {}, h("i", { class: `seg-${kind}`, "aria-hidden": true }), text))),
    h("div", { class: "scroll" }, s("svg", { viewBox: `0 0 ${left + width + 80} ${height}`, width: left + width + 80, height, role: "img", "aria-label": "Timeline; the same numbers follow as a table" }, marks, bars)),
    h("details", {}, h("summary", {}, "As a table"), table("Timeline", [["Service"], ["Status"], ["Part"], ["From", "number"], ["Took", "number"]],
      list.flatMap((item) => segments(item).map(([kind, from, to]) => h("tr", {}, h("td", {}, item.service), h("td", {}, item.status), h("td", {}, SEGMENTS.find(([name]) => name === kind)[1]), h("td", { class: "number" }, milliseconds((item.at - entry.at) * 1000 + from)), h("td", { class: "number" }, milliseconds(to - from))))))),
  ];
}
