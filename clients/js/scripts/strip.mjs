// As much of an OpenAPI document as types are made of.
const KEPT = new Set([
  ...["type", "properties", "required", "items", "enum", "const", "anyOf", "oneOf", "allOf"],
  ...["additionalProperties", "prefixItems", "$ref", "nullable", "default"],
]);
const METHODS = ["get", "put", "post", "delete", "patch"];

/** A schema without what says nothing about its type. */
function schema(it) {
  if (Array.isArray(it)) return it.map(schema);
  if (typeof it !== "object" || it === null) return it;
  const kept = Object.entries(it).filter(([name]) => KEPT.has(name) && name !== "default");
  return Object.fromEntries(
    kept.map(([name, part]) => [
      name,
      name === "properties" ? values(part, schema) : /enum|const/.test(name) ? part : schema(part),
    ]),
  );
}

const values = (map, act) => Object.fromEntries(Object.entries(map).map(([k, v]) => [k, act(v)]));
const json = (content = {}) =>
  values(content, (media) => (media.schema ? { schema: schema(media.schema) } : {}));

function operation({ operationId, summary, parameters = [], requestBody, responses }) {
  const fine = Object.entries(responses).filter(([status]) => status[0] === "2");
  return {
    operationId,
    summary,
    parameters: parameters.map(({ name, in: where, required, schema: type }) => {
      return { name, in: where, required: required || undefined, schema: schema(type) };
    }),
    requestBody: requestBody && {
      required: requestBody.required,
      content: json(requestBody.content),
    },
    responses: Object.fromEntries(
      fine.map(([status, it]) => [status, { description: "", content: json(it.content) }]),
    ),
  };
}

export function strip(document) {
  const item = (it) => {
    const methods = METHODS.filter((method) => it[method]);
    return Object.fromEntries(methods.map((method) => [method, operation(it[method])]));
  };
  const paths = values(document.paths, item);
  const all = document.components.schemas;
  const schemas = {};
  const take = (text) => {
    for (const [, name] of text.matchAll(/#\/components\/schemas\/([^"]+)/g)) {
      if (schemas[name]) continue;
      schemas[name] = schema(all[name]);
      take(JSON.stringify(schemas[name]));
    }
  };
  take(JSON.stringify(paths));
  const { openapi, info } = document;
  const { title } = info;
  return JSON.parse(
    JSON.stringify({ openapi, info: { title, version: "1" }, paths, components: { schemas } }),
  );
}

/** A line for each path and each schema. */
export function write({ openapi, info, paths, components }) {
  const lines = (map) =>
    Object.keys(map)
      .sort()
      .map((name) => `${JSON.stringify(name)}: ${JSON.stringify(map[name])}`)
      .join(",\n");
  return `{"openapi": ${JSON.stringify(openapi)}, "info": ${JSON.stringify(info)}, "paths": {
${lines(paths)}
}, "components": {"schemas": {
${lines(components.schemas)}
}}}
`;
}
