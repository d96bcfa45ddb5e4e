/*
 * A Worker for pages that are opened from file://, where browsers start none: it runs the script in a hidden frame of
 * the same page. The search of the site uses it. It has what that search needs: messages in both directions, errors,
 * and importScripts.
 */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inner = frame.contentWindow;
      const script = frame.contentDocument.createElement("script");
      inner.postMessage = (data) => this.receive(data);
      inner.importScripts = (...urls) =>
        urls.reduce((done, next) => done.then(() => new Promise((loaded, failed) => {
          const element = inner.document.createElement("script");
          Object.assign(element, { src: next, onload: loaded, onerror: failed });
          inner.document.body.append(element);
        })), Promise.resolve());
      script.onload = () => {
        this.deliver = (data) => inner.dispatchEvent(new inner.MessageEvent("message", { data }));
        this.waiting.forEach(this.deliver);
      };
      script.onerror = () => this.dispatchEvent(new ErrorEvent("error", { message: `cannot load ${url}` }));
      script.src = url;
      frame.contentDocument.body.append(script);
      this.frame = frame;
    }
    receive(data) {
      const event = new MessageEvent("message", { data });
      this.dispatchEvent(event);
      this.onmessage?.(event);
    }
    postMessage(data) {
      this.deliver ? this.deliver(data) : this.waiting.push(data);
    }
    terminate() {
      this.frame.remove();
    }
  };
}
