/**
 * One user's stay in one room: the way in (gate, connector, enter) and back in after every loss. Nothing here touches the page.
 */

import { Client } from "./pummelo.js";

const STEP_TIMEOUT = 8_000;
const FIRST_DELAY = 500;
const LONGEST_DELAY = 8_000;
// Until the server has noticed that our last connection is gone, our name counts as taken. With heartbeats that is two
// intervals at most; without, only the socket's own end tells it.
const SHORTEST_PATIENCE = 20_000;
// A kick is final, or two tabs would throw each other out for ever; but a server that goes away on purpose wants us back.
const COME_BACK = /reconnect|restart|drain|shut|stop/i;
// These hosts say "this machine" only to the server that gave them; to us, that is the machine the page came from.
const SELF = new Set(["", "0.0.0.0", "::", "127.0.0.1", "localhost"]);

/** Why the way in failed; `kind` is "taken" (another goes by that name in the room), "refused" or "unreachable". */
export class EntryError extends Error {
  constructor(kind, message, options) {
    super(message, options);
    this.kind = kind;
  }
}

/**
 * What a `Session` tells; nothing after `stop`, nor after `end`.
 *
 * @typedef {object} Listener
 * @property {(state: {name: "connecting"|"connected"|"waiting", seconds?: number}) => void} state "waiting" is told anew each
 *     second.
 * @property {(users: string[]) => void} users everyone in the room, after each way in.
 * @property {(message: {msg: string, from: string, target: string}) => void} chat
 * @property {(user: string) => void} add
 * @property {(user: string) => void} leave
 * @property {(change: {joined: {uid: string, meta: {name: string, room: string}}[], left: string[], reset?: boolean}) => void}
 *     presence who is online in all the rooms: everybody with `reset`, else who came and went since.
 * @property {(error: EntryError) => void} end it is over without our wish.
 */

export class Session {
  #gate;
  #listener;
  #client = null;
  #stopped = false;
  #wake = () => {};
  #patience = SHORTEST_PATIENCE;

  /** @param {{gate: string, name: string, room: string}} place `gate` is the gate's URL. @param {Listener} listener */
  constructor({ gate, name, room }, listener) {
    this.#gate = gate;
    this.name = name;
    this.room = room;
    this.#listener = listener;
  }

  /**
   * Enters the room; from then on the session keeps itself there until `stop`.
   *
   * @param {{insist?: boolean}} [options] `insist`: keep trying for a while, as after a loss (a page that was just reloaded).
   * @throws {EntryError} the session is over then, and may be thrown away.
   */
  async start({ insist = false } = {}) {
    try {
      if (insist) await this.#keepTrying(0);
      else await this.#enter();
    } catch (error) {
      this.#stopped = true;
      throw error;
    }
  }

  /** Leaves. Safe at any moment, and twice. */
  stop() {
    this.#stopped = true;
    this.#wake();
    this.#client?.close();
  }

  /** Ends the wait for the next attempt, if there is one. */
  retryNow() {
    this.#wake();
  }

  /**
   * @param {string} content
   * @param {string} target a user's name, or "*" for the room.
   * @throws {Error} with a message fit to show: the server did not take it, or it is unknown whether it did.
   */
  async send(content, target) {
    if (!this.#client) throw new Error("You are not connected.");
    const message = { rid: this.room, content, from: this.name, target };
    const answer = await this.#client.request("chat.chatHandler.send", message).catch((cause) => {
      throw new Error("No answer from the server; it may not have arrived.", { cause });
    });
    if (!succeeded(answer)) throw new Error("The server did not deliver this.");
  }

  async #enter() {
    this.#listener.state({ name: "connecting" });
    const client = await this.#connect();
    const settled = this.#listenTo(client);
    try {
      if (this.#stopped) throw new EntryError("refused", "You left.");
      const answer = await client.request(
        "connector.entryHandler.enter",
        { username: this.name, rid: this.room, presence: true },
        { timeout: STEP_TIMEOUT },
      );
      if (this.#stopped) throw new EntryError("refused", "You left.");
      if (!succeeded(answer)) throw refusal(answer, this);
      this.#client = client;
      this.#patience = Math.max(SHORTEST_PATIENCE, 2.5 * client.heartbeat);
      this.#listener.users(answer.users ?? []);
      this.#listener.state({ name: "connected" });
      settled();
    } catch (error) {
      client.close();
      throw asEntryError(error);
    }
    client.onClose((end) => this.#onLoss(end));
  }

  /** Asks the gate for a connector and connects to that. */
  async #connect() {
    try {
      const gate = await Client.connect(this.#gate, { timeout: STEP_TIMEOUT });
      let entry;
      try {
        entry = await gate.request("gate.gateHandler.queryEntry", { uid: this.name }, { timeout: STEP_TIMEOUT });
      } finally {
        gate.close();
      }
      if (!succeeded(entry)) throw new EntryError("refused", "No server is free to take you just now.");
      return await Client.connect(connectorUrl(this.#gate, entry), { timeout: STEP_TIMEOUT });
    } catch (error) {
      throw asEntryError(error);
    }
  }

  /**
   * Pushes may come in the same frame as the answer to `enter`, and are seen before it: they are held back until the returned
   * function is called.
   */
  #listenTo(client) {
    let early = [];
    const deliver = (fn) => (body) => (early ? early.push(() => fn(body)) : fn(body));
    client.on("onChat", deliver((body) => this.#listener.chat(body)));
    client.on("onAdd", deliver((body) => this.#listener.add(body.user)));
    client.on("onLeave", deliver((body) => this.#listener.leave(body.user)));
    client.on("onPresence", deliver((body) => this.#listener.presence(body)));
    return () => {
      const held = early;
      early = null;
      for (const push of held) push();
    };
  }

  async #onLoss({ reason, kicked }) {
    this.#client = null;
    if (this.#stopped) return;
    try {
      if (kicked && !COME_BACK.test(reason)) throw new EntryError("refused", `The server ended your stay: ${reason}`);
      await this.#keepTrying(FIRST_DELAY);
    } catch (error) {
      if (this.#stopped) return;
      this.#stopped = true;
      this.#listener.end(error);
    }
  }

  /** Tries for ever, except that a name taken for longer than our own old connection can explain is an error. */
  async #keepTrying(delay) {
    const since = Date.now();
    while (!this.#stopped) {
      await this.#pause(delay * (1 + Math.random() / 2)); // jitter: all who lost the same server come back
      if (this.#stopped) return;
      try {
        return await this.#enter();
      } catch (error) {
        if (error.kind === "taken" && Date.now() - since > this.#patience) throw error;
      }
      delay = Math.min(Math.max(2 * delay, FIRST_DELAY), LONGEST_DELAY);
    }
  }

  async #pause(milliseconds) {
    const until = Date.now() + milliseconds;
    let awake = false;
    for (let left = milliseconds; left > 0 && !awake && !this.#stopped; left = until - Date.now()) {
      this.#listener.state({ name: "waiting", seconds: Math.ceil(left / 1000) });
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, left % 1000 || 1000);
        this.#wake = () => {
          awake = true;
          clearTimeout(timer);
          resolve();
        };
      });
    }
    this.#wake = () => {};
  }
}

/** pomelo's own chat leaves the code out of a good answer, and puts it into every bad one. */
function succeeded(answer) {
  return (answer.code ?? 200) === 200;
}

function refusal(answer, { name, room }) {
  // Only the handler's own refusal has `error`; a failure of the server is a bare 500.
  return answer.error
    ? new EntryError("taken", `Somebody called “${name}” is already in “${room}”. Please take another name.`)
    : new EntryError("refused", `The server could not let you in (${answer.code}). Please try again.`);
}

function asEntryError(error) {
  if (error instanceof EntryError) return error;
  return new EntryError("unreachable", "The server cannot be reached. Please try again.", { cause: error });
}

/** @returns {string} the URL of the connector that the gate named, with the gate's own scheme. */
function connectorUrl(gate, { host = "", port }) {
  const { protocol, hostname } = new URL(gate);
  const name = SELF.has(host) ? hostname : host;
  return `${protocol}//${name.includes(":") && !name.startsWith("[") ? `[${name}]` : name}:${port}/`;
}
