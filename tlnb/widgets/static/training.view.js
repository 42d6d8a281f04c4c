export default {
  render({ model, el }) {
    const status = statusLine();
    const wire = new Wire(model, status);
    const training = new Training(model, wire);
    el.classList.add("tlnb-live");
    el.append(make("div", { class: "tlnb" }, training.element, status));
    return () => { training.stop(); wire.close(); };
  },
};
