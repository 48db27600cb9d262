/* The page at /docs: lists the operations of /openapi.json and sends requests.
   All text goes in through textContent, so that nothing in the description or in an answer can
   become markup. The token stays in its field. */
"use strict";

let api = null;

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/* Follow a reference inside of the document. */
function resolve(schema) {
  if (!schema || !schema.$ref) return schema || {};
  return schema.$ref.slice(2).split("/").reduce((at, part) => at[part], api);
}

/* A value that fits a schema, to begin with. */
function example(schema, depth = 0) {
  const found = resolve(schema);
  if (found.examples) return found.examples[0];
  if ("default" in found) return found.default;
  if (found.enum) return found.enum[0];
  const choice = (found.anyOf || found.oneOf || [])[0];
  if (choice) return example(choice, depth + 1);
  switch (found.type) {
    case "object": return members(found, depth);
    case "array": return [];
    case "integer": case "number": return found.minimum || 0;
    case "boolean": return false;
    case "null": return null;
    case "string": return found.format === "uuid" ? uuid() : "string";
    default: return {};
  }
}

/* RFC 9562, version 4; crypto.randomUUID is not there on pages without TLS. */
function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 15) | 64;
  bytes[8] = (bytes[8] & 63) | 128;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

function members(schema, depth) {
  const out = {};
  if (depth > 4) return out;
  for (const name of schema.required || []) {
    out[name] = example(schema.properties[name], depth + 1);
  }
  return out;
}

function describeType(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(describeType).join(" or ");
  if (schema.type === "array") return "list of " + describeType(schema.items);
  return [schema.format || schema.type || "any"].flat().join(" or ");
}

function parameterRow(parameter) {
  const input = element("input", { name: parameter.name, "data-in": parameter.in });
  const start = parameter.schema.default;
  if (start !== undefined && start !== null) input.placeholder = String(start);
  const label = parameter.name + (parameter.required ? " *" : "");
  const about = parameter.in + ", " + describeType(parameter.schema);
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
  const url = api.servers[0].url.replace(/\/$/, "") + path + (query.size ? `?${query}` : "");
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
  if (operation.requestBody) {
    const schema = operation.requestBody.content["application/json"].schema;
    const body = element("textarea", { spellcheck: "false", "aria-label": "body" });
    body.value = JSON.stringify(example(schema), null, 2);
    form.append(body);
  }
  const output = element("pre");
  form.append(element("button", {}, "Send"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(path, method, form, output);
  });
  return element("details", { class: "operation", "data-path": path, id: operation.operationId },
    element("summary", {}, element("span", { class: "method " + method }, method.toUpperCase()),
      element("code", {}, path), element("span", {}, operation.summary)),
    element("p", {}, operation.description), form, answersTable(operation.responses), output);
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

function filter(words) {
  for (const view of document.querySelectorAll(".operation")) {
    view.hidden = !view.dataset.path.includes(words);
  }
}

async function start() {
  try {
    api = await (await fetch("openapi.json")).json();
    document.getElementById("version").textContent = api.info.version;
    document.getElementById("about").textContent = api.info.description;
    show();
  } catch (error) {
    document.getElementById("operations").textContent = "The description cannot be read: " + error;
  }
}

document.getElementById("filter").addEventListener("input", (e) => filter(e.target.value.trim()));
start();
