// Glue between the page's choosers, Vega-Lite's charts and DataTables: one state, passed to every chart as signals.

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const { tables, charts } = read("contents");
const palettes = read("palettes");
const root = document.documentElement;
const find = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];

const rowsOf = (columns) => {
  const names = Object.keys(columns);
  const count = names.length ? columns[names[0]].length : 0;
  return Array.from({ length: count }, (_, i) => Object.fromEntries(names.map((name) => [name, columns[name][i]])));
};
const rows = Object.fromEntries(Object.entries(tables).map(([name, columns]) => [name, rowsOf(columns)]));
const epochs = [...new Set(tables.plane.epoch)].sort((a, b) => a - b);
const runs = new Set(tables.runs.run);

const slider = find("#epoch");
const play = find("#play");
slider.max = epochs.length - 1;
slider.value = epochs.length - 1;
slider.disabled = play.disabled = epochs.length < 2;

// ---- the state, and the charts that show it

let views = [];

const state = () => {
  const chosen = Object.fromEntries(all("select").map((select) => [select.name, select.value]));
  const layers = all("[name=layers]:checked").map((box) => box.value);
  return { variant: "", ...chosen, layers, mean: !runs.has(chosen.run), epoch: epochs[slider.value] };
};

const show = () => {
  const now = state();
  slider.setAttribute("aria-valuetext", `epoch ${now.epoch}`);
  find("#epoch-now").textContent = now.epoch;
  tell(now);
  views.forEach((view) => {
    Object.entries(now).forEach(([name, value]) => view.signal(name, value));
    view.runAsync();
  });
};

const tell = (now) => {
  const told = rows.plane.filter(
    (row) => ["waist", "estimator", "split", "run", "epoch"].every((name) => row[name] === now[name])
      && now.layers.includes(row.layer),
  );
  const names = { layer: "layer", h_t: "H(T)", i_xt: "I(X;T)", i_ty: "I(T;Y)" };
  const cell = (kind, text) => Object.assign(document.createElement(kind), { textContent: text });
  const line = (kind, cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map((text) => cell(kind, text)));
    return row;
  };
  const shown = (value) => (typeof value === "number" ? value.toFixed(3) : value ?? "–");
  find("#now caption").textContent = `At epoch ${now.epoch}, of ${now.run}`;
  find("#now thead").replaceChildren(line("th", Object.values(names)));
  find("#now tbody").replaceChildren(
    ...told.map((row) => line("td", Object.keys(names).map((name) => shown(row[name]) + (name === "h_t" && row.saturated ? " ▲" : "")))),
  );
  if (told.some((row) => row.saturated)) {
    find("#now caption").textContent += " (▲ saturated: it tells samples apart, and little else)";
  }
};

const hover = (layer) => views.forEach((view) => view.signal("hovered", layer).runAsync());
const chooseEpoch = (epoch) => {
  if (epochs.includes(epoch)) {
    slider.value = epochs.indexOf(epoch);
    show();
  }
};

const looks = () => {
  const style = getComputedStyle(root);
  const [text, quiet, line, ground] = ["--text", "--quiet", "--line", "--ground"].map((name) => style.getPropertyValue(name).trim());
  return {
    background: ground,
    view: { stroke: null },
    axis: { labelColor: quiet, titleColor: text, gridColor: line, domainColor: quiet, tickColor: quiet, titleFontWeight: 500 },
    legend: { labelColor: text, titleColor: text },
    title: { color: quiet },
    rule: { color: quiet },
    text: { color: quiet },
    range: { category: palettes[theme()] },
  };
};

const redraw = async () => {
  views.forEach((view) => view.finalize());
  const actions = { export: true, source: false, compiled: false, editor: false };
  const now = state();
  const begin = (param) => (param.name in now ? { ...param, value: now[param.name] } : param);
  const options = {
    renderer: "svg", ast: true, actions, config: looks(), tooltip: { theme: theme() }, logLevel: 1,  // errors; that an axis has nothing to show is none
  };
  views = await Promise.all(all(".chart").map(async (place) => {
    const chart = charts[place.dataset.section][place.dataset.number];
    const spec = { ...chart, params: chart.params.map(begin), datasets: rows };
    const { view } = await vegaEmbed(place, spec, options);
    place.querySelector("summary")?.setAttribute("aria-label", "Save this chart");
    view.addEventListener("mouseover", (_, item) => item?.datum?.layer && hover(item.datum.layer));
    view.addEventListener("mouseout", () => hover(""));
    view.addEventListener("click", (_, item) => chooseEpoch(item?.datum?.epoch));
    return view;
  }));
  all(".dot").forEach((dot) => { dot.style.background = palettes[theme()][dot.dataset.colour]; });
  show();
};

let drawing = Promise.resolve();
const draw = () => (drawing = drawing.then(redraw));  // one after another, however fast light and dark change

// ---- choosers, play, light and dark

let playing = null;

const stop = () => {
  clearInterval(playing);
  playing = null;
  play.textContent = "Play";
  play.setAttribute("aria-pressed", "false");
};
const step = () => {
  if (Number(slider.value) >= epochs.length - 1) return stop();
  slider.value = Number(slider.value) + 1;
  return show();
};
play.addEventListener("click", () => {
  if (playing) return stop();
  if (Number(slider.value) >= epochs.length - 1) slider.value = 0;
  playing = setInterval(step, Math.min(700, Math.max(80, 8000 / epochs.length)));
  play.textContent = "Pause";
  play.setAttribute("aria-pressed", "true");
  return show();
});
all("form").forEach((form) => {
  form.addEventListener("input", (event) => { if (event.target === slider) stop(); show(); });
  form.addEventListener("submit", (event) => event.preventDefault());
});

const theme = () => (root.classList.contains("dark") ? "dark" : "light");
const dress = (name) => {
  root.classList.toggle("dark", name === "dark");
  find("#theme").textContent = name === "dark" ? "Light" : "Dark";
  find("#theme").setAttribute("aria-pressed", String(name === "dark"));
  return draw();
};
find("#theme").addEventListener("click", () => {
  const name = theme() === "dark" ? "light" : "dark";
  try { localStorage.setItem("theme", name); } catch { /* a file that may keep nothing */ }
  dress(name);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", ({ matches }) => dress(matches ? "dark" : "light"));

// ---- tables

const lay = async () => {
  const source = new Blob([document.getElementById("datatables").textContent], { type: "text/javascript" });
  const { default: DataTable } = await import(URL.createObjectURL(source));
  const text = DataTable.render.text().display;
  const format = (value, kind) => {
    if (value === null || value === undefined) return "";
    if (kind !== "display") return value;
    return typeof value === "number" ? Number(value.toPrecision(5)).toString() : text(String(value));
  };
  all("table.data").forEach((place) => {
    const name = place.dataset.table;
    const columns = Object.keys(tables[name]).map((column) => ({ title: text(column), data: (row, kind) => format(row[column], kind) }));
    const options = { orthogonal: "export", format: { body: (value) => value } };  // all digits, and names as they are
    const csv = { extend: "csvHtml5", text: "CSV", filename: name, title: null, exportOptions: options };
    new DataTable(place, {
      data: rows[name], columns, order: [], pageLength: 10, deferRender: true, autoWidth: false,
      layout: { topStart: { buttons: [csv] }, topEnd: "search", bottomStart: "info", bottomEnd: "paging" },
    });
  });
};

await Promise.all([dress(theme()), lay()]);
root.dataset.ready = "true";
