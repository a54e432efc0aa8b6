// Terminal takes out of a text what would steer a terminal, and makes visible what
// would hide or turn around other text. A sequence that never ends hides no more
// than its line. text.go does the same; both are held against
// testdata/terminal.json.

const [TEXT, ESCAPE, SEQUENCE, STRING] = [0, 1, 2, 3];

export class Terminal {
  #state = TEXT;
  #returned = false; // a carriage return was the last

  // write takes the next piece of a stream and gives what to show of it.
  write(text) {
    let shown = '';
    for (const c of text) shown += this.#take(c, c.codePointAt(0));
    return shown;
  }

  #take(c, n) {
    const returned = this.#returned;
    this.#returned = false;
    switch (this.#state) {
      case ESCAPE:
        this.#state = TEXT;
        if (c === '[') {
          this.#state = SEQUENCE;
          return '';
        }
        if (']PX^_'.includes(c)) {
          this.#state = STRING;
          return '';
        }
        if (c >= ' ' && c <= '/') { // more of it comes
          this.#state = ESCAPE;
          return '';
        }
        if (c >= '0' && c <= '~') return '';
        break;
      case SEQUENCE:
        if (c >= ' ' && c <= '?') return '';
        this.#state = TEXT;
        if (c >= '@' && c <= '~') return '';
        break;
      case STRING:
        if (n === 0x07 || n === 0x9c) {
          this.#state = TEXT;
          return '';
        }
        if (n === 0x1b) { // of ESC \, which ends it
          this.#state = ESCAPE;
          return '';
        }
        if (c !== '\n' && c !== '\r') return '';
        this.#state = TEXT;
        break;
    }
    return this.#show(c, n, returned);
  }

  // #show gives a character that belongs to no sequence, or begins one.
  #show(c, n, returned) {
    if (n === 0x1b) this.#state = ESCAPE;
    else if (n === 0x9b) this.#state = SEQUENCE;
    else if (n === 0x90 || n === 0x98 || (n >= 0x9d && n <= 0x9f)) this.#state = STRING;
    else if (c === '\r') { // a terminal would write over the line; here nothing is hidden
      this.#returned = true;
      return '\n';
    } else if (c === '\n' && returned) return '';
    else if (c === '\n' || c === '\t') return c;
    else if (n < 0x20) return String.fromCodePoint(0x2400 + n); // its picture
    else if (n === 0x7f) return '\u2421';
    else if (n >= 0x80 && n < 0xa0) return '\ufffd';
    else if (turns(n)) return `<U+${n.toString(16).toUpperCase().padStart(4, '0')}>`;
    else return c;
    return '';
  }
}

// turns tells characters that change the direction of the text around them.
function turns(n) {
  return n === 0x61c || n === 0x200e || n === 0x200f || (n >= 0x202a && n <= 0x202e) || (n >= 0x2066 && n <= 0x2069);
}
