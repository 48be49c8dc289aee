// A producer in JavaScript: it puts a job of the task mail.send (mail.py beside this file) into a queue, over plain
// HTTP, with what comes with Node 20 or newer.
//
//     node enqueue.mjs --print 'Ada' 'ada@example.org' 'Good morning'    # only the message's body
//     QUEUE_URL='https://myaccount.queue.core.windows.net/mail?sv=…&sig=…' \
//         node enqueue.mjs 'Ada' 'ada@example.org' 'Good morning'
//
// QUEUE_URL is the queue's with a shared access signature that allows "add"; docs/rights.md has how to make one.

import { randomUUID } from "node:crypto";

const LARGEST = 65536; // bytes of a message's body

/** Return a job as the body of a message; `qworker tasks APP --json-schema` says what may stand in it. */
export function bodyOf(task, kwargs) {
  const job = { v: 1, id: randomUUID(), task, kwargs, enqueued_at: new Date().toISOString() };
  // JSON may hold these characters as they are, the XML around it may not, or would change them.
  const text = JSON.stringify(job).replace(
    /[\x7f-\x9f\ufffe\uffff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  const size = Buffer.byteLength(text);
  if (size > LARGEST) throw new RangeError(`the job is ${size} bytes, the limit is ${LARGEST}`);
  return text;
}

/** Put a message. An answer other than 201 says that nothing was put; no answer, that it may have been. */
export async function put(queueUrl, body) {
  const url = new URL(queueUrl);
  url.pathname += "/messages";
  url.searchParams.set("messagettl", "-1"); // never expire; left out, Azure drops the message after 7 days
  const escaped = body.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const answer = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/xml", "x-ms-version": "2021-02-12" },
    body: `<?xml version="1.0" encoding="utf-8"?><QueueMessage><MessageText>${escaped}</MessageText></QueueMessage>`,
  });
  if (answer.status !== 201) throw new Error(`${answer.status} ${answer.statusText}: ${await answer.text()}`);
}

const words = process.argv.slice(2);
const onlyPrint = words[0] === "--print" && words.shift() !== undefined;
const [name, address, text] = words;
if (text === undefined) {
  console.error("usage: node enqueue.mjs [--print] NAME ADDRESS TEXT");
  process.exit(2);
}
const body = bodyOf("mail.send", { to: { name, address }, text });
if (onlyPrint) {
  process.stdout.write(body);
} else {
  await put(process.env.QUEUE_URL, body);
  console.log(JSON.parse(body).id);
}
