/**
 * The chat example through pomelo's own client: the npm package `pomelo-client-websocket`, unmodified.
 *
 *     npm install --ignore-scripts && node pomelo_client.mjs [gate-host] [gate-port]
 *
 * Prints one line of JSON: {"ok", "checks": {name: milliseconds}, "failed": {"check", "error"} | null, "saw"}. Exits 0 if
 * everything holds, 1 if not.
 *
 * Three habits of version 1.0.13 to know when a check fails:
 * - it reads only the first package of a frame, unlike pomelo's other clients; "saw.batchedFrames" counts what it cut off;
 * - it writes message ids above 127 most significant group first, so only the first 127 requests of a connection work;
 * - it keeps the dictionary for decoding but looks for it elsewhere when encoding, and so never sends a compressed route.
 */

import Pomelo from "pomelo-client-websocket"; // which sets the global WebSocket that it uses

const [host = "127.0.0.1", port = "3014"] = process.argv.slice(2);
const STEP = 10_000;
const room = `npm-${Date.now().toString(36)}`;
const checks = {};
const saw = { batchedFrames: 0, compressedPushes: 0, plainPushes: 0 };

function within(what, body) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${what}: nothing within ${STEP / 1000} s`)), STEP);
    body((value) => {
      clearTimeout(timer);
      resolve(value);
    }, reject);
  });
}

/** A connection made by pomelo's client, with every push it reported. */
class Guest {
  constructor(name) {
    this.name = name;
    this.pomelo = new Pomelo();
    this.pushes = []; // [route, body]
    this.pomelo.on("__CLIENT_ROUTE", (route, body) => this.pushes.push([route, body]));
  }

  connect(to) {
    return within(`${this.name}'s handshake`, (resolve, reject) => {
      this.pomelo.on("error", (error) => reject(new Error(error)));
      this.pomelo.on("io-error", (event) => reject(new Error(event.message)));
      this.pomelo.init(to, (socket) => {
        socket.on("message", look);
        resolve();
      });
    });
  }

  request(route, body) {
    return within(`answer to ${route}`, (resolve) => this.pomelo.request(route, body, resolve));
  }

  enter() {
    return this.request("connector.entryHandler.enter", { username: this.name, rid: room });
  }

  async say(content, target = "*") {
    const body = { rid: room, content, from: this.name, target };
    succeeded(await this.request("chat.chatHandler.send", body), "send");
  }

  /** The first push on `route` with these members, taken out of the list. */
  async push(route, members) {
    const fits = ([name, body]) => name === route && Object.keys(members).every((key) => body[key] === members[key]);
    for (const until = Date.now() + STEP; Date.now() < until; ) {
      const at = this.pushes.findIndex(fits);
      if (at >= 0) return this.pushes.splice(at, 1)[0][1];
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    throw new Error(`no ${route} ${JSON.stringify(members)} for ${this.name}, who has ${JSON.stringify(this.pushes)}`);
  }
}

/** Looks at a frame beside the client, to tell what it cannot. */
function look(data) {
  const bytes = new Uint8Array(data);
  const length = (bytes[1] << 16) | (bytes[2] << 8) | bytes[3];
  if (bytes.length > 4 + length) saw.batchedFrames += 1;
  const push = bytes[0] === 4 && ((bytes[4] >> 1) & 7) === 3;
  if (push) saw[bytes[4] & 1 ? "compressedPushes" : "plainPushes"] += 1;
}

function assert(truth, message) {
  if (!truth) throw new Error(message);
}

function succeeded(answer, what) {
  assert((answer.code ?? 200) === 200, `${what} was answered ${JSON.stringify(answer)}`);
  return answer;
}

async function check(name, body) {
  const start = Date.now();
  try {
    await body();
  } catch (error) {
    error.check = name;
    throw error;
  }
  checks[name] = Date.now() - start;
}

async function run() {
  const [ada, bo, twin] = [new Guest("Ada"), new Guest("Bo"), new Guest("Ada")];
  let connector;

  await check("the gate names a connector", async () => {
    const gate = new Guest("gate's guest");
    await gate.connect({ host, port });
    const answer = succeeded(await gate.request("gate.gateHandler.queryEntry", { uid: ada.name }), "queryEntry");
    gate.pomelo.disconnect();
    assert(Number.isInteger(answer.port), `no port in ${JSON.stringify(answer)}`);
    connector = { host: ["", "0.0.0.0", "127.0.0.1", undefined].includes(answer.host) ? host : answer.host, port: answer.port };
  });

  await check("the handshake brings a dictionary", async () => {
    await ada.connect(connector);
    const { dict = {} } = ada.pomelo.data ?? {};
    saw.dict = Object.keys(dict).length;
    saw.heartbeat = ada.pomelo.heartbeatInterval / 1000;
    assert(dict["chat.chatHandler.send"] > 0, `the client's dictionary is ${JSON.stringify(dict)}`);
  });

  await check("two users enter, and the first is told of the second", async () => {
    const first = succeeded(await ada.enter(), "enter");
    assert(first.users.join() === "Ada", `users: ${first.users}`);
    await bo.connect(connector);
    const second = succeeded(await bo.enter(), "enter");
    assert(second.users.toSorted().join() === "Ada,Bo", `users: ${second.users}`);
    await ada.push("onAdd", { user: "Bo" });
  });

  await check("a name already taken is refused", async () => {
    await twin.connect(connector);
    const answer = await twin.enter();
    assert(answer.code === 500 && answer.error === true, `enter was answered ${JSON.stringify(answer)}`);
    twin.pomelo.disconnect();
  });

  await check("what is said to the room reaches everyone in it", async () => {
    for (const [from, msg] of [[ada, "hello"], [bo, "你好 👋"]]) {
      await from.say(msg);
      for (const guest of [ada, bo]) await guest.push("onChat", { msg, from: from.name, target: "*" });
    }
  });

  await check("what is said to one reaches that one only", async () => {
    await ada.say("psst", "Bo");
    await bo.push("onChat", { msg: "psst", from: "Ada", target: "Bo" });
    await bo.say("after it");
    await ada.push("onChat", { msg: "after it" });
    assert(!ada.pushes.some(([, body]) => body.msg === "psst"), "the sender got it too");
  });

  await check("pushes whose route is in the dictionary come compressed", async () => {
    const known = "onChat" in ada.pomelo.data.dict;
    assert(!known || saw.compressedPushes > 0, "onChat is in the dictionary, but not one push was compressed");
  });

  await check("a compressed request is understood", async () => {
    // Where this client looks for the dictionary when it encodes; from here on it compresses, as pomelo's other clients do.
    ada.pomelo.dict = ada.pomelo.data.dict;
    await ada.say("by code");
    await bo.push("onChat", { msg: "by code" });
  });

  await check("an unknown method is answered with an error", async () => {
    const answer = await bo.request("chat.chatHandler.nonesuch", {});
    assert(answer.code === 404, `answered ${JSON.stringify(answer)}`);
  });

  await check("leaving is told", async () => {
    bo.pomelo.disconnect();
    await ada.push("onLeave", { user: "Bo" });
    ada.pomelo.disconnect();
  });
}

let failed = null;
try {
  await run();
} catch (error) {
  failed = { check: error.check ?? "before the checks", error: error.message };
}
console.log(JSON.stringify({ ok: failed === null, checks, failed, saw }));
process.exit(failed ? 1 : 0);
