/** The message log: lines grouped by sender, bounded in number, and scrolled only for those who read its end. */

const LIMIT = 500; // lines; the oldest go first
const SAME_GROUP = 5 * 60_000; // a longer silence starts a new group, and so shows the time again
const AT_END = 48; // pixels from the end that still count as reading it

/**
 * @param {string} tag
 * @param {string} className
 * @param {...(Node|string)} children strings become text, never markup.
 */
export function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** A name's own hue in degrees: the same for everybody, now and later. */
export function hueOf(name) {
  let hash = 0x811c9dc5; // FNV-1a, with one more round of mixing because names are short
  for (const unit of name) hash = Math.imul(hash ^ unit.codePointAt(0), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  return (hash >>> 8) % 360;
}

/** A round badge with the name's first letter. */
export function avatar(name) {
  const badge = element("span", "avatar", [...name][0]?.toUpperCase() ?? "?");
  badge.style.setProperty("--hue", hueOf(name));
  badge.setAttribute("aria-hidden", "true");
  return badge;
}

/** One message. Own lines start out "sending" and become "sent" or "failed"; others' are "sent" from the start. */
export class Line {
  constructor(text, { own }) {
    this.text = text;
    this.own = own;
    this.bubble = element("p", "bubble", text);
    this.bubble.dir = "auto";
    this.node = element("div", "line", this.bubble);
    this.#set(own ? "sending" : "sent");
  }

  sending() {
    this.#set("sending");
  }

  sent() {
    this.#set("sent");
  }

  /** @param {string} reason shown below the line. @param {() => void} retry called by the button beside it. */
  failed(reason, retry) {
    const button = element("button", "link", "Try again");
    button.type = "button";
    button.onclick = retry;
    this.#set("failed", element("p", "failure", `${reason} `, button));
    this.node.scrollIntoView({ block: "nearest" });
  }

  #set(state, ...below) {
    this.state = state;
    this.node.dataset.state = state;
    this.node.replaceChildren(this.bubble, ...below);
  }
}

export class Log {
  #root;
  #more;
  #lines = []; // nodes, oldest first
  #group = null; // {key, node, last: time of its last line}
  #day = new Date().toDateString();

  /**
   * @param {HTMLElement} root scrolls; anything already in it counts as the empty state and is hidden by the first line.
   * @param {HTMLElement} more shown while there are unread lines below; a click goes there.
   */
  constructor(root, more) {
    this.#root = root;
    this.#more = more;
    more.onclick = () => this.toEnd();
    let wasAtEnd = true;
    root.addEventListener("scroll", () => {
      wasAtEnd = this.#atEnd();
      if (wasAtEnd) more.hidden = true;
    });
    // A phone's keyboard takes away height: who was reading the end goes on reading it.
    new ResizeObserver(() => wasAtEnd && this.toEnd()).observe(root);
  }

  /**
   * @param {{from: string, text: string, own: boolean, privately?: ?string}} message `privately` names the other side of a
   *     private message.
   * @returns {Line} which the caller keeps to tell how sending went.
   */
  message({ from, text, own, privately = null }) {
    const now = new Date();
    const line = new Line(text, { own });
    line.bubble.title = now.toLocaleString();
    this.#add(line.node, () => this.#groupFor(from, own, privately, now), own);
    return line;
  }

  /** A remark of the page itself: somebody came, the connection went. */
  note(text) {
    this.#add(element("p", "note", text), () => {
      this.#group = null;
      return this.#root;
    });
  }

  clear() {
    for (const line of this.#lines) line.remove();
    for (const rest of this.#root.querySelectorAll(".group, .day")) rest.remove();
    this.#lines = [];
    this.#group = null;
    this.#more.hidden = true;
  }

  toEnd() {
    this.#root.scrollTop = this.#root.scrollHeight;
    this.#more.hidden = true;
  }

  #add(node, parent, follow = false) {
    const stay = !follow && !this.#atEnd();
    this.#markDay();
    parent().append(node);
    this.#lines.push(node);
    while (this.#lines.length > LIMIT) this.#drop(this.#lines.shift());
    if (stay) this.#more.hidden = false;
    else this.toEnd();
  }

  #groupFor(from, own, privately, now) {
    const key = JSON.stringify([from, own, privately]);
    if (this.#group?.key !== key || now - this.#group.last > SAME_GROUP) {
      this.#group = { key, node: this.#newGroup(from, own, privately, now) };
      this.#root.append(this.#group.node);
    }
    this.#group.last = now;
    return this.#group.node.lastChild;
  }

  #newGroup(from, own, privately, now) {
    const who = element("span", "who", own ? "You" : from);
    who.dir = "auto";
    who.style.setProperty("--hue", hueOf(from));
    const time = element("time", "", now.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
    time.dateTime = now.toISOString();
    const head = element("header", "", who, time);
    if (privately) head.insertBefore(element("span", "privately", own ? `only to ${privately}` : "only to you"), time);
    const node = element("article", "group", avatar(from), element("div", "lines", head));
    node.classList.toggle("own", own);
    node.classList.toggle("private", Boolean(privately));
    return node;
  }

  #markDay() {
    const today = new Date();
    if (today.toDateString() === this.#day) return;
    this.#day = today.toDateString();
    this.#group = null;
    this.#root.append(element("p", "day", today.toLocaleDateString([], { weekday: "long", day: "numeric", month: "long" })));
  }

  #drop(node) {
    const group = node.closest(".group");
    node.remove();
    if (group && !group.querySelector(".line")) group.remove();
  }

  #atEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#root;
    return scrollHeight - scrollTop - clientHeight < AT_END;
  }
}
