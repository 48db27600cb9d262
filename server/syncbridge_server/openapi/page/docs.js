/* The page at /docs: lists the operations of /openapi.json and sends requests; speaks with /ws.
   All text goes in through textContent, so that nothing in the description or in an answer can
   become markup. The token stays in its field. */
"use strict";

const DEEPEST = 6;
const HEARD = 200;
let api = null;

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/* Text of any width; who has no mouse scrolls it by keys. */
function readable(text = "", attributes = {}) {
  return element("pre", { tabindex: "0", ...attributes }, text);
}

/* Follow a reference inside of a document. */
function resolve(schema, root = api) {
  if (!schema || !schema.$ref) return schema || {};
  return resolve(schema.$ref.slice(2).split("/").reduce((at, part) => at[part], root), root);
}

/* A value that fits a schema. `every`: with the members that may be left out. */
function example(schema, root = api, every = false, depth = 0) {
  const found = resolve(schema, root);
  if ("const" in found) return found.const;
  if (found.examples) return found.examples[0];
  if ("default" in found && !every) return found.default;
  if (found.enum) return found.enum[0];
  const choice = (found.anyOf || found.oneOf || []).find((one) => one.type !== "null");
  if (choice) return example(choice, root, every, depth + 1);
  switch ([found.type].flat()[0]) {
    case "object": return members(found, root, every, depth);
    case "array": return every && depth < DEEPEST ? [example(found.items, root, every, depth + 1)] : [];
    case "integer": case "number": return found.minimum || 0;
    case "boolean": return false;
    case "null": return null;
    case "string": return text(found);
    default: return {};
  }
}

function text(schema) {
  if (schema.format === "uuid") return uuid();
  if (schema.format === "date-time") return new Date().toISOString();
  return "string";
}

/* RFC 9562, version 4; crypto.randomUUID is not there on pages without TLS. */
function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 15) | 64;
  bytes[8] = (bytes[8] & 63) | 128;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

function members(schema, root, every, depth) {
  const out = {};
  if (depth > DEEPEST) return out;
  const names = every ? Object.keys(schema.properties || {}) : schema.required || [];
  for (const name of names) out[name] = example(schema.properties[name], root, every, depth + 1);
  return out;
}

function describeType(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split(/[/.]/).pop();
  if (schema.anyOf) return schema.anyOf.map(describeType).join(" or ");
  if (schema.type === "array") return "list of " + describeType(schema.items);
  return [schema.format || schema.type || "any"].flat().join(" or ");
}

const BOUNDS = { minimum: "≥ ", maximum: "≤ ", minLength: "length ≥ ", maxLength: "length ≤ ",
  minItems: "items ≥ ", maxItems: "items ≤ ", pattern: "matches ", default: "default ", const: "always " };

/* What a value may be: the values of an enumeration, bounds, the default. */
function limits(schema) {
  const told = Object.entries(BOUNDS).filter(([name]) => schema[name] !== undefined)
    .map(([name, words]) => words + JSON.stringify(schema[name]));
  if (schema.enum) told.unshift("one of " + schema.enum.map((one) => JSON.stringify(one)).join(", "));
  if (schema.additionalProperties === false) told.push("no other members");
  return told.join("; ");
}

/* The schema of an object that is in a schema: itself, an item of a list, one of a choice. */
function objects(schema, root, at = "") {
  const found = resolve(schema, root);
  if (found.properties) return [[at, found]];
  if (found.items) return objects(found.items, root, at + "[]");
  return (found.anyOf || found.oneOf || []).flatMap((one) => objects(one, root, at));
}

/* A row for each field, and for those of the objects in it: session.participants[].muted. */
function fieldRows(schema, root = api, at = "", depth = 0) {
  if (depth > DEEPEST) return [];
  return objects(schema, root, at).flatMap(([path, found]) =>
    Object.entries(found.properties).flatMap(([name, inner]) => {
      const own = path ? `${path}.${name}` : name;
      const meant = resolve(inner, root);
      const needed = (found.required || []).includes(name) ? "required" : "";
      return [element("tr", {}, element("th", {}, own), element("td", {}, describeType(inner)),
        element("td", {}, needed), element("td", {}, limits(meant)),
        element("td", {}, inner.description || meant.description || "")),
        ...fieldRows(inner, root, own, depth + 1)];
    }));
}

function fields(title, schema, root = api) {
  const rows = fieldRows(schema, root);
  if (!rows.length) return [];
  return [element("details", { class: "fields" }, element("summary", {}, `${title}: fields`),
    element("table", {}, ...rows))];
}

/* The operation as a command to paste, with its answer. */
function exampleView(path, method, operation) {
  const command = [`curl -X ${method.toUpperCase()} "${location.origin}${base()}${path}"`,
    '-H "Authorization: Bearer $TOKEN"'];
  const body = bodySchema(operation);
  if (body) command.push('-H "Content-Type: application/json"', `-d '${JSON.stringify(example(body))}'`);
  const [status, answer] = Object.entries(operation.responses)[0];
  const [kind, content] = Object.entries(answer.content || {})[0] || [];
  const shown = content && /json/.test(kind) ? JSON.stringify(example(content.schema, api, true), null, 2) : "";
  return element("details", { class: "example" }, element("summary", {}, "Example"),
    readable(command.join(" \\\n  ")), readable(`${status} ${answer.description}\n\n${shown}`));
}

function base() { return api.servers[0].url.replace(/\/$/, ""); }

function bodySchema(operation) {
  return operation.requestBody && operation.requestBody.content["application/json"].schema;
}

function parameterRow(parameter) {
  const input = element("input", { name: parameter.name, "data-in": parameter.in, "aria-label": parameter.name });
  const start = parameter.schema.default;
  if (start !== undefined && start !== null) input.placeholder = String(start);
  const label = parameter.name + (parameter.required ? " *" : "");
  const limited = limits(parameter.schema);
  const about = [parameter.in, describeType(parameter.schema), limited, parameter.description]
    .filter(Boolean).join(", ");
  return element("tr", {}, element("th", {}, label), element("td", {}, about),
    element("td", {}, input));
}

function answersTable(responses) {
  const rows = Object.entries(responses).map(([status, answer]) => {
    const content = Object.values(answer.content || {})[0];
    return element("tr", {}, element("th", {}, status), element("td", {}, answer.description),
      element("td", {}, content ? describeType(content.schema) : ""));
  });
  return element("table", { class: "answers" }, ...rows);
}

/* URL, headers and body out of what was filled in. */
function requestOf(path, method, form) {
  const query = new URLSearchParams();
  const headers = {};
  for (const input of form.querySelectorAll("input[data-in]")) {
    const kind = input.dataset.in;
    if (kind === "path") path = path.replace(`{${input.name}}`, encodeURIComponent(input.value));
    else if (input.value && kind === "query") query.set(input.name, input.value);
    else if (input.value && kind === "header") headers[input.name] = input.value;
  }
  const token = document.getElementById("token").value.trim();
  if (token) headers.Authorization = "Bearer " + token;
  const body = form.querySelector("textarea");
  if (body) headers["Content-Type"] = "application/json";
  const url = base() + path + (query.size ? `?${query}` : "");
  return [url, { method: method.toUpperCase(), headers, body: body ? body.value : undefined }];
}

async function send(path, method, form, output) {
  output.textContent = "…";
  output.className = "";
  try {
    const [url, options] = requestOf(path, method, form);
    const answer = await fetch(url, options);
    let text = await answer.text();
    try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { /* not JSON */ }
    output.textContent = `${answer.status} ${answer.statusText}\n\n${text}`;
    output.className = answer.ok ? "" : "failed";
  } catch (error) {
    output.textContent = String(error);
    output.className = "failed";
  }
}

function operationView(path, method, operation) {
  const form = element("form");
  const parameters = operation.parameters || [];
  if (parameters.length) form.append(element("table", {}, ...parameters.map(parameterRow)));
  const schema = bodySchema(operation);
  if (schema) {
    const body = element("textarea", { spellcheck: "false", "aria-label": "body" });
    body.value = JSON.stringify(example(schema), null, 2);
    form.append(body);
  }
  const output = readable("", { "aria-live": "polite" });
  form.append(element("button", {}, "Send"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(path, method, form, output);
  });
  const answered = Object.values(Object.values(operation.responses)[0].content || {})[0];
  return element("details", { class: "operation", "data-path": path, id: operation.operationId },
    element("summary", {}, element("span", { class: "method " + method }, method.toUpperCase()),
      element("code", {}, path), element("span", {}, operation.summary)),
    element("p", {}, operation.description), form, output, answersTable(operation.responses),
    ...(schema ? fields("Body", schema) : []), ...(answered ? fields("Answer", answered.schema) : []),
    exampleView(path, method, operation));
}

function show() {
  const main = document.getElementById("operations");
  main.replaceChildren();
  const byTag = new Map();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags[0];
      if (!byTag.has(tag)) byTag.set(tag, element("section", {}, element("h2", {}, tag)));
      byTag.get(tag).append(operationView(path, method, operation));
    }
  }
  main.append(...byTag.values());
}

/* ---- /ws: messages of the JSON protocol, sent and heard */

function clientMessages(schemas) {
  return schemas.$defs.ClientMessage.anyOf.map((one) => one.$ref.split("/").pop());
}

/* A message to begin with; AUTH with the token of the page and a device of its own. */
function firstMessage(schemas, name) {
  const message = example(schemas.$defs[name], schemas);
  if (name !== "AUTH") return message;
  const token = document.getElementById("token").value.trim();
  return { ...message, payload: { token, device_id: "docs-page" } };
}

function socketView(schemas) {
  const kinds = element("select", { "aria-label": "message" },
    ...clientMessages(schemas).map((name) => element("option", {}, name)));
  const body = element("textarea", { spellcheck: "false", "aria-label": "message to send" });
  const log = readable("", { class: "heard" });
  const table = element("div");
  const choose = () => {
    body.value = JSON.stringify(firstMessage(schemas, kinds.value), null, 2);
    table.replaceChildren(...fields(kinds.value, schemas.$defs[kinds.value], schemas));
  };
  const say = (line) => {
    log.append(line + "\n");
    while (log.childNodes.length > HEARD) log.firstChild.remove();
  };
  let socket = null;
  const button = element("button", { type: "button" }, "Connect");
  button.addEventListener("click", () => {
    if (socket) return socket.close(1000);
    socket = opened(say, () => { socket = null; button.textContent = "Connect"; });
    button.textContent = "Disconnect";
  });
  const form = element("form", { id: "socket" }, button, kinds, body, element("button", {}, "Send message"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!socket || socket.readyState !== WebSocket.OPEN) return say("not connected");
    socket.send(body.value);
    say("→ " + body.value.replace(/\s*\n\s*/g, " "));
  });
  kinds.addEventListener("change", choose);
  document.getElementById("token").addEventListener("change", choose);
  choose();
  return element("section", { class: "socket" }, element("h2", {}, "WebSocket"), form, log, table);
}

function opened(say, gone) {
  const url = new URL(base() + "/ws", location.href.replace(/^http/, "ws"));
  const socket = new WebSocket(url, "syncbridge.json.v1");
  socket.onopen = () => say("connected to " + url);
  socket.onmessage = (event) => say("← " + event.data);
  socket.onclose = (event) => { say(`closed: ${event.code} ${event.reason}`); gone(); };
  return socket;
}

/* A heading without operations under it goes, too. */
function filter(words) {
  for (const section of document.querySelectorAll("section")) {
    const views = [...section.querySelectorAll(".operation")];
    for (const view of views) view.hidden = !view.dataset.path.toLowerCase().includes(words);
    section.hidden = views.length > 0 && views.every((view) => view.hidden);
  }
}

async function start() {
  try {
    api = await (await fetch("openapi.json")).json();
    document.getElementById("version").textContent = api.info.version;
    document.getElementById("about").textContent = api.info.description;
    show();
    const schemas = await (await fetch("schemas/messages.json")).json();
    document.getElementById("operations").prepend(socketView(schemas));
  } catch (error) {
    document.getElementById("operations").textContent = "The description cannot be read: " + error;
  }
}

document.getElementById("filter").addEventListener("input", (e) => filter(e.target.value.trim().toLowerCase()));
start();
