"use strict";
(() => {
  const named = /^var\((--[a-z0-9-]+)\)$/;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)");
  const drawn = new Map();

  // Colours in a drawing are names of the page's style; the style changes with light and dark.
  const painted = (value, style) => {
    if (typeof value === "string") {
      const name = named.exec(value);
      return name ? style.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) {
      return typeof value[0] === "number" ? value : value.map((one) => painted(one, style));
    }
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, painted(one, style)]));
    }
    return value;
  };

  const draw = (figure) => {
    const state = drawn.get(figure) || { hidden: new Set(), chosen: {}, source: JSON.parse(figure.querySelector("script").textContent) };
    drawn.set(figure, state);
    const { data, layout } = painted({ data: state.source.data, layout: state.source.layout }, getComputedStyle(document.documentElement));
    for (const { axis, options } of state.source.switches) {
      const option = options[state.chosen[axis] || 0];
      const change = painted(option.layout, getComputedStyle(document.documentElement));
      Object.assign(layout, change);
      data.forEach((trace, i) => { trace[axis] = option.data[i]; });
    }
    data.forEach((trace) => { trace.visible = !state.hidden.has(trace.legendgroup); });
    layout.dragmode = touch.matches ? false : "zoom";
    const settings = { responsive: true, displayModeBar: false, doubleClick: "reset" };
    Plotly.react(figure.querySelector(".plot"), data, layout, settings);
  };

  const clicked = (figure, button) => {
    const state = drawn.get(figure);
    if (!state) return;
    if (button.dataset.group) {
      const shown = button.getAttribute("aria-pressed") === "true";
      state.hidden[shown ? "add" : "delete"](button.dataset.group);
      button.setAttribute("aria-pressed", String(!shown));
    } else {
      state.chosen[button.dataset.axis] = Number(button.dataset.option);
      for (const other of button.parentElement.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
    }
    draw(figure);
  };

  const figures = [...document.querySelectorAll("figure")];
  for (const figure of figures) {
    figure.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) clicked(figure, button);
    });
  }
  const start = () => {
    // One after another from the top, so that the page can be read and scrolled meanwhile.
    const waiting = [...figures];
    const next = () => {
      const figure = waiting.shift();
      if (!figure) return;
      if (!drawn.has(figure)) draw(figure);
      setTimeout(next);
    };
    setTimeout(next);
    dark.addEventListener("change", () => drawn.forEach((_, figure) => draw(figure)));
    addEventListener("beforeprint", () => figures.filter((figure) => !drawn.has(figure)).forEach(draw));
  };

  // The policy of the page lets a script of this one content run, whoever puts it there.
  const unpack = async (packed) => {
    const bytes = Uint8Array.from(atob(packed.textContent), (one) => one.charCodeAt(0));
    const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(unpacked).text();
    document.head.append(script);
    script.remove();
  };
  const packed = document.getElementById("packed-script");
  const loaded = packed ? unpack(packed).catch(() => undefined) : Promise.resolve();
  loaded.then(() => (typeof Plotly === "undefined" ? document.body.classList.add("without-charts") : start()));
})();
