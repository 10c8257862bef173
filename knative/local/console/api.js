// The engine's admin API. POSTs carry a header that foreign pages cannot send.

async function call(path, options) {
  const response = await fetch(`api/${path}`, options);
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error ?? `the engine answered ${response.status}`);
  return body;
}

export const get = (path) => call(path, { cache: "no-store" });
export const post = (path, body) =>
  call(path, { method: "POST", headers: { "X-Turnout": "1", "Content-Type": "application/json" }, body: JSON.stringify(body) });
