/** The page: the form at the door, the room behind it, and what the user does in either. */

import { Log, avatar, element } from "./log.js";
import { Session } from "./session.js";

const EVERYONE = "*";
const REMEMBERED = "pummelo.chat";
const $ = (id) => document.getElementById(id);

const log = new Log($("log"), $("more"));
const title = document.title;
let session = null; // while in a room, or on the way in
let users = new Set();
let online = new Map(); // everybody in any room, by uid: {name, room}
let unread = 0;
let unconfirmed = []; // own lines the room has not echoed yet: {line, text, target}
let presence = "outside"; // then "inside", and "lost" between a loss and the way back in
let lastRoom = null; // whose lines the log holds

// --- The way in and out -------------------------------------------------------------------------------------------------

async function join({ insist = false } = {}) {
  const name = $("name").value.trim();
  const room = $("room").value.trim();
  const complaint = complaintAbout("name", name) ?? complaintAbout("room", room);
  if (complaint) return refuse(...complaint);

  showError("");
  busy(true);
  const gate = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/`;
  const mine = new Session({ gate, name, room }, listener);
  session = mine;
  if (insist) showRoom();
  try {
    await mine.start({ insist });
  } catch (error) {
    if (session === mine) turnedAway(error);
  }
}

function complaintAbout(field, value) {
  if (!value) return [field, field === "name" ? "Please say what to call you." : "Please say which room to enter."];
  // pomelo's chat joins name and room by a star to make the user's id, and a lone star means everyone.
  if (value.includes("*")) return [field, `A ${field} cannot contain a star (*).`];
  return null;
}

function refuse(field, message) {
  showError(message);
  $(field).setAttribute("aria-invalid", "true");
  $(field).focus();
}

/** Back to the form, not by the user's own wish. @param {EntryError} error */
function turnedAway({ kind, message }) {
  showDoor();
  if (kind === "taken") return refuse("name", message);
  showError(message);
  $("join").focus();
}

function leave() {
  session?.stop();
  showDoor();
  $("name").focus();
}

function showError(message) {
  $("join-error").textContent = message;
  $("join-error").hidden = !message;
  for (const field of ["name", "room"]) $(field).removeAttribute("aria-invalid");
}

function busy(yes) {
  $("join").disabled = yes;
  $("join").textContent = yes ? "Joining…" : "Join";
}

function showDoor() {
  session = null;
  presence = "outside";
  remember({ inside: false });
  busy(false);
  togglePeople(false);
  $("chat").hidden = true;
  $("door").hidden = false;
  document.title = title;
}

function showRoom() {
  const { name, room } = session;
  remember({ name, room, inside: true });
  history.replaceState(null, "", `#${encodeURIComponent(room)}`);
  if (room !== lastRoom) log.clear();
  lastRoom = room;
  users = new Set([name]);
  online = new Map();
  showElsewhere();
  $("room-name").textContent = room;
  $("target").replaceChildren();
  showUsers();
  aim(EVERYONE);
  unread = 0;
  countUnread();
  $("door").hidden = true;
  $("chat").hidden = false;
  $("message").focus();
  log.toEnd();
}

function remember(changes) {
  sessionStorage.setItem(REMEMBERED, JSON.stringify({ ...remembered(), ...changes }));
}

function remembered() {
  return JSON.parse(sessionStorage.getItem(REMEMBERED) ?? "{}");
}

function roomInAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return ""; // not what this page wrote there
  }
}

// --- What the session tells ---------------------------------------------------------------------------------------------

const listener = {
  state({ name, seconds }) {
    $("state").dataset.state = name;
    $("state-text").textContent = { connecting: "Connecting…", connected: "Connected", waiting: "Reconnecting" }[name];
    $("state-count").textContent = name === "waiting" ? ` in ${seconds} s` : "";
    $("retry").hidden = name !== "waiting";
    if (name === "waiting" && presence === "inside") {
      presence = "lost";
      unconfirmed = [];
      log.note("The connection was lost. You will be let back in as soon as possible.");
    }
    if (name === "connected") {
      if (presence === "lost") log.note("You are back.");
      presence = "inside";
    }
  },

  users(list) {
    if ($("chat").hidden) showRoom();
    users = new Set([session.name, ...list]);
    showUsers();
  },

  chat({ msg, from, target }) {
    if (from === session.name && confirm(msg, target)) return;
    const privately = target === EVERYONE ? null : from;
    log.message({ from, text: String(msg), own: from === session.name, privately }).sent();
    if (document.hidden) unread += 1;
    countUnread();
  },

  add(user) {
    if (users.has(user)) return;
    users.add(user);
    showUsers();
    log.note(`${user} joined`);
  },

  leave(user) {
    // Our own name in it is the end of the connection before this one, which the server noticed late.
    if (user === session.name || !users.delete(user)) return;
    showUsers();
    log.note(`${user} left`);
  },

  presence({ joined, left, reset }) {
    if (reset) online = new Map();
    for (const { uid, meta } of joined) online.set(uid, meta);
    for (const uid of left) online.delete(uid);
    showElsewhere();
  },

  end: turnedAway,
};

// --- Sending ------------------------------------------------------------------------------------------------------------

function say() {
  const text = $("message").value.trim();
  if (!text) return;
  const target = $("target").value;
  const privately = target === EVERYONE ? null : target;
  const line = log.message({ from: session.name, text, own: true, privately });
  $("message").value = "";
  fitMessage();
  deliver(line, text, target);
}

async function deliver(line, text, target) {
  const sent = { line, text, target };
  line.sending();
  unconfirmed.push(sent);
  try {
    await session.send(text, target);
    line.sent();
    // The server echoes what went to the room or to oneself, and only that.
    if (target !== EVERYONE && target !== session?.name) forget(sent);
  } catch (error) {
    forget(sent);
    const absent = target !== EVERYONE && !users.has(target);
    line.failed(absent ? `${target} is not in the room.` : error.message, () => session && deliver(line, text, target));
  }
}

/** The room's echo of an own line, which is in the log already. */
function confirm(text, target) {
  const sent = unconfirmed.find((other) => other.text === text && other.target === target);
  if (!sent) return false;
  sent.line.sent();
  forget(sent);
  return true;
}

function forget(sent) {
  unconfirmed = unconfirmed.filter((other) => other !== sent);
}

/** Chooses who gets the next message. */
function aim(target) {
  $("target").value = target;
  const privately = target !== EVERYONE;
  $("composer").classList.toggle("private", privately);
  $("message").placeholder = privately ? `Only ${target} will see this` : `Message ${session.room}`;
  $("everyone").hidden = !privately;
}

function fitMessage() {
  const box = $("message");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`; // the borders
  $("send").disabled = !box.value.trim();
}

// --- Who is here --------------------------------------------------------------------------------------------------------

function showUsers() {
  const others = [...users].filter((user) => user !== session.name).sort((a, b) => a.localeCompare(b));
  const myName = element("span", "user-name", session.name);
  const me = element("li", "user", avatar(session.name), myName, element("small", "", "you"));
  $("users").replaceChildren(me, ...others.map(userEntry));
  $("count").textContent = users.size;
  $("people").setAttribute("aria-label", `${users.size} ${users.size === 1 ? "person" : "people"} here`);
  $("alone").hidden = others.length > 0;
  showTargets(others);
}

/** Those in other rooms, whichever servers these are on. */
function showElsewhere() {
  const others = [...online.values()].filter(({ room }) => room !== session?.room);
  others.sort((a, b) => a.room.localeCompare(b.room) || a.name.localeCompare(b.name));
  const entry = ({ name, room }) =>
    element("li", "user", avatar(name), element("span", "user-name", name), element("small", "", room));
  $("elsewhere").replaceChildren(...others.map(entry));
  $("elsewhere-title").hidden = others.length === 0;
}

function userEntry(user) {
  const button = element("button", "user", avatar(user), element("span", "user-name", user));
  button.type = "button";
  button.title = `Write to ${user} only`;
  button.onclick = () => {
    aim(user);
    togglePeople(false);
    $("message").focus();
  };
  return element("li", "", button);
}

/** Whoever is aimed at stays so even when gone: to fall back to everyone would make the next private message public. */
function showTargets(others) {
  const aimed = $("target").value || EVERYONE;
  const gone = aimed !== EVERYONE && !others.includes(aimed);
  $("target").replaceChildren(
    new Option("Everyone", EVERYONE),
    ...others.map((user) => new Option(user, user)),
    ...(gone ? [new Option(`${aimed} (left)`, aimed)] : []),
  );
  $("target").value = aimed;
}

function togglePeople(open) {
  $("chat").classList.toggle("people-open", open);
  $("people").setAttribute("aria-expanded", String(open));
}

function countUnread() {
  document.title = `${unread ? `(${unread}) ` : ""}${session.room} – ${title}`;
}

// --- Wiring -------------------------------------------------------------------------------------------------------------

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!session) join();
});
$("leave").addEventListener("click", leave);
$("retry").addEventListener("click", () => session?.retryNow());
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  say();
  $("message").focus();
});
$("message").addEventListener("input", fitMessage);
$("message").addEventListener("keydown", (event) => {
  if (event.isComposing) return; // Enter that picks a word of an input method
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    say();
  }
  if (event.key === "Escape") aim(EVERYONE);
});
$("target").addEventListener("change", () => {
  aim($("target").value);
  $("message").focus();
});
$("everyone").addEventListener("click", () => {
  aim(EVERYONE);
  $("message").focus();
});
$("people").addEventListener("click", () => {
  togglePeople(true);
  // The list is still outside on its way in, and must not be scrolled to.
  ($("users").querySelector("button") ?? $("panel")).focus({ preventScroll: true });
});
$("veil").addEventListener("click", () => {
  togglePeople(false);
  $("people").focus();
});
$("chat").addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !$("chat").classList.contains("people-open")) return;
  togglePeople(false);
  $("people").focus();
});
for (const button of document.querySelectorAll(".copy")) {
  button.hidden = !navigator.clipboard; // browsers withhold it from plain-http pages of other machines
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(location.href);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy link"), 2000);
  });
}
document.addEventListener("visibilitychange", () => {
  if (document.hidden || !session) return;
  unread = 0;
  countUnread();
  session.retryNow();
});
window.addEventListener("online", () => session?.retryNow());
window.addEventListener("pagehide", () => session?.stop());
window.addEventListener("pageshow", (event) => event.persisted && location.reload());
window.addEventListener("hashchange", () => {
  const room = roomInAddress();
  if (!room || room === session?.room) return;
  const inside = session !== null;
  if (inside) leave();
  $("room").value = room;
  if (inside) join();
});

const { name = "", room = "lobby", inside = false } = remembered();
$("name").value = name;
$("room").value = roomInAddress() || room;
if (inside && $("room").value === room) join({ insist: true });
else (name ? $("join") : $("name")).focus();
