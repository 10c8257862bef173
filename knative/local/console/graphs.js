// Drawing an inference graph: routers on the left, steps to the right, services with their live replicas.
import { h, milliseconds, s } from "./dom.js";
import { keyOf, median, stateOf } from "./services.js";

const BOX = { width: 236, height: 54, gapX: 290, gapY: 16 };
const CLASSES = { good: "awake", warn: "starting", bad: "failing", soft: "" };

/** One step's target: a nested node, or a service found by its URL or name. */
function targetOf(step, services) {
  if (step.nodeName) return { node: step.nodeName };
  const host = step.serviceUrl ? hostOf(step.serviceUrl) : `${step.serviceName ?? "?"}.default`;
  const [name, namespace = "default"] = host.split(".");
  const service = services.find((item) => item.name === name && item.namespace === namespace);
  return { service, name: service ? keyOf(service) : host };
}

function hostOf(url) {
  try { return new URL(url).hostname; } catch { return url; }
}

/** Words on the way to a step: its condition, weight, or place in the order. */
function labelOf(router, step, index) {
  const parts = [];
  if (router === "Sequence") parts.push(`${index + 1}.`);
  if (router === "Splitter") parts.push(`${step.weight ?? "?"} %`);
  if (step.condition) parts.push(`if ${step.condition}`);
  if (step.default) parts.push("otherwise");
  if (router === "Ensemble" && step.name) parts.push(step.name);
  return parts.join(" ");
}

/** A tree of what to draw; a node that contains itself is cut off. */
function tree(graph, name, services, above = []) {
  const node = graph.nodes?.[name] ?? {};
  const steps = above.includes(name) ? [] : node.steps ?? [];
  return {
    title: name, kind: node.routerType ?? "?",
    children: steps.map((step, index) => {
      const target = targetOf(step, services);
      const label = labelOf(node.routerType, step, index);
      return target.node ? { ...tree(graph, target.node, services, [...above, name]), label } : { ...target, label };
    }),
  };
}

/** Give every item x and y; returns the height used. */
function place(item, depth, top) {
  item.x = depth * (BOX.width + BOX.gapX);
  if (!item.children?.length) { item.y = top; return BOX.height + BOX.gapY; }
  let height = 0;
  for (const child of item.children) height += place(child, depth + 1, top + height);
  item.y = top + (height - BOX.gapY - BOX.height) / 2;
  return height;
}

const depthOf = (item) => 1 + Math.max(0, ...(item.children ?? []).map(depthOf));
const cut = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

export function drawGraph(service, services, requests) {
  const root = tree(service.graph, "root", services);
  const height = place(root, 0, 4);
  const width = depthOf(root) * (BOX.width + BOX.gapX) - BOX.gapX + 8;
  const parts = [];
  draw(root, parts, requests);
  return [
    s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `Graph ${service.name}; described as a list below` }, parts),
    h("details", {}, h("summary", {}, "As text"), h("ul", {}, describe(root, requests))),
  ];
}

function draw(item, parts, requests) {
  for (const child of item.children ?? []) {
    const [x1, y1, x2, y2] = [item.x + BOX.width, item.y + BOX.height / 2, child.x, child.y + BOX.height / 2];
    const middle = x1 + 60; // the line is level where its label stands
    parts.push(s("path", { class: "edge", d: `M${x1} ${y1} C${middle} ${y1} ${x1} ${y2} ${x1 + 90} ${y2} L${x2} ${y2}` }));
    if (child.label) parts.push(s("text", { class: "soft", x: x2 - 8, y: y2 - 7, "text-anchor": "end" }, s("title", {}, child.label), cut(child.label, 42)));
    draw(child, parts, requests);
  }
  const [title, below, kind] = words(item, requests);
  parts.push(
    s("rect", { class: `box ${kind}`, x: item.x + 2, y: item.y, width: BOX.width - 4, height: BOX.height, rx: 8 }),
    s("text", { x: item.x + 14, y: item.y + 22 }, s("title", {}, title), cut(title, 30)),
    s("text", { class: "soft", x: item.x + 14, y: item.y + 41 }, cut(below, 36)));
}

/** [title, second line, class] of a box. */
function words(item, requests) {
  if (item.children) return [item.title, item.kind, "router"];
  if (!item.service) return [item.name, "not a service of this engine", ""];
  const revision = item.service.revisions.find((held) => held.name === item.service.serving) ?? item.service.revisions[0];
  const [state, kind] = stateOf(revision);
  const latency = median(requests, keyOf(item.service));
  return [item.service.name, `${revision.ready}/${revision.desired} · ${state}${latency === undefined ? "" : ` · ${milliseconds(latency)}`}`, CLASSES[kind]];
}

function describe(item, requests) {
  const [title, below] = words(item, requests);
  return h("li", {}, `${item.label ? `${item.label} → ` : ""}${title}: ${below}`, item.children?.length ? h("ul", {}, item.children.map((child) => describe(child, requests))) : null);
}
