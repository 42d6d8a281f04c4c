export default {
  render({ model, el }) {
    const status = statusLine();
    const wire = new Wire(model, status);
    const panel = new Panel(model, wire);
    el.classList.add("tlnb-live");
    el.append(make("div", { class: "tlnb" }, panel.element, status));
    return () => { panel.stop(); wire.close(); };
  },
};
