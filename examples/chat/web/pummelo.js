/**
 * A client for pomelo's protocol over WebSocket: one module, no dependencies, JSON bodies only.
 *
 * A frame from the server holds one or more packages, a frame to it exactly one:
 *
 *     package   type (1 byte) | length (3, big endian) | body
 *     message   flag (1) | id (varint; request, response) | route (request, notify, push) | JSON
 *     flag      bit 0: the route is a 2-byte code of the dictionary; bits 1-3: the message's type
 *
 * Times are milliseconds. Errors:
 *
 *     ClientError      never thrown itself
 *     ├── Refused      the server answered the handshake with a code other than 200
 *     ├── TimedOut     no answer in time; of a request it is unknown whether it was carried out
 *     └── Closed       the connection could not be made, or is gone
 *
 * An answer with a code other than 200 is no error here: it is the handler's to give and the caller's to read.
 */

const PACKAGE = { HANDSHAKE: 1, ACK: 2, HEARTBEAT: 3, DATA: 4, KICK: 5 };
const MESSAGE = { REQUEST: 0, NOTIFY: 1, RESPONSE: 2, PUSH: 3 };
const VERSION = "0.1.0";
const MAX_ID = 2 ** 31 - 1; // pomelo's codec computes ids in signed 32 bits
const MAX_BODY = 2 ** 24 - 1;
const HEARTBEAT_SLACK = 100;
const HANDSHAKE_ID = 0; // requests count from 1, so 0 is free for the one answer that has no id

const utf8 = { encode: (text) => new TextEncoder().encode(text), decode: (bytes) => new TextDecoder().decode(bytes) };
const NOTHING = new Uint8Array(0);

/** Dictionaries by server URL: sending back its version spares the server sending it on every reconnect. */
const dictionaries = new Map();

export class ClientError extends Error {
  name = this.constructor.name;
}

export class Refused extends ClientError {
  /** @param {number} code 501: this client's type or version is not wanted; 500: any other reason. */
  constructor(code) {
    super(`the server refused the handshake (${code})`);
    this.code = code;
  }
}

export class TimedOut extends ClientError {}

export class Closed extends ClientError {
  /** @param {{reason: string, kicked: boolean}} end as `onClose` reports it. */
  constructor({ reason, kicked }) {
    super(`connection closed: ${reason}`);
    this.reason = reason;
    this.kicked = kicked;
  }
}

export class Client {
  #socket;
  #url;
  #dictionary = dictionaryOf({});
  #pending = new Map(); // id -> {resolve, reject, timer}
  #lastId = 0;
  #listeners = new Map(); // route -> Set of functions
  #closeListeners = new Set();
  #end = null; // {reason, kicked} once the connection is over
  #beat = 0; // the server's heartbeat interval; 0: it keeps none
  #beatTimer = null;
  #deadTimer = null;

  /**
   * Opens a connection and completes the handshake.
   *
   * @param {string} url `ws://host:port/`
   * @param {{user?: object, timeout?: number}} [options] `user` goes to the server's handshake function.
   * @returns {Promise<Client>} a client that may send at once.
   * @throws {Refused|TimedOut|Closed} the socket is closed by then.
   */
  static async connect(url, { user = {}, timeout = 10_000 } = {}) {
    const client = new Client(url);
    client.#open(user);
    try {
      client.user = await client.#answer(HANDSHAKE_ID, timeout, "handshake");
    } catch (error) {
      client.close();
      throw error;
    }
    return client;
  }

  /** Not for callers: use `Client.connect`. */
  constructor(url) {
    this.#url = url;
    /** What the server's handshake function answered, if it did. */
    this.user = undefined;
  }

  /** The server's heartbeat interval; 0 when it keeps none. */
  get heartbeat() {
    return this.#beat;
  }

  /**
   * Asks and waits for the answer.
   *
   * @param {string} route `serverType.handler.method`
   * @param {object} [msg] anything JSON can hold.
   * @param {{timeout?: number}} [options]
   * @returns {Promise<any>} the answer's body, whatever its `code`.
   * @throws {TimedOut|Closed} and `RangeError` for a body or a route too long for the protocol.
   */
  async request(route, msg = {}, { timeout = 10_000 } = {}) {
    do {
      this.#lastId = (this.#lastId % MAX_ID) + 1;
    } while (this.#pending.has(this.#lastId));
    const id = this.#lastId;
    this.#sendMessage(MESSAGE.REQUEST, id, route, msg);
    return this.#answer(id, timeout, route);
  }

  /**
   * Tells the server something; there is no answer, not even for a route it does not know.
   *
   * @throws {Closed} and `RangeError`, as `request`.
   */
  notify(route, msg = {}) {
    this.#sendMessage(MESSAGE.NOTIFY, null, route, msg);
  }

  /**
   * Calls `fn(body)` for each push on `route`, in the order of arrival. What `fn` throws is logged and stops nothing.
   *
   * @returns {() => void} ends the subscription.
   */
  on(route, fn) {
    if (!this.#listeners.has(route)) this.#listeners.set(route, new Set());
    this.#listeners.get(route).add(fn);
    return () => this.#listeners.get(route).delete(fn);
  }

  /**
   * Calls `fn({reason, kicked})` once when the connection is over, whoever ended it; soon, if it already is.
   * By then every request still waiting has been rejected.
   *
   * @returns {() => void} ends the subscription.
   */
  onClose(fn) {
    if (this.#end) queueMicrotask(() => call(fn, this.#end));
    else this.#closeListeners.add(fn);
    return () => this.#closeListeners.delete(fn);
  }

  /** Ends the connection; waiting requests are rejected with `Closed`. Closing again does nothing. */
  close() {
    this.#finish("closed by this client");
  }

  #open(user) {
    this.#socket = new WebSocket(this.#url);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => {
      const sys = { type: "pummelo-js", version: VERSION, dictVersion: dictionaries.get(this.#url)?.version };
      this.#sendPackage(PACKAGE.HANDSHAKE, utf8.encode(JSON.stringify({ sys, user })));
    };
    this.#socket.onmessage = (event) => this.#onFrame(event.data);
    this.#socket.onerror = () => {}; // `close` follows, and tells as much (browsers withhold the cause)
    this.#socket.onclose = (event) => this.#finish(event.reason || `connection lost (${event.code})`);
  }

  #onFrame(data) {
    if (this.#end) return;
    this.#stillAlive();
    try {
      if (!(data instanceof ArrayBuffer)) throw new Error("text frame");
      for (const { type, body } of decodePackages(new Uint8Array(data))) {
        if (this.#end) return;
        this.#onPackage(type, body);
      }
    } catch (error) {
      this.#finish(`protocol error: ${error.message}`);
    }
  }

  #onPackage(type, body) {
    switch (type) {
      case PACKAGE.HANDSHAKE:
        return this.#onHandshake(JSON.parse(utf8.decode(body)));
      case PACKAGE.HEARTBEAT:
        return this.#onHeartbeat();
      case PACKAGE.DATA:
        return this.#onMessage(decodeMessage(body));
      case PACKAGE.KICK:
        return this.#finish(kickReason(body), true);
      default:
        throw new Error(`package of type ${type}`);
    }
  }

  #onHandshake({ code, sys = {}, user }) {
    if (code !== 200) {
      this.#settle(HANDSHAKE_ID, "reject", new Refused(code));
      return;
    }
    if (sys.dict) dictionaries.set(this.#url, dictionaryOf(sys.dict, sys.dictVersion));
    if (sys.dict || sys.useDict) this.#dictionary = dictionaries.get(this.#url) ?? this.#dictionary;
    this.#beat = (sys.heartbeat ?? 0) * 1000;
    this.#sendPackage(PACKAGE.ACK);
    this.#stillAlive();
    this.#settle(HANDSHAKE_ID, "resolve", user);
  }

  /** pomelo's rule: the server answers each heartbeat at once, so it is the client that keeps the pace. */
  #onHeartbeat() {
    if (!this.#beat || this.#beatTimer) return;
    this.#beatTimer = setTimeout(() => {
      this.#beatTimer = null;
      this.#sendPackage(PACKAGE.HEARTBEAT);
    }, this.#beat);
  }

  /** Puts off the moment at which a silent server counts as dead. */
  #stillAlive() {
    if (!this.#beat) return;
    clearTimeout(this.#deadTimer);
    this.#deadTimer = setTimeout(() => this.#finish("heartbeat timeout"), 2 * this.#beat + HEARTBEAT_SLACK);
  }

  #onMessage({ type, id, route, body }) {
    if (type === MESSAGE.RESPONSE) {
      // Unparsable answers end the connection: the two sides do not speak the same protocol.
      this.#settle(id, "resolve", JSON.parse(utf8.decode(body)));
      return;
    }
    const name = typeof route === "number" ? this.#dictionary.routes.get(route) : route;
    if (name === undefined) console.warn(`pummelo: push dropped, its code ${route} is not in the dictionary`);
    const listeners = [...(this.#listeners.get(name) ?? [])];
    if (listeners.length === 0) return;
    const push = JSON.parse(utf8.decode(body));
    for (const fn of listeners) call(fn, push);
  }

  #answer(id, timeout, what) {
    return new Promise((resolve, reject) => {
      const late = () => this.#settle(id, "reject", new TimedOut(`no answer to ${what} within ${timeout / 1000} s`));
      this.#pending.set(id, { resolve, reject, timer: setTimeout(late, timeout) });
    });
  }

  /** An id that nobody waits for (any more) is ignored. */
  #settle(id, how, value) {
    const waiting = this.#pending.get(id);
    if (!waiting) return;
    this.#pending.delete(id);
    clearTimeout(waiting.timer);
    waiting[how](value);
  }

  #sendMessage(type, id, route, msg) {
    if (this.#end) throw new Closed(this.#end);
    const body = utf8.encode(JSON.stringify(msg));
    this.#sendPackage(PACKAGE.DATA, encodeMessage(type, id, this.#dictionary.codes.get(route) ?? route, body));
  }

  #sendPackage(type, body = NOTHING) {
    // Between the loss of a connection and its `close` event the socket discards what is sent; `close` then tells.
    this.#socket.send(encodePackage(type, body));
  }

  #finish(reason, kicked = false) {
    if (this.#end) return;
    this.#end = { reason, kicked };
    clearTimeout(this.#beatTimer);
    clearTimeout(this.#deadTimer);
    this.#socket.close();
    for (const id of [...this.#pending.keys()]) this.#settle(id, "reject", new Closed(this.#end));
    for (const fn of this.#closeListeners) call(fn, this.#end);
  }
}

function call(fn, value) {
  try {
    fn(value);
  } catch (error) {
    console.error(error);
  }
}

function dictionaryOf(dict, version) {
  const codes = new Map(Object.entries(dict));
  return { version, codes, routes: new Map([...codes].map(([route, code]) => [code, route])) };
}

/** A kick need not carry a reason, and must not fail for want of one. */
function kickReason(body) {
  try {
    return String(JSON.parse(utf8.decode(body)).reason || "kicked");
  } catch {
    return "kicked";
  }
}

function encodePackage(type, body) {
  if (body.length > MAX_BODY) throw new RangeError(`${body.length} bytes do not fit one package`);
  const bytes = new Uint8Array(4 + body.length);
  new DataView(bytes.buffer).setUint32(0, body.length);
  bytes[0] = type;
  bytes.set(body, 4);
  return bytes;
}

function* decodePackages(bytes) {
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < bytes.length; ) {
    const end = at + 4 + (view.getUint32(at) & MAX_BODY); // raises on a header cut short
    if (end > bytes.length) throw new Error("package cut short");
    yield { type: bytes[at], body: bytes.subarray(at + 4, end) };
    at = end;
  }
}

/** @param {?number} id null for a notify. @param {string|number} route its name, or its code in the dictionary. */
function encodeMessage(type, id, route, body) {
  const head = [(type << 1) | (typeof route === "number" ? 1 : 0)];
  if (id !== null) {
    for (; id > 0x7f; id >>= 7) head.push((id & 0x7f) | 0x80);
    head.push(id);
  }
  if (typeof route === "number") {
    head.push(route >> 8, route & 0xff);
  } else {
    const name = utf8.encode(route);
    if (name.length > 255) throw new RangeError("a route has at most 255 bytes");
    head.push(name.length, ...name);
  }
  const bytes = new Uint8Array(head.length + body.length);
  bytes.set(head);
  bytes.set(body, head.length);
  return bytes;
}

function decodeMessage(bytes) {
  const type = (bytes[0] >> 1) & 7;
  let at = 1;
  if (type === MESSAGE.RESPONSE) {
    let id = 0;
    for (let shift = 0; ; shift += 7) {
      if (at >= bytes.length || shift > 28) throw new Error("bad message id");
      const byte = bytes[at++];
      id |= (byte & 0x7f) << shift;
      if (byte < 0x80) return { type, id, body: bytes.subarray(at) };
    }
  }
  if (type !== MESSAGE.PUSH) throw new Error(`message of type ${type}`);
  if (bytes[0] & 1) return { type, route: (bytes[at] << 8) | bytes[at + 1], body: bytes.subarray(at + 2) };
  const end = at + 1 + bytes[at];
  if (!(end <= bytes.length)) throw new Error("route cut short");
  return { type, route: utf8.decode(bytes.subarray(at + 1, end)), body: bytes.subarray(end) };
}
