/**
 * The chat example in a real browser, end to end.
 *
 *     npm install --ignore-scripts && node chat.mjs <page-url> [screenshot-dir]
 *
 * Needs a running server and Chromium (/usr/bin/chromium, or what $CHROMIUM names). Three visitors, each in a context of
 * their own: Ada on a desktop, Bo on a phone, Cy on a connection that gets cut. Prints one line of JSON:
 * {"ok", "checks": {name: milliseconds}, "failed": {"check", "error"} | null, "complaints", "screenshots"}.
 * Exits 0 if everything holds, 1 if not, 2 for wrong arguments.
 */

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [url, shots] = process.argv.slice(2);
if (!url) {
  console.error("usage: node chat.mjs <page-url> [screenshot-dir]");
  process.exit(2);
}
const STEP = 10_000; // for one thing to become true
const COMEBACK = 90_000; // until a lost connection's name is free again: two heartbeats, plus the page's own backoff
const ARGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const DESKTOP = { viewport: { width: 1200, height: 780 } };
const PHONE = { viewport: { width: 390, height: 780 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

const room = `e2e-${Date.now().toString(36)}`; // a fresh room each run: an earlier one's users may not be gone yet
const checks = {};
const complaints = []; // what pages said on their consoles, and requests that failed
const screenshots = [];

/** Waits until `read()` gives what `wanted` accepts, and names both in the error if it never does. */
async function eventually(what, read, wanted, timeout = STEP) {
  const until = Date.now() + timeout;
  let value;
  do {
    value = await read();
    if (wanted(value)) return value;
    await new Promise((resolve) => setTimeout(resolve, 25));
  } while (Date.now() < until);
  throw new Error(`${what}: still ${JSON.stringify(value)} after ${timeout / 1000} s`);
}

/** One person's browser. */
class Visitor {
  static async arrive(browser, name, device) {
    const visitor = new Visitor();
    visitor.name = name;
    visitor.page = await (await browser.newContext({ colorScheme: "light", ...device })).newPage();
    visitor.page.setDefaultTimeout(STEP);
    visitor.page.on("pageerror", (error) => complaints.push(`${name}: ${error.message}`));
    visitor.page.on("console", (line) => line.type() === "error" && complaints.push(`${name}: ${line.text()}`));
    visitor.page.on("response", (answer) => answer.status() >= 400 && complaints.push(`${answer.status()} ${answer.url()}`));
    return visitor;
  }

  async ask(name, where = room) {
    await this.page.fill("#name", name);
    await this.page.fill("#room", where);
    await this.page.click("#join");
  }

  async join(where) {
    await this.page.goto(url);
    await this.ask(this.name, where);
    await this.connected();
  }

  connected(timeout) {
    const state = () => this.page.getAttribute("#state", "data-state");
    return eventually(`${this.name}'s state`, state, (now) => now === "connected", timeout);
  }

  async say(text, target = "*") {
    await this.page.selectOption("#target", target);
    await this.page.fill("#message", text);
    await this.page.press("#message", "Enter");
  }

  users() {
    return this.page.locator("#users .user-name").allTextContents();
  }

  async seesUsers(...names) {
    const wanted = names.sort().join();
    await eventually(`users that ${this.name} sees`, () => this.users(), (now) => [...now].sort().join() === wanted);
  }

  /** Sees `text` in just one line, settled, and (if given) inside what `selector` matches. */
  async sees(text, selector = ".group") {
    const lines = () => this.page.locator(`#log ${selector} .line[data-state=sent] .bubble`).allTextContents();
    await eventually(`“${text}” in ${this.name}'s log`, lines, (all) => all.filter((line) => line === text).length === 1);
  }

  async seesNote(text, timeout) {
    const notes = () => this.page.locator("#log .note").allTextContents();
    await eventually(`${this.name}'s notes`, notes, (all) => all.includes(text), timeout);
  }

  async shoot(label) {
    if (!shots) return;
    mkdirSync(shots, { recursive: true });
    const path = join(shots, `${label}.png`);
    await this.page.screenshot({ path });
    screenshots.push(path);
  }
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

function assert(truth, message) {
  if (!truth) throw new Error(message);
}

async function run(browser) {
  const ada = await Visitor.arrive(browser, "Ada", DESKTOP);
  const bo = await Visitor.arrive(browser, "Bo", PHONE);
  const cy = await Visitor.arrive(browser, "Cy", DESKTOP);
  const cyLines = []; // Cy's WebSockets, to be cut
  await cy.page.routeWebSocket(/./, (line) => {
    const server = line.connectToServer();
    cyLines.push({ cut: () => Promise.all([line.close({ code: 1011 }), server.close()]) });
  });

  await check("a visitor joins and is alone", async () => {
    await ada.page.goto(url);
    await ada.shoot("door-desktop");
    await ada.join();
    await ada.seesUsers("Ada");
    assert(new URL(ada.page.url()).hash === `#${room}`, "the room is not in the page's address");
    await ada.shoot("empty-desktop");
  });

  await check("the second visitor and the first see each other", async () => {
    await bo.page.goto(`${url}#${room}`);
    assert((await bo.page.inputValue("#room")) === room, "the room was not read from the address");
    await bo.shoot("door-phone");
    await bo.join();
    await bo.seesUsers("Ada", "Bo");
    await ada.seesUsers("Ada", "Bo");
    await ada.seesNote("Bo joined");
  });

  await check("room messages go both ways, each shown once", async () => {
    await ada.say("Hello from the desktop");
    await bo.sees("Hello from the desktop");
    await ada.sees("Hello from the desktop", ".own");
    await bo.say("Hello from the phone 👋 你好");
    await ada.sees("Hello from the phone 👋 你好");
    await bo.sees("Hello from the phone 👋 你好", ".own");
  });

  await check("markup is shown as text", async () => {
    const markup = "<img src=x onerror=alert(1)> <b>not bold</b>";
    await bo.say(markup);
    await ada.sees(markup);
    assert((await ada.page.locator("#log img, #log b").count()) === 0, "markup was interpreted");
  });

  await check("a name already taken is refused, another is not", async () => {
    await cy.page.goto(url);
    await cy.ask("Ada");
    const error = await eventually("the form's error", () => cy.page.textContent("#join-error"), Boolean);
    assert(error.includes("Ada"), `the message does not name the name: ${error}`);
    assert(await cy.page.isVisible("#form"), "the form is gone");
    await cy.shoot("taken-desktop");
    await cy.ask("Cy");
    await cy.connected();
    await ada.seesUsers("Ada", "Bo", "Cy");
  });

  await check("a private message reaches one and its sender's own log only", async () => {
    await ada.page.click("#users button:has-text('Bo')");
    assert((await ada.page.inputValue("#target")) === "Bo", "a click on a user does not aim at them");
    await ada.say("Just between us", "Bo");
    await ada.shoot("private-desktop");
    await bo.sees("Just between us", ".private");
    await ada.sees("Just between us", ".own.private");
    await bo.say("I will keep it", "Ada");
    await ada.sees("I will keep it", ".private:not(.own)");
    await ada.say("After the secret"); // comes later on the same way, so the secret would be there by now
    await cy.sees("After the secret");
    assert(!(await cy.page.textContent("#log")).includes("Just between us"), "a third person read it");
  });

  await check("pictures of a conversation", async () => {
    await bo.say("Same table as last time?");
    await bo.say("I can bring the fruit. A pummelo is about the size of a head, so one will do for everybody.", "*");
    await cy.say("Count me in");
    await ada.say("Lovely. Seven o’clock it is");
    for (const visitor of [ada, bo]) await visitor.sees("Lovely. Seven o’clock it is");
    await bo.sees("Count me in");
    for (const scheme of ["light", "dark"]) {
      for (const visitor of [ada, bo]) await visitor.page.emulateMedia({ colorScheme: scheme });
      await ada.shoot(`room-desktop-${scheme}`);
      await bo.shoot(`room-phone-${scheme}`);
    }
    await bo.page.click("#people");
    await bo.page.locator("#users").waitFor({ state: "visible" });
    await eventually("the sliding list", () => bo.page.evaluate(() => document.getAnimations().length), (n) => n === 0);
    await bo.shoot("people-phone-dark");
    await bo.page.keyboard.press("Escape");
    await bo.page.locator("#users").waitFor({ state: "hidden" });
  });

  await check("who is online in other rooms is seen as they come and go", async () => {
    const others = await Promise.all(["Dee", "Eve"].map((name) => Visitor.arrive(browser, name, DESKTOP)));
    for (const other of others) await other.join(`${room}-${other.name}`);
    const elsewhere = () => ada.page.locator("#elsewhere li").allTextContents();
    const shows = (...names) => (now) => now.length === names.length && names.every((name) => now.join().includes(name));
    await eventually("who Ada sees elsewhere", elsewhere, shows("Dee", "Eve"));
    await ada.shoot("elsewhere-desktop");
    await others[0].page.close();
    await eventually("who Ada sees elsewhere", elsewhere, shows("Eve"));
    await others[1].page.close();
    await eventually("who Ada sees elsewhere", elsewhere, shows());
  });

  await check("a cut connection comes back, with the history kept", async () => {
    await Promise.all(cyLines.map((line) => line.cut()));
    await cy.seesNote("The connection was lost. You will be let back in as soon as possible.");
    await cy.shoot("reconnecting-desktop");
    await cy.seesNote("You are back.", COMEBACK);
    await cy.connected();
    await cy.sees("After the secret");
    await ada.say("Still there?");
    await cy.sees("Still there?");
    await cy.say("Yes");
    await ada.sees("Yes");
  });

  await check("a reloaded page enters again by itself", async () => {
    await bo.page.reload();
    await bo.connected(COMEBACK);
    await ada.say("Welcome back");
    await bo.sees("Welcome back");
  });

  await check("leaving is seen", async () => {
    await bo.page.click("#leave");
    assert(await bo.page.isVisible("#form"), "leaving does not lead to the form");
    await ada.seesUsers("Ada", "Cy");
    await ada.seesNote("Bo left");
  });

  await check("pages have nothing to complain about", () => {
    assert(complaints.length === 0, complaints.join("; "));
  });
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  args: ARGS,
});
let failed = null;
try {
  await run(browser);
} catch (error) {
  failed = { check: error.check ?? "before the checks", error: error.message };
} finally {
  await browser.close();
}
console.log(JSON.stringify({ ok: failed === null, checks, failed, complaints, screenshots }));
process.exit(failed ? 1 : 0);
