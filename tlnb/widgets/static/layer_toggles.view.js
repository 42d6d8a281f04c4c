export default {
  render({ model, el }) {
    const status = statusLine();
    const wire = new Wire(model, status);
    const strip = new Strip(model, wire);
    el.classList.add("tlnb-live");
    el.append(make("div", { class: "tlnb" }, strip.element, status));
    return () => { strip.stop(); wire.close(); };
  },
};
