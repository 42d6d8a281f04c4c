export default {
  render({ model, el }) {
    const status = statusLine();
    const wire = new Wire(model, status);
    const grid = new SuspectGrid(model, wire);
    const rested = rest(model, el);
    el.append(make("div", { class: "tlnb" }, grid.element, status));
    return () => { rested(); grid.stop(); wire.close(); };
  },
};
