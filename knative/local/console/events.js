// Events, deliveries that wait, and dead letters that can be sent again.
import { announce, h, table } from "./dom.js";
import { post } from "./api.js";

const attributes = (item) => item.event ?? item.attributes ?? item;

export function eventsView(events) {
  if (!events.brokers.length) return h("p", { class: "soft" }, "No broker in these manifests.");
  const stats = Object.entries(events.stats).map(([name, count]) => `${name} ${count}`).join(" · ") || "nothing yet";
  return [
    h("p", { class: "soft" }, `Brokers: ${events.brokers.join(", ")} · ${stats}`),
    section("Dead letters", events.dead, ["Event", "Trigger", "Why", ""], deadRow, events.dead.length > 1 ? replay("Replay all", null) : null),
    section("Pending", events.pending, ["Event", "Trigger", "Attempt"], (item) => [name(item), item.trigger ?? "", String(item.attempt ?? "")]),
    section("Recent", events.recent.slice(0, 20), ["Event", "Source", "Id"], (item) => [attributes(item).type ?? "?", attributes(item).source ?? "", attributes(item).id ?? ""]),
  ].flat();
}

function section(title, items, columns, cells, more = null) {
  return [
    h("h3", {}, `${title} (${items.length}) `, more),
    items.length ? h("div", { class: "scroll" }, table(title, columns.map((column) => [column]), items.map((item) => h("tr", {}, cells(item).map((cell) => h("td", { class: "text" }, cell)))))) : h("p", { class: "soft" }, "None."),
  ];
}

const name = (item) => `${attributes(item).type ?? "?"} ${attributes(item).id ?? ""}`;

function deadRow(item) {
  const why = item.failure ? Object.entries(item.failure).map(([key, value]) => `${key}: ${value}`).join(", ") : "";
  return [name(item), item.trigger ?? "", why, replay("Replay", item.id)];
}

function replay(label, id) {
  const send = async () => {
    try {
      announce(`${(await post("replay", { id })).replayed} sent again`);
    } catch (error) {
      announce(error.message);
    }
  };
  return h("button", { type: "button", class: "small", "data-key": `replay ${id}`, "aria-label": id === null ? label : `${label} dead letter ${id}`, click: send }, label);
}
