export default {
  render({ model, el }) {
    const status = statusLine();
    const wire = new Wire(model, status);
    const map = new SampleMap(model, wire);
    const rested = rest(model, el);
    el.append(make("div", { class: "tlnb" }, map.element, status));
    return () => { rested(); map.stop(); wire.close(); };
  },
};
