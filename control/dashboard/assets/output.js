// Follows a task: its output as it is written, and its facts when its state
// changes. Output is set as text, never as markup.
import { fresh, say, take } from './live.js';
import { Terminal } from './terminal.js';

// Of a stream the page holds so many characters at most, the newest; all that is
// kept is in the download.
const MOST = 1 << 20;

// Pane is one stream on the page.
class Pane {
  #element;
  #terminal = new Terminal();
  #decoder = new TextDecoder();
  #attempt = 0;
  #held = 0;
  #bytes;
  #pinned = false;

  constructor(element) {
    this.#element = element;
    this.#bytes = element.parentElement.querySelector('.bytes');
  }

  add({ attempt, offset, encoding, data }) {
    if (attempt !== this.#attempt) this.#begin(attempt);
    const raw = encoding === 'base64' ? Uint8Array.from(atob(data), (c) => c.charCodeAt(0)) : new TextEncoder().encode(data);
    const text = document.createTextNode(this.#terminal.write(this.#decoder.decode(raw, { stream: true })));
    const e = this.#element;
    const atEnd = e.scrollHeight - e.scrollTop - e.clientHeight < 40;
    e.append(text);
    this.#held += text.length;
    while (this.#held > MOST && e.firstChild !== text) {
      this.#held -= e.firstChild.length;
      e.firstChild.remove();
      e.dataset.cut = 'Older output is only in the download.';
    }
    this.#bytes.textContent = `${(offset + raw.length).toLocaleString('en').replaceAll(',', '\u202f')} B`;
    if (atEnd) this.#pin();
  }

  // #begin starts anew: what an attempt wrote that was lost is not the task's.
  #begin(attempt) {
    this.#element.replaceChildren();
    delete this.#element.dataset.cut;
    this.#terminal = new Terminal();
    this.#decoder = new TextDecoder();
    this.#attempt = attempt;
    this.#held = 0;
  }

  // #pin scrolls to the end with the next picture, once for all that came.
  #pin() {
    if (this.#pinned) return;
    this.#pinned = true;
    requestAnimationFrame(() => {
      this.#pinned = false;
      this.#element.scrollTop = this.#element.scrollHeight;
    });
  }

  end() {
    if (!this.#element.firstChild) this.#element.dataset.empty = 'Nothing.';
  }
}

export function followOutput(output) {
  const panes = {};
  for (const e of output.querySelectorAll('.stream')) panes[e.id] = new Pane(e);
  const events = new EventSource(output.dataset.events);
  const facts = async () => {
    try {
      take('facts', await fresh(location.href));
    } catch (fault) {
      say(`The facts above could not be brought up to date (${fault.message}). Reload this page.`, 'bad');
    }
  };
  events.onopen = () => say('Live', 'good');
  events.addEventListener('output', (e) => {
    const piece = JSON.parse(e.data);
    panes[piece.stream]?.add(piece);
  });
  events.addEventListener('state', (e) => {
    const { state, outcome } = JSON.parse(e.data);
    if (state === 'finished') {
      events.close();
      for (const pane of Object.values(panes)) pane.end();
      say(`Finished: ${outcome}`);
    }
    facts();
  });
  events.onerror = () => {
    if (events.readyState === EventSource.CLOSED) say('Not live any more: reload this page. You may have to sign in again.', 'bad');
    else say('Connection lost; trying again.', 'warn');
  };
  addEventListener('pagehide', () => events.close());
  addEventListener('pageshow', (shown) => { if (shown.persisted) location.reload(); });
}
