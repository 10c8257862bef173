// The table of services, and what people can do to them.
import { announce, h, mebibytes, milliseconds, plural, table } from "./dom.js";
import { post } from "./api.js";

export const keyOf = (service) => `${service.namespace}/${service.name}`;

/** Median of a service's recent latencies, in ms, warm requests only; undefined without any. */
export function median(requests, key) {
  const found = requests.filter((item) => item.service === key && !item.cold && item.total_ms !== null).map((item) => item.total_ms).sort((a, b) => a - b);
  return found[Math.floor(found.length / 2)];
}

/** [words, class] for the state of a revision. */
export function stateOf(revision) {
  if (revision.pending) return [`Pending: ${revision.pending}`, "warn"];
  if (revision.failure) return [`Failing: ${revision.failure.message}`, "bad"];
  if (revision.desired === 0) return revision.pods.length ? ["Draining", "soft"] : ["Asleep", "soft"];
  if (revision.ready < revision.desired) return [revision.pods[0]?.state === "Init" ? "Fetching" : "Starting", "warn"];
  return [revision.panicking ? "Busy (panic mode)" : "Ready", "good"];
}

export function servicesTable(services, requests) {
  const rows = services.flatMap((service) => service.revisions.map((revision) => row(service, revision, requests)));
  if (!rows.length) return h("p", { class: "soft" }, "No services.");
  return table("Services and their replicas", [["Service"], ["Revision"], ["Replicas"], ["State"], ["Requests", "number"], ["Cold starts", "number"], ["Median", "number"], ["Memory", "number"], ["Actions"]], rows);
}

function row(service, revision, requests) {
  const key = keyOf(service);
  const [words, kind] = stateOf(revision);
  const memory = revision.pods.reduce((sum, pod) => sum + pod.memory_bytes, 0);
  const dots = "●".repeat(Math.min(revision.ready, 12)) + "○".repeat(Math.min(Math.max(revision.desired - revision.ready, 0), 12));
  const latest = revision.name === service.latest;
  return h("tr", {},
    h("td", {}, h("a", { href: service.url, title: service.cluster_url, "data-key": `link ${revision.name}` }, key)),
    h("td", { class: revision.reachable ? null : "soft" }, revision.name + (revision.reachable ? "" : " (old)")),
    h("td", { "aria-label": `${revision.ready} of ${revision.desired} ready` }, `${revision.ready}/${revision.desired} `, h("span", { class: `dots ${kind}`, "aria-hidden": true }, dots)),
    h("td", { class: `text ${kind}` }, words),
    h("td", { class: "number" }, revision.requests),
    h("td", { class: "number" }, revision.cold_starts),
    h("td", { class: "number" }, milliseconds(median(requests, key))),
    h("td", { class: "number" }, mebibytes(memory)),
    h("td", {}, latest ? actions(key, revision) : null));
}

function actions(key, revision) {
  const button = (label, name, body) =>
    h("button", { type: "button", class: "small", "data-key": `${name}${label} ${key}`, "aria-label": `${label} ${key}`, click: () => act(label, key, name, body) }, label);
  return h("span", { class: "row-actions" },
    revision.desired ? button("Sleep", "scale", { replicas: 0 }) : button("Wake", "scale", { replicas: 1 }), " ",
    revision.pinned ? button("Automatic", "scale", { replicas: null }) : null, " ",
    revision.pods.length ? button("Restart", "restart", {}) : null);
}

async function act(label, key, name, body) {
  try {
    await post(name, { service: key, ...body });
    announce(`${label} ${key}: done`);
  } catch (error) {
    announce(`${label} ${key}: ${error.message}`);
  }
}

export const summary = (services) => {
  const awake = services.filter((service) => service.desired > 0).length;
  return `${plural(services.length, "service")}, ${awake} awake`;
};
