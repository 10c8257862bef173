// Building and refreshing page content. Text always becomes text nodes: nothing a service says is markup.

/** An element: h("td", {class: "number"}, "5"). Functions are event listeners; null children are left out. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const shown = new WeakMap();

/** Replace a container's content when its data has changed; the focused control (by data-key) keeps the focus. */
export function refresh(container, data, build) {
  const text = JSON.stringify(data);
  if (shown.get(container) === text) return;
  shown.set(container, text);
  const focused = container.contains(document.activeElement) ? document.activeElement.dataset?.key : undefined;
  container.replaceChildren(...[build()].flat());
  if (focused) container.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

/** A table with a caption for screen readers. Columns: [title, class]. */
export function table(caption, columns, rows) {
  return h("table", {},
    h("caption", { class: "hidden" }, caption),
    h("thead", {}, h("tr", {}, columns.map(([title, kind]) => h("th", { scope: "col", class: kind }, title)))),
    h("tbody", {}, rows));
}

export const milliseconds = (value) =>
  value === null || value === undefined ? "–" : value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
export const mebibytes = (bytes) => (bytes ? `${Math.round(bytes / 2 ** 20)} MiB` : "–");
export const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString();
export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

/** Say something to people who cannot see the change. */
export function announce(text) {
  document.getElementById("announce").textContent = text;
}
