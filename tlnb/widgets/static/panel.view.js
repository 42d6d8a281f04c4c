export default {
  render({ model, el }) {
    const status = statusLine();
    const wire = new Wire(model, status);
    const panel = new Panel(model, wire);
    const rested = rest(model, el);
    el.append(make("div", { class: "tlnb" }, panel.element, status));
    return () => { rested(); panel.stop(); wire.close(); };
  },
};
