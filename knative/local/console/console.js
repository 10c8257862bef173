// The console: asks the engine once a second what is going on, and shows it.
import { h, refresh } from "./dom.js";
import { get } from "./api.js";
import { keyOf, servicesTable, summary } from "./services.js";
import { drawGraph } from "./graphs.js";
import { entries, requestsTable, waterfall } from "./requests.js";
import { eventsView } from "./events.js";
import * as tryit from "./tryit.js";

const $ = (id) => document.getElementById(id);
const POLL_MS = 1000;
const HIDDEN_POLL_MS = 10000;
let requests = [];

function showServices(status) {
  const facts = status.services.map((service) => ({ ...service, revisions: service.revisions.map((revision) => ({ ...revision, last_request: 0 })) }));
  refresh($("services-body"), [facts, requests[0]?.id], () => servicesTable(status.services, requests));
  $("engine").textContent = `Port ${status.engine.port} · ${summary(status.services)}`;
}

function showGraphs(status) {
  const graphs = status.services.filter((service) => service.graph?.nodes);
  const select = $("graph-select");
  refresh(select, graphs.map(keyOf), () => graphs.map((service) => new Option(keyOf(service), keyOf(service))));
  $("graph-choice").hidden = graphs.length < 2;
  const chosen = graphs.find((service) => keyOf(service) === select.value) ?? graphs[0];
  const facts = status.services.map((service) => [service.name, service.ready, service.desired, service.revisions.map((revision) => [revision.failure, revision.pending])]);
  refresh($("graphs-body"), [chosen?.graph, facts, requests[0]?.id], () =>
    chosen ? drawGraph(chosen, status.services, requests) : h("p", { class: "soft" }, "No graph in these manifests."));
}

function showRequests() {
  const list = entries(requests).slice(0, 30);
  refresh($("requests-body"), list.map((item) => [item.id, item.steps.length]), () => requestsTable(list, show));
}

function show(entry) {
  const box = $("waterfall");
  box.replaceChildren(...waterfall(entry, () => { box.hidden = true; }).flat());
  box.hidden = false;
  box.querySelector("[data-key=close]").focus();
}

async function poll() {
  try {
    const [status, recent, events] = await Promise.all([get("status"), get("requests?limit=300"), get("events?limit=50")]);
    requests = recent.requests;
    showServices(status);
    showGraphs(status);
    showRequests();
    tryit.updateServices(status.services);
    refresh($("events-body"), events, () => eventsView(events));
    document.body.dataset.loaded = "yes";
  } catch {
    $("engine").textContent = "The engine does not answer. Trying again…";
  }
  setTimeout(poll, document.hidden ? HIDDEN_POLL_MS : POLL_MS);
}

function theme() {
  const order = ["system", "light", "dark"];
  let current = "system";
  const set = (name) => {
    current = name;
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    $("theme").textContent = `Theme: ${name}`;
  };
  const stored = (action) => { try { return action(localStorage); } catch { return null; } };
  const saved = stored((storage) => storage.getItem("turnout-theme"));
  set(order.includes(saved) ? saved : "system");
  $("theme").addEventListener("click", () => {
    set(order[(order.indexOf(current) + 1) % order.length]);
    stored((storage) => storage.setItem("turnout-theme", current));
  });
}

theme();
tryit.start();
poll();
