"use strict";
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const rowsOf = (columns) => {
  const names = Object.keys(columns);
  return names.length ? columns[names[0]].map((_, row) => Object.fromEntries(names.map((name) => [name, columns[name][row]]))) : [];
};
const sources = read("sources").map(rowsOf), config = read("config");

for (const run of document.querySelectorAll("section.run")) {
  const state = { chosen: -1, layer: 0 }, views = [];
  const tell = () => {
    for (const { said, words } of views) {
      if (words) words.textContent = (said[state.layer] || {})[state.chosen] || "";
    }
  };
  const choose = (name, value) => {
    if (state[name] === value) return;
    state[name] = value;
    for (const select of run.querySelectorAll(`select[name=${name}]`)) select.value = String(value);
    for (const { view, names } of views) {
      if (view && names.includes(name)) view.signal(name, value).runAsync();
    }
    tell();
  };
  for (const select of run.querySelectorAll("select")) {
    select.addEventListener("input", () => choose(select.name, Number(select.value)));
  }
  const draw = async (chart) => {
    const { spec, source, said } = JSON.parse(chart.nextElementSibling.textContent);
    const params = spec.params || [];
    for (const param of params) if (param.name in state) param.value = state[param.name];
    const known = { said, words: chart.parentElement.querySelector(".said"), names: params.map((param) => param.name) };
    views.push(known);
    try {
      const options = { mode: "vega-lite", renderer: "svg", actions: false, logLevel: 1, config };
      known.view = (await vegaEmbed(chart, { ...spec, data: { values: sources[source] } }, options)).view;
      if ("chooses" in chart.dataset) {
        const point = (event, item) => {
          if (item && item.datum && Number.isInteger(item.datum.t)) choose("chosen", item.datum.t);
        };
        known.view.addEventListener("mouseover", point);
        known.view.addEventListener("click", point);
      }
    } catch (error) {
      chart.textContent = `This chart could not be drawn (${error.message}). Its numbers are in the table.`;
    }
    chart.dataset.drawn = "";
    tell();
  };
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) {
        seen.unobserve(target);
        draw(target);
      }
    }
  }, { rootMargin: "400px" });
  for (const chart of run.querySelectorAll(".chart")) seen.observe(chart);
}
