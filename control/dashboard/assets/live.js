// Keeps a page fresh: the server tells that it shows something else by now, the
// page is asked for again, and what differs is put in place. Focus, selection and
// scrolling stay, because what is the same is not touched.

// say tells how the connection is, at the foot of the page.
export function say(text, tone = '') {
  const link = document.getElementById('link');
  link.textContent = text;
  link.className = tone;
}

// fresh asks for a page as a document. No text becomes markup by a script: the
// browser's own loader reads it.
export function fresh(address) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.responseType = 'document';
    request.timeout = 15000;
    request.onload = () => {
      if (request.status === 200 && request.responseXML && sameFile(request.responseURL, address)) resolve(request.responseXML);
      else reject(new Error(`status ${request.status}`));
    };
    request.onerror = request.ontimeout = () => reject(new Error('no answer'));
    request.open('GET', address);
    request.send();
  });
}

// sameFile is false for one that was sent elsewhere, to sign in.
function sameFile(a, b) {
  return new URL(a, location.href).pathname === new URL(b, location.href).pathname;
}

// take puts what differs of an element of a fresh document in its place.
export function take(id, from) {
  const to = document.getElementById(id);
  const now = from.getElementById(id);
  if (to && now) morph(to, now);
}

// morph makes one element like another. Children with an id are found again by it,
// so that a new line at the top of a table moves the others and does not rewrite
// them.
function morph(to, from) {
  for (const { name, value } of from.attributes) {
    if (to.getAttribute(name) !== value) to.setAttribute(name, value);
  }
  for (const { name } of [...to.attributes]) {
    if (!from.hasAttribute(name)) to.removeAttribute(name);
  }
  const wanted = new Set([...from.children].map((e) => e.id).filter(Boolean));
  let at = to.firstChild;
  for (const next of [...from.childNodes]) {
    while (at?.id && at.id !== next.id && !wanted.has(at.id)) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
    const found = next.id ? [...to.children].find((e) => e.id === next.id) : null;
    if (found && found !== at) to.insertBefore(found, at);
    const same = found ?? (at && !at.id && at.nodeName === next.nodeName ? at : null);
    if (!same) {
      to.insertBefore(document.importNode(next, true), at);
      continue;
    }
    if (same === at) at = at.nextSibling;
    if (same.nodeType === Node.ELEMENT_NODE) morph(same, next);
    else if (same.data !== next.data) same.data = next.data;
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

// followPage has one stream for the page, and asks for it again when told.
export function followPage(main) {
  let asking = false;
  let again = false;
  const events = new EventSource(main.dataset.live);
  const refresh = async () => {
    if (asking) {
      again = true;
      return;
    }
    asking = true;
    do {
      again = false;
      try {
        const page = await fresh(location.href);
        // What somebody is typing stays.
        const form = main.querySelector('form.filter');
        if (form?.contains(document.activeElement)) page.querySelector('form.filter')?.replaceWith(page.importNode(form, true));
        page.getElementById('main').dataset.live = main.dataset.live;
        take('main', page);
        say('Live', 'good');
      } catch (fault) {
        say(`This page could not be brought up to date (${fault.message}). Reload it.`, 'bad');
      }
    } while (again);
    asking = false;
  };
  events.onopen = () => say('Live', 'good');
  events.addEventListener('changed', refresh);
  events.onerror = () => {
    if (events.readyState === EventSource.CLOSED) say('Not live any more: reload this page. You may have to sign in again.', 'bad');
    else say('Connection lost; trying again.', 'warn');
  };
  // A page that is kept for going back holds no stream of the few there may be.
  addEventListener('pagehide', () => events.close());
  addEventListener('pageshow', (shown) => { if (shown.persisted) location.reload(); });
}
