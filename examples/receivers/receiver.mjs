// A receiver of events in Node, without packages: checks the signature, and knows repetitions.
//
//     WEBHOOK_SECRET=whsec_... node examples/receivers/receiver.mjs 9000
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const keys = process.env.WEBHOOK_SECRET.split(" ").map((secret) =>
  Buffer.from(secret.replace("whsec_", ""), "base64"),
);
const seen = new Set(); // yours: a table with the ids of what was handled

function isSigned(headers, body) {
  const id = headers["webhook-id"] ?? "";
  const at = headers["webhook-timestamp"] ?? "";
  if (!/^\d+$/.test(at) || Math.abs(Date.now() / 1000 - Number(at)) > 300) return false;
  const given = (headers["webhook-signature"] ?? "").split(" ").map((one) => one.split(",")[1] ?? "");
  return keys.some((key) => {
    const wanted = createHmac("sha256", key).update(`${id}.${at}.`).update(body).digest();
    return given.some((one) => {
      const told = Buffer.from(one, "base64");
      return told.length === wanted.length && timingSafeEqual(told, wanted);
    });
  });
}

createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  const body = Buffer.concat(parts);
  const good = isSigned(request.headers, body);
  const id = request.headers["webhook-id"];
  if (good && !seen.has(id)) {
    seen.add(id);
    const event = JSON.parse(body);
    console.log(event.type, event.session_id ?? "");
  }
  response.writeHead(good ? 204 : 401).end();
}).listen(Number(process.argv[2]), "127.0.0.1");
