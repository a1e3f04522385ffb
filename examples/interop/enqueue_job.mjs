// Enqueue a dibs job with nothing but amqplib (npm install amqplib).
//
//     node enqueue_job.mjs default tasks.resize '"a.png"' 200
//
// The arguments are the queue, the task's name and the task's arguments as JSON. The queue is there once a
// dibs worker or producer has used it.

import { randomUUID } from "node:crypto";
import amqp from "amqplib";

const [queue, task, ...args] = process.argv.slice(2);
const connection = await amqp.connect(process.env.AMQP_URL ?? "amqp://guest:guest@localhost:5672/");
const channel = await connection.createConfirmChannel();
let returned = false; // the server sends an unroutable message back before it confirms it
channel.on("return", () => (returned = true));
const body = Buffer.from(JSON.stringify({ args: args.map((arg) => JSON.parse(arg)), kwargs: {} }));
channel.publish("", queue, body, {
  type: task,
  messageId: randomUUID(),
  contentType: "application/json",
  persistent: true,
  mandatory: true,
});
await channel.waitForConfirms();
await connection.close();
if (returned) throw new Error(`there is no queue ${queue}`);
