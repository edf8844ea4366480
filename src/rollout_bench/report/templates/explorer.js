"use strict";
// The explorer of summary.html: choose numbers, hide rows, look at launches. It computes no ratio: all are the program's.
(() => {
  const section = document.getElementById("explorer");
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const axes = ["mode", "platform", "model", "workload", "baseline"];
  const words = { faster: "faster", slower: "slower", irrelevant: "real, small", undetected: "inconclusive", bounded: "within 5 %", unknown: "no verdict" };
  const state = { number: data.numbers[0].name, sort: "", down: true, invalid: false, hidden: [] };

  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key in made && key !== "list") made[key] = value; else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  };
  const drawn = (name, attributes, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };
  const values = (axis) => [...new Set(data.rows.map((row) => row[axis]))];
  const number = () => data.numbers.find((each) => each.name === state.number);
  const shown = (value, digits = number().digits) => {
    if (value == null) return "-";
    const told = number().factor * value; // whole digits stay, as in the tables
    return told.toLocaleString("en", digits && Math.abs(told) < 10 ** digits ? { maximumSignificantDigits: digits } : { maximumFractionDigits: 0 });
  };
  const nameOf = (row) => [row.label, ...axes.filter((axis) => !state[axis] && values(axis).length > 1 && axis !== "baseline")
    .map((axis) => row[axis])].join(", ");
  const ratioOf = (row) => row.compared[state.number];
  const ratioText = (row) => {
    const found = ratioOf(row);
    if (!found) return "";
    if (found.ratio == null) return words[found.verdict];
    const ends = found.low == null ? "" : ` [${found.low.toFixed(3)}, ${found.high.toFixed(3)}]`;
    return `${found.ratio.toFixed(3)}x ${words[found.verdict]}${ends}`;
  };

  const chosen = () => {
    const rows = data.rows.filter((row) => axes.every((axis) => !state[axis] || row[axis] === state[axis])
      && (row.means[state.number] != null || row.launches.some((each) => each.values[state.number] != null)));
    const keys = { name: nameOf, value: (row) => row.means[state.number] ?? -Infinity, ratio: (row) => ratioOf(row)?.ratio ?? -Infinity };
    if (state.sort) {
      const key = keys[state.sort];
      rows.sort((one, other) => (key(one) < key(other) ? -1 : key(one) > key(other) ? 1 : 0) * (state.down ? -1 : 1));
    }
    return rows;
  };

  const picture = (rows) => {
    const width = 600, line = 24, left = 190, right = 230;
    const launches = rows.flatMap((row) => row.launches.filter((each) => (each.valid || state.invalid) && each.values[state.number] != null));
    const most = Math.max(...rows.map((row) => row.means[state.number] ?? 0), ...launches.map((each) => each.values[state.number]), 1e-12);
    const x = (value) => left + (width - left - right) * value / most;
    const svg = drawn("svg", { viewBox: `0 0 ${width} ${line * rows.length + 30}`, role: "img", "font-size": 12, "font-family": "system-ui, sans-serif" });
    svg.append(drawn("title", {}, number().header));
    rows.forEach((row, place) => {
      const y = 10 + line * place, mean = row.means[state.number];
      const name = nameOf(row);
      svg.append(drawn("text", { x: left - 6, y: y + 15, "text-anchor": "end", fill: "currentColor" }, name.length > 28 ? `${name.slice(0, 14)}…${name.slice(-13)}` : name));
      if (mean != null) svg.append(drawn("rect", { x: left, y: y + 2, width: Math.max(0, x(mean) - left), height: line - 6, fill: row.colour }));
      row.launches.forEach((each, at) => {
        const value = each.values[state.number];
        if (value == null || (!each.valid && !state.invalid)) return;
        const dot = drawn("circle", { cx: x(value), cy: y + 6 + (line - 14) * (at + 0.5) / row.launches.length, r: 3.2, tabindex: 0,
          fill: each.valid ? "white" : "none", stroke: each.valid ? "black" : "#d55e00" });
        dot.append(drawn("title", {}, `launch ${each.launch}: ${shown(value)} ${number().header}${each.flags.length ? `; ${each.flags.join(", ")}` : ""}`));
        svg.append(dot);
      });
      svg.append(drawn("text", { x: width - right + 8, y: y + 15, fill: "currentColor" }, `${shown(mean)}  ${ratioText(row).replace(/ \[.*/, "")}`));
    });
    svg.append(drawn("text", { x: left, y: line * rows.length + 24, fill: "currentColor" }, number().header));
    return svg;
  };

  const columns = () => [["name", "configuration", nameOf], ["value", number().header, (row) => shown(row.means[state.number])],
    ["ratio", "against the baseline", ratioText], ["launches", "launches", (row) => `${row.launches.filter((each) => each.valid).length}/${row.launches.length}`]];

  const table = (rows) => {
    const head = element("tr", {}, ...columns().map(([key, text]) => element("th", {}, key === "launches" ? text
      : element("button", { type: "button", onclick: () => change({ sort: key, down: state.sort === key ? !state.down : key !== "name" }) },
        `${text}${state.sort === key ? (state.down ? " ↓" : " ↑") : ""}`))), element("th", {}));
    const body = rows.map((row) => element("tr", {}, ...columns().map(([, text, cell]) => element("td", { "data-head": text }, cell(row))),
      element("td", {}, element("button", { type: "button", title: "hide this row", ariaLabel: `hide ${nameOf(row)}`,
        onclick: () => change({ hidden: [...state.hidden, data.rows.indexOf(row)] }) }, "hide"))));
    return element("div", { className: "wide" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
  };

  const markdown = (rows) => [columns().map(([, text]) => text), columns().map(() => ":--"), ...rows.map((row) => columns().map(([, , cell]) => cell(row)))]
    .map((cells) => `| ${cells.map((cell) => String(cell).replaceAll("|", "\\|")).join(" | ")} |`).join("\n");

  const copy = (text) => {
    const area = element("textarea", { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy"); // works for files, too, where navigator.clipboard may be refused
    area.remove();
  };
  const save = () => {
    const figure = section.querySelector("svg").cloneNode(true);
    figure.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    figure.setAttribute("color", "#222");
    const url = URL.createObjectURL(new Blob([figure.outerHTML], { type: "image/svg+xml" }));
    element("a", { href: url, download: `${state.number}.svg` }).click();
    URL.revokeObjectURL(url);
  };

  const choice = (key, options, none) => element("label", {}, `${key} `, element("select", { name: key, onchange: (event) => change({ [key]: event.target.value }) },
    ...(none ? [element("option", { value: "" }, "all")] : []),
    ...options.map(([value, text]) => element("option", { value, selected: state[key] === value }, text))));

  const change = (changes) => {
    Object.assign(state, changes);
    history.replaceState(null, "", `#explorer=${encodeURIComponent(JSON.stringify(state))}`);
    draw();
  };
  const draw = () => {
    const focused = document.activeElement?.name;
    const all = chosen();
    const rows = all.filter((row) => !state.hidden.includes(data.rows.indexOf(row)));
    const controls = element("p", { className: "controls" },
      choice("number", data.numbers.map((each) => [each.name, each.header])),
      ...axes.filter((axis) => values(axis).filter(Boolean).length > 1).map((axis) => choice(axis, values(axis).filter(Boolean).map((value) => [value, value]), true)),
      element("label", {}, element("input", { type: "checkbox", name: "invalid", checked: state.invalid, onchange: (event) => change({ invalid: event.target.checked }) }), " invalid launches"),
      element("button", { type: "button", name: "copy", onclick: () => copy(markdown(rows)) }, "Copy as Markdown"),
      element("button", { type: "button", name: "save", onclick: save }, "Save the figure"),
      ...(state.hidden.length ? [element("button", { type: "button", name: "show", onclick: () => change({ hidden: [] }) }, `Show ${state.hidden.length} hidden`)] : []));
    section.querySelector(".explored").replaceChildren(controls, picture(rows), table(rows));
    if (focused) section.querySelector(`[name="${focused}"]`)?.focus();
  };
  const read = () => {
    const [key, text] = location.hash.slice(1).split("=");
    if (key !== "explorer" || !text) return;
    try { Object.assign(state, JSON.parse(decodeURIComponent(text))); } catch { /* a link that was cut: the page as it is */ }
    if (!number()) state.number = data.numbers[0].name;
    section.querySelector("details").open = true;
    section.scrollIntoView();
  };
  read();
  draw();
})();
