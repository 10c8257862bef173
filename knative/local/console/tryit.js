// The form that sends a request to a service.
import { milliseconds } from "./dom.js";
import { post } from "./api.js";
import { keyOf } from "./services.js";

const $ = (id) => document.getElementById(id);
let known = "";
let paths = new Map();

/** Where a service's requests usually go: a model server has a V1 predict path, a graph has /. */
function pathOf(service) {
  const model = service.labels["serving.kserve.io/inferenceservice"];
  return model && !service.graph ? `/v1/models/${model}:predict` : "/";
}

export function updateServices(services) {
  const order = [...services].sort((a, b) => Boolean(b.graph) - Boolean(a.graph) || keyOf(a).localeCompare(keyOf(b)));
  const text = order.map(keyOf).join();
  if (text === known) return;
  known = text;
  paths = new Map(order.map((service) => [keyOf(service), pathOf(service)]));
  const select = $("try-service");
  const before = select.value;
  select.replaceChildren(...order.map((service) => new Option(keyOf(service) + (service.graph ? " (graph)" : ""), keyOf(service))));
  if (paths.has(before)) select.value = before;
  else $("try-path").value = paths.get(select.value) ?? "/";
}

async function base64(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}

async function bodyOf() {
  const file = $("try-image").files[0];
  if (file) return JSON.stringify({ instances: [{ data: await base64(file) }] });
  const text = $("try-body").value;
  if (text.trim()) JSON.parse(text);
  return text;
}

async function send(event) {
  event.preventDefault();
  const state = $("try-state");
  const method = $("try-method").value;
  try {
    const body = method === "GET" ? "" : await bodyOf();
    state.textContent = "Waiting for the answer…";
    const answer = await post("invoke", { service: $("try-service").value, path: $("try-path").value, method, body });
    state.textContent = "";
    $("try-caption").textContent = `HTTP ${answer.status} in ${milliseconds(answer.took_ms)}`;
    $("try-caption").className = answer.status < 400 ? "good" : "bad";
    $("try-output").textContent = pretty(answer.body);
    $("try-answer").hidden = false;
  } catch (error) {
    state.textContent = error instanceof SyntaxError ? `The body is not JSON: ${error.message}` : error.message;
  }
}

function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}

export function start() {
  $("try-form").addEventListener("submit", send);
  $("try-service").addEventListener("change", (event) => { $("try-path").value = paths.get(event.target.value) ?? "/"; });
}
