export default {
  render({ model, el }) {
    const status = statusLine();
    const wire = new Wire(model, status);
    const training = new Training(model, wire);
    const rested = rest(model, el);
    el.append(make("div", { class: "tlnb" }, training.element, status));
    return () => { rested(); training.stop(); wire.close(); };
  },
};
