export default {
  render({ model, el }) {
    const status = statusLine();
    const wire = new Wire(model, status);
    const strip = new Strip(model, wire);
    const rested = rest(model, el);
    el.append(make("div", { class: "tlnb" }, strip.element, status));
    return () => { rested(); strip.stop(); wire.close(); };
  },
};
