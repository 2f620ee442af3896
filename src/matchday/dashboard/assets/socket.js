// The one live connection of this tab: reconnects by itself, for as long as it takes.

const FIRST_BACK_OFF_MS = 500;
const BACK_OFF_MS_MAX = 10_000;

export class LiveSocket {
  /**
   * @param {{message: (value: object) => void, state: (isOpen: boolean, retryMs: number) => void}} on
   */
  constructor(on) {
    this.on = on;
    this.venue = null;
    this.backOffMs = FIRST_BACK_OFF_MS;
    this.socket = null;
    this.timer = 0;
    addEventListener("online", () => this.#retryNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.#retryNow());
  }

  /** Watch a venue; the server then sends everything once and changes from there on. */
  watch(venue) {
    this.venue = venue;
    this.#open();
  }

  #open() {
    clearTimeout(this.timer);
    if (this.socket) {
      this.socket.onclose = null;
      this.socket.onmessage = null;
      this.socket.close();
    }
    const url = new URL("/api/v1/live", location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    url.searchParams.set("venue", this.venue);
    const socket = (this.socket = new WebSocket(url));
    socket.onopen = () => {
      this.backOffMs = FIRST_BACK_OFF_MS;
      this.on.state(true, 0);
    };
    socket.onmessage = (event) => this.on.message(JSON.parse(event.data));
    socket.onclose = () => this.#retryLater();
  }

  #retryLater() {
    // Jitter: after a restart of the server all tabs would otherwise come at once.
    const waitMs = this.backOffMs * (0.75 + Math.random() / 2);
    this.backOffMs = Math.min(this.backOffMs * 2, BACK_OFF_MS_MAX);
    this.socket = null;
    this.on.state(false, waitMs);
    this.timer = setTimeout(() => this.#open(), waitMs);
  }

  #retryNow() {
    if (this.socket === null && this.venue !== null) this.#open();
  }
}
