"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const styles = getComputedStyle(document.documentElement);
  const color = (name) => styles.getPropertyValue(name).trim();
  const ink = color("--plot-ink"), grid = color("--grid");
  const TYPES = { f4: Float32Array, f8: Float64Array, i4: Int32Array, u1: Uint8Array, u2: Uint16Array };
  const config = {
    displaylogo: false, responsive: true,
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
  };

  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  const short = (text) => escaped(text.length > 24 ? `${text.slice(0, 23)}…` : text);

  function bytesOf(text) {
    return Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
  }

  function decode(value) {
    return value && value.bdata !== undefined ? new TYPES[value.dtype](bytesOf(value.bdata).buffer) : value || [];
  }

  /* Figures are drawn for light pages; ink and grid become those of this page. */
  function adapt(value) {
    if (Array.isArray(value)) return value.map(adapt);
    if (value && typeof value === "object") {
      for (const key of Object.keys(value)) value[key] = adapt(value[key]);
      return value;
    }
    return value === "#333333" ? ink : value === "#dddddd" ? grid : value;
  }

  /* Pixels that rows of a legend beyond the first take from a plot, which keeps its height so. */
  function legendHeight(figure, width) {
    const names = figure.data.filter((each) => each.name && each.showlegend !== false)
      .map((each) => each.name);
    if (names.length < 2 || figure.layout.showlegend === false) return 0;
    const widest = 46 + 7 * Math.max(...names.map((each) => each.length));
    const columns = Math.max(1, Math.floor((width - 70) / widest));
    return 19 * (Math.ceil(names.length / columns) - 1);
  }

  for (const [name, figure] of Object.entries(data.figures)) {
    for (const trace of figure.data) {
      for (const key of ["line", "marker", "colorbar"]) if (trace[key]) adapt(trace[key]);
    }
    figure.layout.height += legendHeight(figure, document.getElementById(name).offsetWidth);
    Plotly.newPlot(name, figure.data, adapt(figure.layout), config);
  }

  /* Maps: all sensors in their order, from the traces "no value" and "sensors". */
  function sensorsOf(name) {
    const found = { x: [], y: [], text: [] };
    for (const trace of data.figures[name].data) {
      if (trace.customdata === undefined) continue;
      const places = decode(trace.customdata), x = decode(trace.x), y = decode(trace.y);
      places.forEach((sensor, i) => {
        found.x[sensor] = x[i]; found.y[sensor] = y[i]; found.text[sensor] = trace.text[i];
      });
    }
    return found;
  }

  for (const select of document.querySelectorAll("select[data-panel]")) {
    const name = select.dataset.panel, base = sensorsOf(name);
    const choices = Object.values(data.choices[name]);
    select.addEventListener("change", () => {
      const choice = choices[select.selectedIndex], values = decode(choice.values);
      const split = { "no value": [], sensors: [] };
      values.forEach((value, i) => split[Number.isFinite(value) ? "sensors" : "no value"].push(i));
      const plot = document.getElementById(name);
      plot.data.forEach((trace, index) => {
        const which = split[trace.name];
        if (!which) return;
        const update = {};
        for (const key of ["x", "y", "text"]) update[key] = [which.map((i) => base[key][i])];
        update.customdata = [which];
        if (trace.name === "sensors") {
          Object.assign(update, {
            "marker.color": [which.map((i) => values[i])], "marker.cmin": choice.limits[0],
            "marker.cmax": choice.limits[1], "marker.colorscale": [choice.scale],
            "marker.colorbar.title.text": escaped(choice.label),
          });
        }
        Plotly.restyle(plot, update, [index]);
      });
    });
  }

  /* Series of a sensor. */
  const curves = data.curves;
  if (!curves) return;
  const plot = document.getElementById("curves"), input = document.getElementById("sensor");
  const lead = document.getElementById("lead"), target = document.getElementById("target");
  const [, numLines, numTimes] = curves.shape;
  const low = decode(curves.low), step = decode(curves.step);
  let codes = null, shown = curves.first;
  const list = document.getElementById("sensors");
  data.ids.forEach((id) => {
    const option = document.createElement("option");
    option.value = id;
    list.append(option);
  });
  for (const [select, names] of [[lead, curves.leads], [target, curves.targets]]) {
    names.forEach((name) => select.append(new Option(name)));
    select.parentElement.hidden = names.length < 2;
    select.addEventListener("change", () => show(shown));
  }
  lead.selectedIndex = curves.leads.length - 1;

  async function unpack() {
    const stream = new Blob([bytesOf(curves.content)]).stream()
      .pipeThrough(new DecompressionStream("deflate"));
    const buffer = await new Response(stream).arrayBuffer();
    codes = curves.bytes === 1 ? new Uint8Array(buffer) : new Uint16Array(buffer);
  }

  function series(row, line) {
    const from = (row * numLines + line) * numTimes, out = new Array(numTimes);
    const modulus = curves.bytes === 1 ? 255 : 65535;
    for (let t = 0, code = 0; t < numTimes; t++) {
      code = (code + codes[from + t]) & modulus;
      out[t] = code === curves.missing ? null : low[row] + code * step[row];
    }
    return out;
  }

  /* The position of the sensor in the map, as a ring around it. */
  function mark(sensor) {
    const map = document.getElementById("map");
    if (!map || !map.layout) return;
    const all = sensorsOf("map");
    Plotly.relayout(map, { annotations: [{
      x: all.x[sensor], y: all.y[sensor], text: short(data.ids[sensor]), showarrow: true,
      arrowhead: 0, ax: 24, ay: -24, font: { color: ink }, arrowcolor: ink,
      bgcolor: color("--card"), bordercolor: grid,
    }] });
  }

  async function show(sensor) {
    if (!codes) await unpack();
    shown = sensor;
    input.value = data.ids[sensor];
    const row = sensor * curves.targets.length + Math.max(0, target.selectedIndex);
    const chosen = curves.lines[Math.max(0, lead.selectedIndex)];
    const label = curves.labels[Math.max(0, target.selectedIndex)];
    plot.data.forEach((trace, index) => {
      const line = chosen[index];
      Plotly.restyle(plot, { x: [curves.times], y: [series(row, line)] }, [index]);
    });
    Plotly.relayout(plot, {
      "yaxis.title.text": label, "xaxis.title.text": `${curves.clock}, sensor ${short(data.ids[sensor])}`,
      "xaxis.autorange": true, "yaxis.autorange": true,
    });
    plot.dataset.sensor = sensor;
    mark(sensor);
  }

  input.addEventListener("change", () => {
    const sensor = data.ids.indexOf(input.value);
    if (sensor >= 0) show(sensor);
  });
  for (const button of document.querySelectorAll("button[data-sensor]")) {
    button.addEventListener("click", () => {
      show(Number(button.dataset.sensor));
      plot.scrollIntoView({ block: "center" });
    });
  }
  for (const [name, action] of Object.entries(data.actions)) {
    if (action !== "curves") continue;
    document.getElementById(name).on("plotly_click", (event) => {
      const point = event.points.find((each) => each.customdata !== undefined);
      if (point) show(Number(point.customdata));
    });
  }
  show(shown);
})();
