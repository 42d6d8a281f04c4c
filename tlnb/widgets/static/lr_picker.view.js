export default {
  render({ model, el }) {
    const status = statusLine();
    const wire = new Wire(model, status);
    const picker = new Picker(model, wire);
    const training = new Training(model, wire);
    const magic = make("code", { class: "tlnb-magic" });
    const teach = () => say(magic, model.get("magic"));
    const stop = follow(model, ["magic"], teach);
    teach();
    const rested = rest(model, el);
    el.append(make("div", { class: "tlnb" }, picker.element, magic, status, training.notes, training.element));
    return () => { rested(); picker.stop(); training.stop(); stop(); wire.close(); };
  },
};
