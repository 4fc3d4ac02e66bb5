// Draws /openapi.json: every call with its parameters, body, answers and a sample made from the schemas.
"use strict";

// Tags of the document in the order of the page, each with its heading.
const TITLES = {
  submit: "submit", messages: "messages", outbox: "outbox", deadletters: "dead letters", queue: "queue", tracking: "tracking", opens: "opens",
  statistics: "statistics", besttime: "best time", recipients: "recipients", reports: "reports", suppressions: "suppressions",
  webhooks: "webhooks", postlog: "webhook log", accounts: "accounts", verification: "verification", tokens: "tokens",
  oauth2: "OAuth2",
  providers: "providers", health: "health", pixel: "pixel", docs: "docs",
};
const ORDER = Object.keys(TITLES);
const DEEPEST = 6;
let schemas = {};

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
};

// Text with `code` in it, as nodes: nothing of the document is ever read as HTML.
const prose = (tag, text) => {
  const pieces = (text || "").split(/`([^`]+)`/);
  return make(tag, {}, ...pieces.map((piece, at) => (at % 2 ? make("code", {}, piece) : piece)));
};

const resolve = (schema) => {
  if (!schema) return {};
  if (!schema.$ref) return schema;
  const { $ref, ...rest } = schema;
  return { ...schemas[$ref.split("/").pop()], ...rest };
};

const choices = (schema) => schema.anyOf || schema.oneOf;

const typeOf = (given) => {
  const schema = resolve(given);
  if (choices(schema)) return [...new Set(choices(schema).map(typeOf))].filter((type) => type !== "null").join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.type === "array") return `[${typeOf(schema.items)}]`;
  return schema.format || schema.type || "any";
};

const limitsOf = (schema) => {
  const limits = [];
  if ("minimum" in schema && "maximum" in schema) limits.push(`${schema.minimum} to ${schema.maximum}`);
  if ("maxLength" in schema && schema.maxLength < 100000) limits.push(`at most ${schema.maxLength} characters`);
  if ("default" in schema && schema.default !== null && schema.default !== "") limits.push(`default ${JSON.stringify(schema.default)}`);
  return limits.join(", ");
};

// The object schema inside: itself, one of its choices, or the items of an array.
const inner = (given) => {
  const schema = resolve(given);
  if (schema.properties) return schema;
  for (const choice of choices(schema) || []) {
    const found = inner(choice);
    if (found) return found;
  }
  return schema.items ? inner(schema.items) : null;
};

const field = (name, given, required, depth) => {
  const schema = resolve(given);
  const below = depth < DEEPEST ? inner(schema) : null;
  const limits = limitsOf(schema);
  return make("div", { class: "field", "data-name": name.toLowerCase() },
    make("span", { class: "name" }, name),
    make("span", { class: "type" }, limits ? `${typeOf(schema)}, ${limits}` : typeOf(schema)),
    required ? make("span", { class: "must" }, "required") : null,
    given.description || schema.description ? prose("p", given.description || schema.description) : null,
    below ? make("details", {}, make("summary", {}, "fields"), fields(below, depth + 1)) : null);
};

const fields = (schema, depth = 0) => {
  const required = new Set(schema.required || []);
  return make("div", { class: "fields" },
    ...Object.entries(schema.properties || {}).map(([name, one]) => field(name, one, required.has(name), depth)));
};

const WORDS = {
  account: "sandbox", queueId: "0199c1d2e3f47a8b9c0d1e2f3a4b5c6d", email: "ada@example.com", address: "ada@example.com",
  name: "Ada", subject: "Hello", text: "Hello Ada", html: "<p>Hello Ada</p>", messageId: "<1b2c@example.com>", host: "mail.example.com",
  port: 465, user: "ada@example.com", pass: "******", filename: "note.txt", content: "SGVsbG8=", sendAt: "2026-11-20T09:30:00.000Z",
  response: "Queued for delivery", tz: "Europe/Berlin", contentType: "text/plain", token: "pf_…", scopes: ["api"], page: 0, pages: 1,
  total: 1, cursor: null, key: "order-4711", requestId: "6f1c2ab09d3e4f57", version: "0.1.0", status: "ok", store: "ok", locale: "en",
  flagged: false, draft: false, truncated: false, hasMore: false, embedded: false, inline: false,
  url: "https://crm.example.com/hooks/mail", event: "messageFailed", eventId: "evt_512", secret: "whsec_…", since: "2026-11-20T08:00:00.000Z", recipient: "ada@example.com",
  recipient_email: "ada@example.com", recipient_name: "Ada", email_type: "invoice", reference_type: "order", reference_id: "4711",
  perMinute: 20, perHour: 300, perDay: 1500, connections: 5, messagesPerConnection: 100, tracking_id: "4711", country: "EE", city: "Tallinn",
};

// What a first call can do without.
const SKIPPED = new Set(["raw", "envelope", "headers", "dryRun", "imap", "accessToken", "method", "cid", "encoding", "contentDisposition", "deliveryAttempts", "preview", "referenceType", "referenceId", "emailType", "sentMailPath", "messageId", "priority", "copy", "tz", "replyTo", "cc", "bcc", "tls", "secret", "eventIds", "until", "failed", "cursor", "alerts", "own", "webhooks", "reference", "mailgun", "oauth2", "items"]);

// Whether the word is of the type that is wanted: one name may be a text here and a number there.
const fits = (word, schema) => {
  const kind = word === null ? "null" : Array.isArray(word) ? "array" : typeof word;
  const kinds = (choices(schema) || [schema]).map((one) => resolve(one).type);
  return kinds.includes(kind) || (kind === "number" && kinds.includes("integer"));
};

// Whether an answer may lack it, and there is no more to show of it than a word.
const unset = (schema) => {
  const some = (choices(schema) || []).map(resolve);
  return some.some((one) => one.type === "null") && !some.some((one) => one.properties || ["array", "object"].includes(one.type));
};

const sample = (given, sent, name = "", depth = 0) => {
  const schema = resolve(given);
  if (schema.examples) return schema.examples[0];
  if (schema.default !== undefined && schema.default !== null && schema.default !== "") return schema.default;
  if (schema.enum) return schema.enum[0];
  if (name in WORDS && fits(WORDS[name], schema)) return WORDS[name];
  if (!sent && unset(schema)) return null;
  if (choices(schema)) return sample(choices(schema).find((one) => one.type === "array") || choices(schema)[0], sent, name, depth);
  if ("const" in schema) return schema.const;
  if (schema.properties) {
    if (depth > DEEPEST) return {};
    const shown = Object.entries(schema.properties).filter(([key]) => !(sent && SKIPPED.has(key)));
    return Object.fromEntries(shown.map(([key, one]) => [key, sample(one, sent, key, depth + 1)]));
  }
  if (schema.type === "array") return [sample(schema.items || {}, sent, name.replace(/s$/, ""), depth + 1)];
  if ("default" in schema) return schema.default;
  return { string: "", integer: 0, number: 0, boolean: true, object: {}, null: null }[schema.type] ?? null;
};

const TOKENS = /("(?:[^"\\]|\\.)*")(\s*:)?|\b(true|false|null)\b|(-?\d+(?:\.\d+)?)/g;

const coloured = (value) => {
  const text = JSON.stringify(value, null, 2);
  const block = make("pre", { tabindex: "0" });
  let at = 0;
  for (const found of text.matchAll(TOKENS)) {
    const kind = found[1] ? (found[2] ? "key" : "string") : found[3] ? "word" : "number";
    block.append(text.slice(at, found.index), make("span", { class: kind }, found[1] || found[0]), found[2] || "");
    at = found.index + found[0].length;
  }
  block.append(text.slice(at));
  return block;
};

const path = (text) => make("span", { class: "path" },
  ...text.split(/(\{[^}]+\})/).map((piece) => (piece.startsWith("{") ? make("b", {}, piece) : piece)));

// A path that may be broken after each slash.
const broken = (text) => text.split(/(?<=\/)/).flatMap((piece) => [piece, make("wbr")]);

const verb = (method) => make("span", { class: `verb ${method}` }, method === "delete" ? "DEL" : method.toUpperCase());

const call = (where, method, operation) => {
  const body = operation.requestBody?.content["application/json"].schema;
  const given = operation.responses["200"].content["application/json"]?.schema;
  const parameters = operation.parameters.filter((one) => one.in !== "path" || one.description);
  const left = make("div", {},
    make("div", { class: "route" }, verb(method), path(where)),
    prose("h3", operation.summary),
    ...(operation.description || "").split("\n\n").filter(Boolean).map((text) => prose("p", text)),
    operation.security?.length === 0 ? prose("p", "No token needed.") : null);
  const section = (title, node) => left.append(make("h4", {}, title), node);
  if (parameters.length)
    section("Parameters", make("div", { class: "fields" }, ...parameters.map((one) =>
      field(one.in === "query" ? `?${one.name}` : one.in === "header" ? `${one.name}:` : one.name, { ...one.schema, description: one.description }, one.required, 0))));
  if (body) section("Body", fields(inner(body) || {}));
  if (given) section("Answer", fields(inner(given) || {}));
  const errors = Object.entries(operation.responses).filter(([status]) => status >= 400);
  section("Errors", make("div", { class: "fields" }, ...errors.map(([status, one]) =>
    make("div", { class: "field" }, make("span", { class: "status" }, status), prose("span", one.description)))));
  const right = make("div", { class: "samples" });
  if (body) right.append(make("h4", {}, "You send"), coloured(sample(body, true)));
  if (given) right.append(make("h4", {}, "You get"), coloured(sample(given, false)));
  return make("article", { id: operation.operationId }, left, right);
};

const hello = () => [
  "curl " + location.origin + "/v1/account/sandbox/submit \\",
  '  -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" \\',
  `  -d '{"to": {"address": "ada@example.com"}, "subject": "Hello", "text": "Hello Ada"}'`,
].join("\n");

const filter = (words) => {
  const wanted = words.trim().toLowerCase();
  for (const article of document.querySelectorAll("article")) {
    article.hidden = wanted !== "" && !article.textContent.toLowerCase().includes(wanted);
    document.querySelector(`nav a[href="#${article.id}"]`).hidden = article.hidden;
  }
  for (const heading of document.querySelectorAll("#calls > h2, nav h2")) {
    let next = heading.nextElementSibling;
    while (next && next.hidden) next = next.nextElementSibling;
    heading.hidden = !next || next.tagName === "H2";
  }
};

const draw = (found) => {
  schemas = found.components.schemas;
  document.getElementById("version").textContent = found.info.version;
  document.getElementById("about").replaceWith(Object.assign(prose("p", found.info.description), { id: "about" }));
  document.getElementById("hello").textContent = hello();
  const calls = Object.entries(found.paths).flatMap(([where, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ where, method, operation, tag: operation.tags[0] })));
  const tags = [...new Set(calls.map((one) => one.tag))].sort((a, b) => ORDER.indexOf(a) - ORDER.indexOf(b));
  for (const tag of tags) {
    const title = TITLES[tag];
    document.getElementById("index").append(make("h2", {}, title));
    document.getElementById("calls").append(make("h2", {}, title));
    for (const one of calls.filter((other) => other.tag === tag)) {
      document.getElementById("calls").append(call(one.where, one.method, one.operation));
      document.getElementById("index").append(
        make("a", { href: `#${one.operation.operationId}` }, verb(one.method), make("span", {}, ...broken(one.where.replace("/v1/", "")))));
    }
  }
  document.getElementById("search").addEventListener("input", (event) => filter(event.target.value));
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
};

fetch("openapi.json")
  .then((response) => response.json())
  .then(draw)
  .catch((error) => { document.getElementById("about").textContent = `openapi.json could not be read: ${error}`; });
