"use strict";

let { studies, refresh_s: refreshS } = JSON.parse(document.getElementById("contents").textContent);
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star"];
const WIDE = 20; // Values that span more are drawn on a logarithmic axis.
const HOVERED = 14; // Numbers of an architecture that a label shows.
const SHOWN_GENES = 12;

const find = (id) => document.getElementById(id);

/** Return an element with attributes and children; texts are texts, whatever they hold. */
function element(tag, attributes = {}, ...children) {
  const svg = ["svg", "rect", "text", "path", "marker", "defs"].includes(tag);
  const made = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Return a text that Plotly shows as it is. */
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");

/** Return a number as Python's format does with "#.3g", ".2f" and "+.1f". */
function formatted(value, spec = "#.4g") {
  if (value === null || value === undefined) return "-";
  const [, sign, digits, kind] = spec.match(/^([+#]?)\.(\d)([fg])$/);
  const text = kind === "f" ? value.toFixed(digits) : shortened(value, Number(digits));
  return sign === "+" && value >= 0 ? `+${text}` : text;
}

function shortened(value, digits) {
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-4 || size >= 1e6)
    ? value.toExponential(digits - 1)
    : value.toPrecision(Math.max(digits, Math.ceil(Math.log10(size + 1))));
}

const objective = (study, name) => study.objectives.find((each) => each.name === name);
const cell = (study, name, row) => (name in study.trials ? study.trials[name][row] : null);

/** Return a number with its unit, and the interval around it where there is one. */
function quantity(study, name, row) {
  const { unit, format } = study.columns[name] ?? { unit: "", format: "#.4g" };
  const interval = cell(study, `${name}_ci`, row);
  const around = interval === null || interval === undefined ? "" : ` ± ${interval.toPrecision(1)}`;
  return `${formatted(cell(study, name, row), format)}${around}${unit ? ` ${unit}` : ""}`;
}

const label = (study, name) => study.columns[name]?.label.replace(/ \([^()]*\)$/, "") ?? name;

/** Return the names of all columns of numbers in which an architecture has a value. */
function valued(study, row) {
  const own = Object.keys(study.trials).filter((name) => !["number", "arch_id", "genotype"].includes(name));
  return own.filter((name) => !name.endsWith("_ci") && cell(study, name, row) !== null);
}

// ---------------------------------------------------------------- filter

const RELATIONS = {
  "<=": (a, b) => a <= b, ">=": (a, b) => a >= b, "<": (a, b) => a < b, ">": (a, b) => a > b,
  "==": (a, b) => a === b, "!=": (a, b) => a !== b,
};

/** Return the column that a name stands for: one of its own, or that by which a front is judged. */
const columnOf = (study, name) =>
  (name in study.trials ? name : objective(study, name)?.[study.verified ? "verified" : "search"]);

/** Return what says whether a row of a study is shown; throws where the text is no condition. */
function condition(text) {
  if (!text.trim()) return () => true;
  if (/^[0-9a-f]+$/i.test(text.trim()))
    return (study, row) => study.trials.arch_id[row].startsWith(text.trim());
  const parts = text.split(/\band\b|,/).map((part) => {
    const found = part.trim().match(/^([A-Za-z_]\w*)\s*(<=|>=|==|!=|<|>)\s*(-?[\d.]+(?:e[+-]?\d+)?)$/i);
    if (!found) throw new Error(`"${part.trim()}" is not like "error < 10"`);
    const [, name, relation, value] = found;
    if (!studies.some((study) => columnOf(study, name) in study.trials)) throw new Error(`no column is named ${name}`);
    return { name, met: RELATIONS[relation], value: Number(value) };
  });
  return (study, row) => parts.every(({ name, met, value }) => {
    const own = cell(study, columnOf(study, name), row);
    return own !== null && met(own, value);
  });
}

let shown = () => true;
find("filter").addEventListener("input", (event) => {
  try {
    shown = condition(event.target.value);
    find("filter-message").textContent = "";
  } catch (error) {
    find("filter-message").textContent = error.message;
    return;
  }
  drawFront();
  drawMembers();
  drawParallel();
});

// ---------------------------------------------------------------- plots

function layout(x, y, more = {}) {
  const style = getComputedStyle(document.documentElement);
  const [text, line] = ["--text", "--line"].map((name) => style.getPropertyValue(name).trim());
  const axis = (title) => ({ title: { text: title }, gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true });
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: text, size: 13 },
    margin: { l: 56, r: 12, t: 8, b: 48 }, hovermode: "closest", hoverlabel: { align: "left" },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    xaxis: { ...axis(x), ...more.xaxis }, yaxis: { ...axis(y), ...more.yaxis },
    ...(more.rest ?? {}),
  };
}

const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };

/** Draw a plot; a click on one of its architectures shows that. */
function plot(id, traces, own) {
  const node = find(id), first = !node.on;
  Plotly.react(node, traces, own, CONFIG);
  if (first) node.on("plotly_click", ({ points: [point] }) => point.customdata && choose(...point.customdata));
}

function scale(values) {
  const known = values.filter((value) => value !== null);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  return low > 0 && high > WIDE * low ? "log" : "linear";
}

/** Return the label of an architecture under the pointer. */
function hovered(study, row) {
  const lines = valued(study, row).map((name) => `${plain(label(study, name))}: ${plain(quantity(study, name, row))}`);
  const more = lines.length > HOVERED ? [`and ${lines.length - HOVERED} more: click`] : [];
  return [`<b>${plain(study.trials.arch_id[row])}</b>, ${plain(study.name)}`, ...lines.slice(0, HOVERED), ...more].join("<br>");
}

const common = studies[0].objectives.map(({ name }) => name)
  .filter((name) => studies.every((study) => objective(study, name)));

function fill(select, names, chosen) {
  select.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
  select.value = chosen;
  select.addEventListener("change", drawFront);
}
fill(find("x"), [...common.slice(1), ...common.slice(0, 1)], common[1] ?? common[0]);
fill(find("y"), common, common[0]);

function drawFront() {
  const [x, y] = [find("x").value, find("y").value];
  const traces = [], all = { x: [], y: [] };
  studies.forEach((study, i) => {
    const [across, up] = [objective(study, x), objective(study, y)];
    const ending = studies.length > 1 ? `, ${study.name}` : "";
    const colour = COLOURS[i % COLOURS.length];
    const add = (rows, [xName, yName], name, style) => {
      rows = rows.filter((row) => shown(study, row) && cell(study, xName, row) !== null && cell(study, yName, row) !== null);
      const sorted = style.mode.includes("lines") ? [...rows].sort((a, b) => cell(study, xName, a) - cell(study, xName, b)) : rows;
      const xs = sorted.map((row) => cell(study, xName, row)), ys = sorted.map((row) => cell(study, yName, row));
      all.x.push(...xs);
      all.y.push(...ys);
      const bars = `${xName}_ci` in study.trials && style.bars;
      traces.push({
        type: "scatter", x: xs, y: ys, name: plain(name + ending), customdata: sorted.map((row) => [i, row]),
        text: sorted.map((row) => hovered(study, row)), hovertemplate: "%{text}<extra></extra>",
        error_x: bars ? { type: "data", array: sorted.map((row) => cell(study, `${xName}_ci`, row) ?? 0), thickness: 1.5 } : {},
        ...style,
      });
    };
    const flat = study.objectives.length === 2, line = { shape: "hv", width: 1.5, color: colour };
    const every = study.trials.number.map((_, row) => row);
    add(every, [across.search, up.search], `trials of the search (${every.length})`, {
      mode: "markers", marker: { color: studies.length > 1 ? colour : "#8a949c", size: 6, opacity: 0.4, symbol: SYMBOLS[i % SYMBOLS.length] },
    });
    add(study.search_front, [across.search, up.search], "front of the search", {
      mode: flat ? "lines+markers" : "markers", line: { ...line, dash: study.verified ? "dot" : "solid" },
      marker: { color: colour, size: 8, symbol: `${SYMBOLS[i % SYMBOLS.length]}-open` },
    });
    if (study.verified) {
      add(study.front, [across.verified, up.verified], "verified front", {
        mode: flat ? "lines+markers" : "markers", line: { ...line, width: 2.5 }, bars: true,
        marker: { color: colour, size: 11, symbol: SYMBOLS[i % SYMBOLS.length] },
      });
    }
  });
  const title = (name) => plain(`${name.replaceAll("_", " ").replace(/ (ms|mb|m)$/, "")} (${objective(studies[0], name).unit || "no unit"})`);
  plot("front", traces, layout(title(x), title(y), { xaxis: { type: scale(all.x) }, yaxis: { type: scale(all.y) } }));
}

function drawParallel() {
  if (common.length < 3) return;
  find("parallel-section").hidden = false;
  const columnsOf = (study) => common.map((name) => objective(study, name)[study.verified ? "verified" : "search"]);
  const lines = studies.flatMap((study, i) => study.front
    .filter((row) => shown(study, row) && columnsOf(study).every((name) => cell(study, name, row) !== null))
    .map((row) => ({ study, i, row, values: columnsOf(study).map((name) => cell(study, name, row)) })));
  const ends = common.map((_, k) => lines.map(({ values }) => values[k]))
    .map((values) => [Math.min(...values), Math.max(...values)]);
  const traces = lines.map(({ study, i, row, values }) => ({
    type: "scatter", mode: "lines+markers", x: common.map((_, k) => k),
    y: values.map((value, k) => (value - ends[k][0]) / (ends[k][1] - ends[k][0] || 1)),
    line: { color: COLOURS[i % COLOURS.length] }, customdata: common.map(() => [i, row]),
    text: common.map(() => hovered(study, row)), hovertemplate: "%{text}<extra></extra>", showlegend: false,
  }));
  const ticks = common.map((name, k) => {
    const unit = objective(studies[0], name).unit;
    return `${plain(name)}<br>${ends[k].map((end) => formatted(end)).join(" to ")} ${plain(unit)}`;
  });
  plot("parallel", traces, layout("", "between least and largest", {
    xaxis: { tickvals: common.map((_, k) => k), ticktext: ticks, range: [-0.2, common.length - 0.8] },
  }));
}

function drawProgress() {
  const over = find("over").value;
  const traces = studies.map((study, i) => ({
    type: "scatter", mode: "lines", name: plain(study.name), line: { shape: "hv", color: COLOURS[i % COLOURS.length] },
    x: study.progress.map((each) => (over === "trials" ? each.trials : each.seconds / 60)),
    y: study.progress.map((each) => each.hypervolume), showlegend: studies.length > 1,
  }));
  plot("progress", traces, layout(over === "trials" ? "trials" : "minutes of search", "hypervolume, as a share"));
}

function drawPredictor() {
  const traces = [], ends = [];
  studies.forEach((study, i) => {
    const [predicted, measured] = ["latency_ms_predicted", "latency_ms_measured"];
    const rows = study.trials.number.map((_, row) => row)
      .filter((row) => cell(study, predicted, row) !== null && cell(study, measured, row) !== null);
    const learned = new Set(study.learned);
    for (const [name, own, symbol] of [
      ["not seen by the predictor before", rows.filter((row) => !learned.has(row)), "circle"],
      ["measured during the search, and learned from", rows.filter((row) => learned.has(row)), "circle-open"],
    ]) {
      if (!own.length) continue;
      const xs = own.map((row) => cell(study, measured, row)), ys = own.map((row) => cell(study, predicted, row));
      ends.push(...xs, ...ys);
      traces.push({
        type: "scatter", mode: "markers", x: xs, y: ys, name: plain(studies.length > 1 ? `${name}, ${study.name}` : name),
        marker: { color: COLOURS[i % COLOURS.length], symbol, size: 9 }, customdata: own.map((row) => [i, row]),
        error_y: { type: "data", array: own.map((row) => 1.96 * (cell(study, `${predicted}_std`, row) ?? 0)), thickness: 1 },
        text: own.map((row) => hovered(study, row)), hovertemplate: "%{text}<extra></extra>",
      });
    }
  });
  const compared = studies.filter((study) => Object.keys(study.predictors).length).map((study) => {
    const errors = Object.entries(study.predictors).sort((a, b) => a[1] - b[1]);
    const list = errors.map(([name, error]) => `${name} ${error.toFixed(1)} %`).join(", ");
    return `${studies.length > 1 ? `${study.name}: ` : ""}root mean square of the relative error in cross-validation: ${list}.`;
  });
  find("predictor-note").textContent = [traces.length ? "Bars are 95 % intervals of the prediction." : "No architecture was predicted and measured.", ...compared].join(" ");
  find("predictor").hidden = !traces.length;
  if (!traces.length) return;
  const line = [Math.min(...ends), Math.max(...ends)], type = scale(ends);
  traces.push({ type: "scatter", mode: "lines", x: line, y: line, line: { color: "#8a949c", dash: "dot" }, name: "equal", hoverinfo: "skip" });
  plot("predictor", traces, layout("measured latency (ms)", "predicted latency (ms)", { xaxis: { type }, yaxis: { type } }));
}

// ---------------------------------------------------------------- tables

let sorting = { name: null, up: true };

function drawMembers() {
  const columns = [];
  for (const study of studies)
    for (const column of study.table)
      if (!columns.some(({ name }) => name === column.name)) columns.push(column);
  const rows = studies.flatMap((study, i) => study.front.filter((row) => shown(study, row)).map((row) => ({ study, i, row })));
  if (sorting.name) {
    const value = ({ study, row }) => cell(study, sorting.name, row) ?? Infinity;
    const order = (a, b) => (value(a) < value(b) ? -1 : Number(value(a) > value(b)));
    rows.sort((a, b) => (sorting.up ? order(a, b) : order(b, a)));
  }
  const headings = columns.map(({ name, heading }) => {
    const button = element("button", { type: "button" }, heading || name);
    button.addEventListener("click", () => {
      sorting = { name, up: sorting.name === name ? !sorting.up : true };
      drawMembers();
    });
    const sort = sorting.name !== name ? "none" : sorting.up ? "ascending" : "descending";
    return element("th", { scope: "col", "aria-sort": sort, title: studies[0].columns[name]?.label ?? "" }, button);
  });
  if (studies.length > 1) headings.unshift(element("th", { scope: "col", class: "text" }, "study"));
  const body = rows.map(({ study, i, row }) => {
    const cells = columns.map(({ name }) => {
      if (name === "arch_id") {
        const knee = study.knee.includes(row) ? " (knee)" : "";
        return element("td", { class: "text" }, `${study.trials.arch_id[row]}${knee}`);
      }
      const interval = cell(study, `${name}_ci`, row);
      const around = interval === null ? "" : ` ± ${interval.toPrecision(1)}`;
      return element("td", {}, formatted(cell(study, name, row), study.columns[name]?.format) + around);
    });
    if (studies.length > 1) cells.unshift(element("td", { class: "text" }, study.name));
    const made = element("tr", { tabindex: "0", "data-arch": study.trials.arch_id[row] }, ...cells);
    made.addEventListener("click", () => choose(i, row));
    made.addEventListener("keydown", (event) => event.key === "Enter" && choose(i, row));
    return made;
  });
  find("members").replaceChildren(element("thead", {}, element("tr", {}, ...headings)), element("tbody", {}, ...body));
}

let chosen = null;

/** Show an architecture: its numbers, its choices beside the front's, its drawing. */
function choose(i, row) {
  chosen = [i, row];
  const study = studies[i], archId = study.trials.arch_id[row], article = find("architecture");
  const numbers = valued(study, row).map((name) =>
    element("tr", {}, element("td", {}, label(study, name)), element("td", {}, quantity(study, name, row))));
  const choices = study.preferences
    .map(({ gene, choices: names, front, place }) => ({ gene, names, front, chosen: study.trials.genotype[row][place], place }))
    .sort((a, b) => a.place - b.place)
    .map(({ gene, names, front, chosen }) => {
      const others = names.map((name, k) => [name, front[k]]).filter(([, share]) => share > 0).sort((a, b) => b[1] - a[1]);
      const text = others.map(([name, share]) => `${name} ${Math.round(100 * share)} %`).join(", ");
      return element("tr", {}, element("td", {}, gene), element("td", { class: "text" }, names[chosen] ?? String(chosen)), element("td", { class: "text" }, text));
    });
  const command = study.front.includes(row) && study.verified
    ? element("p", {}, "Export: ", element("code", {}, `${study.export} ${archId} --out out/${archId}`))
    : element("p", { class: "note" }, "Not on the verified front: it has no trained weights that could be exported.");
  const drawings = (study.drawings[archId] ?? []).flatMap((graph) => [element("h3", {}, graph.name), element("div", { class: "scroll" }, drawn(graph))]);
  if (!drawings.length) drawings.push(element("p", { class: "note" }, study.why_no_drawings || "Only architectures of the front are drawn."));
  article.replaceChildren(
    element("h3", {}, `${archId} of ${study.name}`), command,
    element("div", { class: "columns" },
      tableOf(["", "value"], numbers), tableOf(["gene", "choice", "on the front"], choices), element("div", {}, ...drawings)),
    ...classesOf(study.classes[archId]),
  );
  article.hidden = false;
  document.querySelectorAll("#members tr").forEach((each) => each.classList.toggle("chosen", each.dataset.arch === archId));
}

const tableOf = (heading, rows) => element("div", { class: "scroll" }, element("table", {}, element("thead", {}, element("tr", {}, ...heading.map((text) => element("th", { class: "text" }, text)))), element("tbody", {}, ...rows)));

/** Return how a network does on each class, and the confusion matrix. */
function classesOf(classes) {
  if (!classes) return [];
  const rows = classes.rows.map(({ name, images, recall, taken_for: others }) => element("tr", {},
    element("td", {}, name), element("td", {}, String(images)), element("td", {}, formatted(recall, ".2f")),
    element("td", { class: "text" }, others.map(([other, count]) => `${other} ${count}`).join(", "))));
  const found = [
    element("h3", {}, "Classes on the test split"),
    element("div", { class: "columns" }, tableOf(["class", "images", "recall (%)", "taken for"], rows)),
  ];
  if (!classes.matrix) return found;
  const lines = classes.matrix.map((counts, i) => {
    const all = counts.reduce((a, b) => a + b, 0) || 1;
    const cells = counts.map((count, j) => element("td", {
      class: i === j ? "right" : "", style: `--share: ${Math.sqrt(count / all).toFixed(3)}`,
      title: `${classes.names[i]} taken for ${classes.names[j]}: ${count} of ${all}`,
    }, count ? String(count) : ""));
    return element("tr", {}, element("th", { scope: "row" }, classes.names[i]), ...cells);
  });
  const heading = ["class", ...classes.names].map((name) => element("th", { scope: "col" }, element("span", {}, name)));
  const matrix = element("table", { class: "confusion" }, element("thead", {}, element("tr", {}, ...heading)), element("tbody", {}, ...lines));
  found[1].append(element("div", { class: "scroll" }, matrix, element("p", { class: "note" }, "A row is a class, a column what its images are taken for.")));
  return found;
}

/** Return the drawing of a graph. */
function drawn({ operations, edges, places, chain }) {
  const [across, down, height] = chain ? [0, 34, 26] : [170, 40, 26];
  const width = Math.max(...operations.map((text) => 7 * text.length)) + 18;
  const step = chain ? 0 : Math.max(across, width + 24);
  const xs = places.map(([x]) => x * step), ys = places.map(([, y]) => -y * down);
  const [left, top] = [Math.min(...xs) - width / 2 - 8, Math.min(...ys) - height];
  const size = [Math.max(...xs) + width / 2 + 8 - left, Math.max(...ys) + height - top];
  const lines = edges.map(([from, to]) => {
    const ends = chain
      ? [xs[from], ys[from] + height / 2, xs[to], ys[to] - height / 2]
      : [xs[from] + width / 2, ys[from], xs[to] - width / 2, ys[to]];
    return element("path", { d: `M${ends[0]} ${ends[1]}L${ends[2]} ${ends[3]}`, "marker-end": "url(#arrow)" });
  });
  const boxes = operations.flatMap((text, k) => [
    element("rect", { x: xs[k] - width / 2, y: ys[k] - height / 2, width, height, rx: 5 }),
    element("text", { x: xs[k], y: ys[k] }, text),
  ]);
  const arrow = element("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, element("path", { d: "M0 0L8 4L0 8Z" }));
  return element("svg", { class: "network", width: size[0], height: size[1], viewBox: `${left} ${top} ${size[0]} ${size[1]}`, role: "img" }, element("defs", {}, arrow), ...lines, ...boxes);
}

const titled = (study) => (studies.length > 1 ? [element("h3", {}, study.name)] : []);
const duration = (seconds) => (seconds < 90 ? `${seconds.toFixed(0)} s` : seconds < 5400 ? `${(seconds / 60).toFixed(1)} min` : `${(seconds / 3600).toFixed(1)} h`);
const bar = (share, kind = "") => element("span", { class: `bar ${kind}`, style: `width: ${Math.max(1, Math.round(230 * share))}px` });

function drawTexts() {
  const open = [...document.querySelectorAll("details[open] > summary")].map((each) => each.textContent);
  for (const id of ["times", "preferences", "settings"]) find(id).replaceChildren();
  find("facts").textContent = studies.map((study) => study.facts.map(([name, value]) => `${name}: ${value}`).join(" · ")).join(" | ");
  find("front-note").textContent = studies.map(({ name, note }) => (studies.length > 1 ? `${name}: ${note}` : note)).join(". ");
  for (const study of studies) {
    const longest = Math.max(...study.times.map(({ seconds }) => seconds), 1);
    const rows = study.times.map(({ what, of, seconds, planned }) => element("tr", {},
      element("td", {}, what), element("td", { class: "text" }, of === "workers" ? "on the workers, in the search" : "of the last run"),
      element("td", {}, duration(seconds)), element("td", {}, planned ? `planned ${duration(planned)}` : ""), element("td", { class: "bars" }, bar(seconds / longest))));
    find("times").append(...titled(study), element("div", { class: "scroll" }, element("table", {}, element("tbody", {}, ...rows))));
    find("preferences").append(...titled(study), preferencesOf(study));
    const environment = Object.entries(study.environment).map(([name, value]) => element("tr", {}, element("td", {}, name), element("td", { class: "text" }, String(value))));
    find("settings").append(...titled(study),
      element("details", {}, element("summary", {}, "settings"), element("pre", {}, study.settings)),
      element("details", {}, element("summary", {}, "environment"), element("table", {}, element("tbody", {}, ...environment))));
  }
  for (const each of document.querySelectorAll("details > summary"))
    each.parentElement.open = open.includes(each.textContent);
}

function preferencesOf(study) {
  if (!study.preferences.length) return element("p", { class: "note" }, "There is no front yet.");
  const rowsOf = (genes) => genes.flatMap(({ gene, choices, front, trials }) => choices.map((choice, k) => element("tr", {},
    element("td", {}, k ? "" : gene), element("td", { class: "text" }, choice),
    element("td", {}, `${Math.round(100 * front[k])} %`), element("td", {}, `${Math.round(100 * trials[k])} %`),
    element("td", { class: "bars" }, bar(front[k]), bar(trials[k], "other")))));
  const table = (genes) => {
    const headings = ["gene", "choice", "on the front", "in full trials", ""].map((text) => element("th", {}, text));
    return element("div", { class: "scroll" }, element("table", {}, element("thead", {}, element("tr", {}, ...headings)), element("tbody", {}, ...rowsOf(genes))));
  };
  const found = element("div", {}, table(study.preferences.slice(0, SHOWN_GENES)));
  const others = study.preferences.slice(SHOWN_GENES);
  if (others.length) found.append(element("details", {}, element("summary", {}, `${others.length} further genes, in which the front differs less`), table(others)));
  return found;
}

// ---------------------------------------------------------------- the page

function draw() {
  drawFront();
  drawParallel();
  drawProgress();
  drawPredictor();
}

function drawAll() {
  drawTexts();
  drawMembers();
  draw();
}

/** Draw what the server knows by now, where it is more than what is drawn. */
async function refresh() {
  let newer = studies;
  try {
    if (!document.hidden) {
      const answer = await fetch("contents.json");
      if (!answer.ok) throw new Error(answer.status);
      newer = (await answer.json()).studies;
    }
    find("connection").textContent = "";
  } catch {
    find("connection").textContent = "The server does not answer: the page shows what it had before.";
  }
  setTimeout(refresh, 1000 * refreshS);
  if (JSON.stringify(newer) === JSON.stringify(studies)) return;
  studies = newer;
  drawAll();
  if (chosen) choose(...chosen);
}

drawAll();
find("over").addEventListener("change", drawProgress);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
document.querySelectorAll("form").forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));
if (refreshS > 0) setTimeout(refresh, 1000 * refreshS);
